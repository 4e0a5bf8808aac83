/*
 * Which of several devices a capability request goes to, on installed cocoons: by capacity and load, by version, by
 * what the asker prefers, by session; and what each of them is told when it cannot. A story says how fast and how
 * reliable the three providers are.
 */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, beforeEach, describe, test } from 'node:test';
import { ask as askAt, eventsOf, offers, post, untilOffers } from './capability-client.ts';
import type { Answer, CapabilityRow, RequestBody } from './capability-client.ts';
import { CocoonProcess, begin, failure } from './cocoon-process.ts';
import type { Offered } from './provider-desk.ts';
import type { ProviderDesk } from './provider-desk.ts';
import { aborted } from './provider-desk.ts';
import { ProviderMesh } from './provider-mesh.ts';

/** How many requests each serves at once. */
const limits = { ape: 4, bee: 2, cat: 2 };
const names = Object.keys(limits) as (keyof typeof limits)[];

const others: Record<string, readonly Offered[]> = {
  ape: [
    { protocol: 'demo.twin', version: '1.4.0' },
    { protocol: 'demo.twin', version: '2.1.0' },
    { protocol: 'demo.tight', version: '1.0.0', limit: 1 },
  ],
  bee: [
    { protocol: 'demo.twin', version: '1.9.0' },
    { protocol: 'demo.tight', version: '1.0.0', limit: 1 },
  ],
  cat: [{ protocol: 'demo.talk', version: '1.0.0', streams: true }],
};

let mesh: ProviderMesh;
let desk: ProviderDesk;
let laptop: CocoonProcess;

before(async () => {
  mesh = await ProviderMesh.start(
    Object.fromEntries(
      names.map((name) => {
        const work = { protocol: 'demo.work', version: '1.0.0', limit: limits[name] };
        return [name, [work, ...(others[name] ?? [])]];
      }),
    ),
  );
  ({ desk, laptop } = mesh);
});

after(async () => {
  await mesh?.[Symbol.asyncDispose]();
});

beforeEach(() => mesh.oblige());

function provider(name: string): CocoonProcess {
  return mesh.provider(name);
}

function perDevice(served: readonly { readonly device: string | null }[]): Record<string, number> {
  return Object.fromEntries(
    names.map((name) => [name, served.filter(({ device }) => device === name).length]),
  );
}

/** Resolves when so many are served there and so many wait, as the device itself tells. */
async function busy(name: string, inFlight: number, queued = 0, protocol = 'demo.work'): Promise<void> {
  await untilOffers(provider(name), name, (capabilities) =>
    capabilities.some(
      (own) => own.protocol === protocol && own.in_flight === inFlight && own.queued === queued,
    ),
  );
}

function ask(protocol: string, body?: RequestBody, signal?: AbortSignal): Promise<Answer> {
  return askAt(laptop, protocol, body, signal);
}

