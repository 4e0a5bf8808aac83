import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Json, QueryPart, QueryRequest, QueryRow, QueryType } from '@cocoon-mesh/protocol';
import { limits, toBase64Url, utf8 } from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import fc from 'fast-check';
import { readCursor, writeCursor } from './cursor.ts';
import type { Places } from './cursor.ts';
import { fuseRanks } from './fuse.ts';
import { compareKeys } from './row-order.ts';
import type { QueryAnswer } from './run-query.ts';
import { runQuery } from './run-query.ts';
import { scripted } from './targets.contract.ts';
import type { ScriptedTarget } from './targets.contract.ts';

const seed = Number(process.env['COCOON_FUZZ_SEED'] ?? Math.floor(Math.random() * 0x7fff_ffff));
const numRuns = process.env['COCOON_TEST_FULL'] === '1' ? 3000 : 30;

/** A device that keeps rows by time and id, as a task store does, and pages through them by position. */
class Device {
  readonly #times = new Map<string, number>();
  readonly name: string;
  isOnline = true;
  /** Rows in one answer at most, whatever was asked for: as when they are large. */
  most = Infinity;

  constructor(name: string) {
    this.name = name;
  }

  get ids(): string[] {
    return [...this.#times.keys()];
  }

  /** A new one, or one that moves. */
  put(id: string, time: number): void {
    this.#times.set(id, time);
  }

  get target(): ScriptedTarget {
    const { name } = this;
    const target = scripted(name, (request) => this.#answer(request));
    return this.isOnline ? target : { ...target, ask: null };
  }

  async *#answer({ limit, after }: QueryRequest): AsyncGenerator<QueryPart> {
    const behind = this.#rows().filter(({ key }) => after === null || compareKeys(keyAt(after), key) < 0);
    const rows = behind.slice(0, Math.min(limit, this.most));
    const half = Math.ceil(rows.length / 2);
    yield { kind: 'part', seq: 0, rows: rows.slice(0, half), is_final: false };
    const more = behind.length > rows.length;
    yield { kind: 'part', seq: 1, rows: rows.slice(half), is_final: true, more };
  }

  #rows(): QueryRow[] {
    return [...this.#times]
      .map(([id, time]) => ({ key: [time, id], at: JSON.stringify([time, id]), value: { id, time } }))
      .toSorted((one, other) => compareKeys(one.key, other.key));
  }
}

function keyAt(position: string): QueryRow['key'] {
  return JSON.parse(position) as QueryRow['key'];
}

interface Shown {
  readonly id: string;
  readonly time: number;
  readonly device: string;
}

function shownBy(page: QueryAnswer): Shown[] {
  return page.rows.map(({ device, value }) => ({ device, ...(value as { id: string; time: number }) }));
}

function ask(
  devices: readonly Device[],
  limit: number,
  cursor: string | null,
  type: QueryType = 'custom',
): Promise<QueryAnswer> {
  return runQuery({
    targets: devices.map(({ target }) => target),
    type,
    params: { name: 'test' },
    limit,
    cursor,
    clock: new SteppedClock(),
  });
}

/** What happens before a page is asked for. */
interface Turn {
  readonly limit: number;
  readonly offline: readonly number[];
  readonly short: readonly number[];
  /** Devices that get a new row. */
  readonly added: readonly number[];
  /** Of all rows that are there, by index. */
  readonly touched: readonly number[];
}

const some = fc.array(fc.nat({ max: 3 }), { maxLength: 3 });
const turnArbitrary: fc.Arbitrary<Turn> = fc.record({
  limit: fc.integer({ min: 1, max: 8 }),
  offline: fc.oneof({ weight: 4, arbitrary: fc.constant([]) }, { weight: 1, arbitrary: some }),
  short: some,
  added: some,
  touched: fc.array(fc.nat(), { maxLength: 3 }),
});
const storyArbitrary = fc.record({
  /** Times of each device's rows at the start. */
  start: fc.array(fc.array(fc.nat({ max: 20 }), { maxLength: 15 }), { minLength: 1, maxLength: 4 }),
  turns: fc.array(turnArbitrary, { minLength: 1, maxLength: 12 }),
});

interface Told {
  readonly pages: readonly (readonly Shown[])[];
  readonly last: QueryAnswer;
  readonly atStart: readonly (readonly string[])[];
  readonly allAnswered: boolean;
}

/** Pages through everything while the story goes on; the last turn is repeated, with nothing new, until the end. */
async function tell(
  { start, turns }: { start: readonly (readonly number[])[]; turns: readonly Turn[] },
  order: 'created' | 'updated',
): Promise<Told> {
  let now = 100;
  const devices = start.map((times, i) => {
    const device = new Device(`device-${i}`);
    for (const [at, time] of times.entries()) device.put(`${i}-${at}`, time);
    return device;
  });
  const atStart = devices.map(({ ids }) => ids);
  const pages: Shown[][] = [];
  let allAnswered = true;
  let cursor: string | null = null;
  for (let page = 0; page < 500; page++) {
    const turn = turns[page];
    const { limit } = turn ?? { limit: 5 };
    for (const [i, device] of devices.entries()) {
      device.isOnline = turn?.offline.includes(i) !== true;
      device.most = turn?.short.includes(i) === true ? 2 : Infinity;
      allAnswered &&= device.isOnline;
    }
    if (page > 0 && turn) {
      for (const i of turn.added) devices[i]?.put(`${i}-new-${now}`, now++);
      if (order === 'updated')
        for (const index of turn.touched) {
          const device = devices[index % devices.length];
          const id = device?.ids[index % Math.max(1, device.ids.length)];
          if (id !== undefined) device?.put(id, now++);
        }
    }
    const answer: QueryAnswer = await ask(devices, limit, cursor);
    pages.push(shownBy(answer));
    assert.ok(answer.rows.length <= limit);
    cursor = answer.next_cursor;
    if (cursor === null) return { pages, last: answer, atStart, allAnswered };
  }
  assert.fail('paging does not end');
}

function assertInOrder(rows: readonly Shown[]): void {
  for (const [i, { time, id, device }] of rows.entries()) {
    const next = rows[i + 1];
    if (!next) continue;
    const order = compareKeys([time, id], [next.time, next.id]);
    assert.ok(
      order < 0 || (order === 0 && device <= next.device),
      `${time} ${id} before ${next.time} ${next.id}`,
    );
  }
}

function assertOnce(rows: readonly Shown[]): void {
  const ids = rows.map(({ id }) => id);
  assert.deepEqual(ids.toSorted(), [...new Set(ids)].toSorted());
}

describe('paging by creation', () => {
  test('gives each row once and in order, while others are added and devices come and go', async () => {
    await fc.assert(
      fc.asyncProperty(storyArbitrary, async (story) => {
        const { pages, last, atStart, allAnswered } = await tell(story, 'created');
        for (const page of pages) assertInOrder(page);
        const rows = pages.flat();
        if (allAnswered) assertInOrder(rows);
        assertOnce(rows);
        for (const [i, { status }] of last.devices.entries()) {
          if (status !== 'ok') continue;
          const shown = rows.filter(({ id, device }) => device === `device-${i}` && !id.includes('new'));
          assert.deepEqual(shown.map(({ id }) => id).toSorted(), atStart[i]?.toSorted());
        }
      }),
      { seed, numRuns },
    );
  });

  test('brings the rows of a device that comes later, in order, on the page where it comes', async () => {
    const [early, late] = [new Device('early'), new Device('late')];
    for (let time = 1; time <= 9; time += 2) early.put(`e${time}`, time);
    for (let time = 2; time <= 8; time += 2) late.put(`l${time}`, time);
    late.isOnline = false;
    const first = await ask([early, late], 2, null);
    assert.equal(first.partial, true);
    assert.deepEqual(
      first.devices.map(({ status }) => status),
      ['ok', 'offline'],
    );
    late.isOnline = true;
    const second = await ask([early, late], 100, first.next_cursor);
    assert.equal(second.partial, false);
    assert.deepEqual(
      shownBy(second).map(({ id }) => id),
      ['l8', 'l6', 'e5', 'l4', 'e3', 'l2', 'e1'],
    );
    assert.equal(second.next_cursor, null);
  });

  test('keeps the place of a device that is away for a page', async () => {
    const [here, away] = [new Device('here'), new Device('away')];
    for (let time = 1; time <= 9; time++) (time % 2 ? here : away).put(`t${time}`, time);
    const first = await ask([here, away], 3, null);
    away.isOnline = false;
    const second = await ask([here, away], 1, first.next_cursor);
    away.isOnline = true;
    const third = await ask([here, away], 100, second.next_cursor);
    assert.deepEqual(
      [first, second, third].map((page) => shownBy(page).map(({ time }) => time)),
      [[9, 8, 7], [5], [6, 4, 3, 2, 1]],
    );
  });

  test('does not ask again a device that has given everything, and says that it is fine', async () => {
    const [small, large] = [new Device('small'), new Device('large')];
    small.put('s', 99);
    for (let time = 1; time <= 9; time++) large.put(`t${time}`, time);
    const first = await ask([small, large], 3, null);
    small.isOnline = false;
    const second = await ask([small, large], 3, first.next_cursor);
    assert.equal(second.partial, false);
    assert.deepEqual(second.devices[0], { id: 'peer-small', name: 'small', status: 'ok', count: 0, ms: 0 });
  });

  test('ends although a device never answers', async () => {
    const [here, away] = [new Device('here'), new Device('away')];
    here.put('h', 1);
    away.isOnline = false;
    const page = await ask([here, away], 10, null);
    assert.deepEqual([page.next_cursor, page.partial], [null, true]);
  });
});

describe('paging by time of update', () => {
  test('gives each row at most once and each page in order', async () => {
    await fc.assert(
      fc.asyncProperty(storyArbitrary, async (story) => {
        const { pages } = await tell(story, 'updated');
        for (const page of pages) assertInOrder(page);
        assertOnce(pages.flat());
      }),
      { seed, numRuns },
    );
  });
});

describe('searches', () => {
  test('are fused by rank, page by page as at once', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.nat({ max: 12 }), { minLength: 1, maxLength: 4 }),
        fc.integer({ min: 1, max: 7 }),
        async (sizes, limit) => {
          const devices = sizes.map((size, i) => {
            const device = new Device(`device-${i}`);
            // Scores of different devices have nothing to do with each other.
            for (let at = 0; at < size; at++) device.put(`${i}-${at}`, (size - at) * 10 ** i);
            return device;
          });
          const rows: string[] = [];
          let cursor: string | null = null;
          do {
            const page: QueryAnswer = await ask(devices, limit, cursor, 'search_tasks');
            rows.push(...shownBy(page).map(({ id }) => id));
            cursor = page.next_cursor;
          } while (cursor !== null);
          const lists = devices.map(({ ids }) => ids);
          assert.deepEqual(
            rows,
            fuseRanks(lists, (id) => id).map(({ item }) => item),
          );
        },
      ),
      { seed, numRuns: numRuns / 3 },
    );
  });
});

describe('a cursor', () => {
  const places: Places = new Map<string, Places extends ReadonlyMap<string, infer P> ? P : never>([
    ['peer-a', { at: 'x', taken: 3 }],
    ['peer-b', { first: [1, 'z'] }],
    ['peer-c', 'finished'],
    ['peer-d', { first: [2], at: 'y' }],
  ]);

  test('keeps the place of every device', async () => {
    const cursor = await writeCursor('list_tasks', {}, places);
    assert.match(cursor, /^[A-Za-z0-9_-]+$/);
    assert.deepEqual(await readCursor('list_tasks', {}, cursor), places);
  });

  test('belongs to its query, in whatever order the fields of the params come', async () => {
    const params = { status: ['failed'], deep: { a: 1, b: [2, { c: 3, d: 4 }] } };
    const cursor = await writeCursor('list_tasks', params, places);
    const same = { deep: { b: [2, { d: 4, c: 3 }], a: 1 }, status: ['failed'] };
    assert.deepEqual(await readCursor('list_tasks', same, cursor), places);
    const others: readonly [QueryType, Json][] = [
      ['search_tasks', params],
      ['list_tasks', {}],
      ['list_tasks', { ...params, status: ['pending'] }],
      ['list_tasks', { ...params, deep: { a: 1, b: [{ c: 3, d: 4 }, 2] } }],
    ];
    for (const [type, other] of others)
      await assert.rejects(readCursor(type, other, cursor), { code: 'bad_cursor' });
  });

  test('of statistics there is none', async () => {
    const finished: Places = new Map([['peer-a', 'finished']]);
    const cursor = await writeCursor('get_task_stats', {}, finished);
    const asked = {
      targets: [],
      type: 'get_task_stats',
      params: {},
      cursor,
      clock: new SteppedClock(),
    } as const;
    await assert.rejects(runQuery(asked), { code: 'bad_cursor' });
  });

  test('that is damaged, of another version or too long is refused', async () => {
    const good = JSON.parse(
      Buffer.from(await writeCursor('custom', {}, places), 'base64url').toString(),
    ) as Record<string, unknown>;
    const bad: unknown[] = [
      { ...good, v: 2 },
      { ...good, extra: 1 },
      { ...good, places: [] },
      { ...good, places: { a: { at: 'x' } } },
      { ...good, places: { a: { at: 'x', taken: -1 } } },
      { ...good, places: { a: { at: 'x'.repeat(257), taken: 1 } } },
      { ...good, places: { a: { first: [] } } },
      { ...good, places: { a: 'other' } },
      null,
      [],
    ];
    const texts = [
      ...bad.map((value) => toBase64Url(utf8(JSON.stringify(value)))),
      '',
      '*',
      'A',
      toBase64Url(Uint8Array.of(0xff)),
      'A'.repeat(limits.maxCursorBytes + 1),
    ];
    for (const text of texts)
      await assert.rejects(readCursor('custom', {}, text), { code: 'bad_cursor' }, text);
    await assert.rejects(ask([], 1, 'nonsense'), { code: 'bad_cursor' });
  });

  test('of any text ends as places or bad_cursor', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(
          fc.string(),
          fc.json().map((text) => toBase64Url(utf8(text))),
        ),
        async (text) => {
          await assert.rejects(readCursor('custom', {}, text), { code: 'bad_cursor' });
        },
      ),
      { seed, numRuns },
    );
  });
});