describe('requests to several devices', () => {
  test('are spread by what each can take, those that wait too, and all are answered', async () => {
    await ask('demo.work');
    // On a slow machine that one was answered before all had said how they do.
    for (const name of names)
      await untilOffers(laptop, name, (all) => all.some(({ in_flight: inFlight }) => inFlight === 0));
    const held = desk.hold(...names);
    const some = (): Promise<Answer>[] => Array.from({ length: 8 }, () => ask('demo.work'));
    const first = some();
    await desk.until(() => held.length === 8);
    assert.deepEqual(perDevice(held), limits);
    // What it hears of a device while a request is on its way there lacks that one; fresh news is kept for ten seconds.
    for (const name of names)
      await untilOffers(laptop, name, (all) =>
        all.some(({ in_flight: inFlight }) => inFlight === limits[name]),
      );
    const second = some();
    for (const name of names) await busy(name, limits[name], limits[name]);
    for (const name of names) desk.when(name);
    for (const call of held) call.end();
    const answers = await Promise.all([...first, ...second]);
    const kinds = new Set(answers.map(({ status, attempts }) => `${status}, tries: ${attempts}`));
    assert.deepEqual(kinds, new Set(['200, tries: 1']));
    assert.deepEqual(perDevice(answers), { ape: 8, bee: 4, cat: 4 });
    assert.ok(answers.some(({ headers }) => Number(headers.get('cocoon-queue-ms')) > 0));
    for (const name of names) await busy(name, 0);
  });

  test('go past the busiest though it has places, whoever keeps it busy', async () => {
    for (const name of names) {
      const held = desk.hold(name);
      const kept = Array.from({ length: limits[name] / 2 }, () => ask('demo.work', { device: name }));
      await desk.until(() => held.length === kept.length);
      desk.when(name);
      assert.notEqual((await ask('demo.work')).device, name);
      for (const call of held) call.end();
      await Promise.all(kept);
    }
    const { device: usual } = await ask('demo.work');
    assert.ok(usual);
    const held = desk.hold(usual);
    const other = askAt(provider(usual), 'demo.work');
    await desk.until(() => held.length === 1);
    // What it has heard of the others is no longer true then, so a fresh one asks.
    await laptop.restart();
    for (const name of names) await untilOffers(laptop, name, offers('demo.work'));
    desk.when(usual);
    assert.notEqual((await ask('demo.work')).device, usual);
    for (const call of held) call.end();
    await other;
  });

  test('that all are full are told when to come back, in each way of asking', async () => {
    const held = desk.hold('ape', 'bee');
    // Each serves one and keeps eight waiting.
    const taken = Array.from({ length: 18 }, () => ask('demo.tight'));
    await busy('ape', 1, 8, 'demo.tight');
    await busy('bee', 1, 8, 'demo.tight');
    const { status, code, headers } = await ask('demo.tight');
    assert.deepEqual([status, code], [503, 'overloaded']);
    assert.ok(Number(headers.get('retry-after')) >= 1);
    assert.deepEqual(await failure(laptop.home, ['request', 'demo.tight']), { code: 'overloaded', exit: 5 });
    // Nobody is told twice to wait who was told to come back.
    assert.equal(held.length, 2);
    for (const name of names) desk.when(name);
    for (const call of held) call.end();
    assert.deepEqual(new Set((await Promise.all(taken)).map((answer) => answer.status)), new Set([200]));
  });

  test('of one session go to one device while it can take them', async () => {
    const session = 'a long talk';
    const { device: first } = await ask('demo.work', { session });
    assert.ok(first);
    const held = desk.hold(first);
    // It is the busiest now.
    const kept = ask('demo.work', { device: first });
    await desk.until(() => held.length === 1);
    assert.notEqual((await ask('demo.work')).device, first);
    const again = ask('demo.work', { session });
    await desk.until(() => held.length === 2);
    assert.deepEqual(
      held.map((call) => call.session),
      [null, session],
    );
    for (const call of held) call.end();
    await kept;
    assert.equal((await again).device, first);
    desk.when(first);
    const { device } = await laptop.json<{ device: string }>('request', 'demo.work', '--session', session);
    assert.equal(device, first);
  });
});

describe('the version that is wanted', () => {
  const served = async (version: string): Promise<unknown> => (await ask('demo.twin', { version })).result;

  test('is kept to, by range, also between two versions of one device', async () => {
    for (let i = 0; i < 4; i++) {
      assert.match(JSON.stringify(await served('^1.0.0')), /"version":"1\./);
      assert.match(JSON.stringify(await served('2.x')), /"device":"ape","version":"2\.1\.0"/);
      assert.match(JSON.stringify(await served('~1.4.0')), /"device":"ape","version":"1\.4\.0"/);
      assert.match(JSON.stringify(await served('>=1.5.0 <2')), /"device":"bee","version":"1\.9\.0"/);
    }
    assert.equal((await ask('demo.twin', { version: '2.x' })).headers.get('cocoon-version'), '2.1.0');
    assert.ok(desk.calls.filter(({ protocol }) => protocol === 'demo.twin').length >= 16);
  });

  test('that nobody has is told with those that there are', async () => {
    const { code, stderr } = await laptop.command(['request', 'demo.twin@^3.0.0', '--json']);
    assert.equal(code, 3);
    assert.match(stderr, /"capability_not_found".*demo\.twin@\^3\.0\.0.*1\.4\.0.*2\.1\.0/s);
    const nobody = await laptop.command(['request', 'demo.none', '--json']);
    assert.equal(nobody.code, 3);
    assert.match(nobody.stderr, /"capability_not_found"/);
    assert.equal((await ask('demo.none')).status, 404);
  });

  test('is a range', async () => {
    const { status, code } = await ask('demo.twin', { version: 'bad' });
    assert.deepEqual([status, code], [400, 'bad_payload']);
    assert.deepEqual(await failure(laptop.home, ['request', 'demo.twin@bad']), { code, exit: 2 });
  });
});

interface Said {
  readonly device: string;
  readonly attempts: number;
  readonly instead_of: { readonly device: string; readonly code: string; readonly reason?: string } | null;
}

describe('a device that is preferred', () => {
  const prefer = (device: string, version = '*'): Promise<Said> =>
    laptop.json<Said>('request', `demo.twin@${version}`, '--prefer-device', device);

  test('serves, though this device could, or another one is less busy', async () => {
    const payload = { input: 'x' };
    assert.equal((await ask('embeddings', { payload })).device, 'laptop');
    assert.equal((await ask('embeddings', { payload, prefer_device: 'ape' })).device, 'ape');

    const held = desk.hold('cat');
    const kept = ask('demo.work', { device: 'cat' });
    await desk.until(() => held.length === 1);
    desk.when('cat');
    const answer = await ask('demo.work', { prefer_device: 'cat' });
    assert.deepEqual([answer.device, answer.headers.get('cocoon-instead-of')], ['cat', null]);
    for (const call of held) call.end();
    await kept;
  });

  test('that has another version is not asked, and it is said', async () => {
    const { device, attempts, instead_of: insteadOf } = await prefer('bee', '2.x');
    assert.deepEqual([device, attempts], ['ape', 1]);
    assert.deepEqual([insteadOf?.device, insteadOf?.code], ['bee', 'capability_not_found']);
    const text = await laptop.command(['request', 'demo.twin@2.x', '--prefer-device', 'bee']);
    assert.equal(text.code, 0);
    assert.match(text.stderr, /bee did not serve it: bee does not offer demo\.twin@2\.x/);
  });

  test('that is full passes the request on, and it is said', async () => {
    const held = desk.hold('ape');
    const taken = Array.from({ length: 9 }, () => ask('demo.tight', { device: 'ape' }));
    await busy('ape', 1, 8, 'demo.tight');
    const { device, attempts, headers } = await ask('demo.tight', { prefer_device: 'ape' });
    assert.deepEqual([device, attempts], ['bee', 2]);
    assert.equal(headers.get('cocoon-instead-of'), 'ape');
    assert.equal(headers.get('cocoon-instead-reason'), 'overloaded');
    desk.when('ape');
    for (const call of held) call.end();
    await Promise.all(taken);
  });

  test('that nobody has heard of is an error', async () => {
    assert.deepEqual(await failure(laptop.home, ['request', 'demo.twin', '--prefer-device', 'dog']), {
      code: 'device_not_found',
      exit: 3,
    });
  });

  test('or not, is skipped without a wait when it is off, and it is said', async () => {
    const took = async (work: () => Promise<Answer>): Promise<number> => {
      const times: number[] = [];
      for (let i = 0; i < 5; i++) times.push(Number((await work()).headers.get('cocoon-total-ms')));
      return times.toSorted((a, b) => a - b)[2] ?? 0;
    };
    const usualMs = await took(() => ask('demo.work', { device: 'ape' }));
    await provider('bee').stop();
    await untilOffers(laptop, 'bee', (own) => own.length === 0);
    const withoutMs = await took(async () => {
      const answer = await ask('demo.work', { prefer_device: 'bee' });
      assert.notEqual(answer.device, 'bee');
      assert.equal(answer.attempts, 1);
      assert.equal(answer.headers.get('cocoon-instead-of'), 'bee');
      assert.equal(answer.headers.get('cocoon-instead-reason'), 'device_offline');
      return answer;
    });
    assert.ok(withoutMs <= 10 * Math.max(5, usualMs), `${withoutMs} ms, usually ${usualMs} ms`);
    const { instead_of: insteadOf } = await prefer('bee');
    assert.deepEqual([insteadOf?.device, insteadOf?.code], ['bee', 'device_offline']);
    await provider('bee').restart({ input: '' });
    await untilOffers(laptop, 'bee', offers('demo.twin'));
    assert.deepEqual(await prefer('bee', '^1.5.0').then((said) => [said.device, said.instead_of]), [
      'bee',
      null,
    ]);
  });
});

describe('whoever goes away', () => {
  test('at the gateway ends its request at the provider, plain and streaming', async () => {
    for (const protocol of ['demo.work', 'demo.talk']) {
      const held = desk.hold('cat');
      const asker = new AbortController();
      const asked = ask(protocol, { device: 'cat' }, asker.signal);
      await desk.until(() => held.length === 1);
      await busy('cat', 1, 0, protocol);
      asker.abort();
      await assert.rejects(asked);
      await aborted(held[0]?.gone ?? assert.fail());
      await busy('cat', 0, 0, protocol);
    }
  });

  test('in the middle of a stream ends it at the provider', async () => {
    const held = desk.hold('cat');
    const asker = new AbortController();
    const asked = post(laptop, 'demo.talk', {}, asker.signal);
    await desk.until(() => held.length === 1);
    held[0]?.chunk('one');
    await assert.rejects(async () => {
      for await (const { data } of eventsOf(await asked)) {
        assert.equal(data['payload'], 'one');
        asker.abort();
      }
    });
    await aborted(held[0]?.gone ?? assert.fail());
    await busy('cat', 0, 0, 'demo.talk');
  });

  test('as a command that is interrupted or killed ends its request at the provider', async () => {
    for (const signal of ['SIGINT', 'SIGKILL'] as const) {
      const held = desk.hold('cat');
      const asking = begin(laptop.home, ['request', 'demo.talk', '--stream']);
      const closed = once(asking, 'close');
      await desk.until(() => held.length === 1);
      held[0]?.chunk('one');
      await once(asking.stdout, 'data');
      asking.kill(signal);
      await aborted(held[0]?.gone ?? assert.fail());
      await closed;
      await busy('cat', 0, 0, 'demo.talk');
    }
    const rows = await provider('cat').json<{ this: boolean; capabilities: CapabilityRow[] }[]>('devices');
    const own = rows.find((row) => row.this)?.capabilities.filter((row) => row.protocol === 'demo.talk');
    assert.deepEqual(
      own?.map((row) => [row.in_flight, row.queued, row.limit]),
      [[0, 0, 8]],
    );
  });

  test('because its time is over is told so, and the provider stops', async () => {
    const held = desk.hold('cat');
    assert.deepEqual(
      await failure(laptop.home, ['request', 'demo.work', '--device', 'cat', '--timeout', '1s']),
      { code: 'timeout', exit: 5 },
    );
    await aborted(held[0]?.gone ?? assert.fail());
    await busy('cat', 0);
    const started = Date.now();
    const { status, code } = await ask('demo.work', { device: 'cat', timeout_ms: 300 });
    assert.deepEqual([status, code], [504, 'timeout']);
    assert.ok(Date.now() - started < 4_000, `${Date.now() - started} ms`);
  });
});
