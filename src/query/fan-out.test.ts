import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { turn } from '@cocoon-mesh/mesh/session-pair.contract.ts';
import type { Clock, DeviceAnswer, QueryPart } from '@cocoon-mesh/protocol';
import { MeshError, ResetCode, limits } from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import type { DevicePart, DeviceRows } from './fan-out.ts';
import { fanOut } from './fan-out.ts';
import type { QueryTarget } from './target.ts';
import { hanging, last, part, saying, scripted } from './targets.contract.ts';

interface Asked {
  readonly answers: Promise<readonly DeviceRows[]>;
  readonly parts: DevicePart[];
  readonly isDone: () => boolean;
}

function ask(targets: readonly QueryTarget[], clock: Clock, signal?: AbortSignal): Asked {
  const parts: DevicePart[] = [];
  const answers = fanOut({
    targets: targets.map((target) => ({ ...target, after: null })),
    request: { type: 'list_tasks', params: {}, limit: 10, timeout_ms: 1000 },
    clock,
    ...(signal ? { signal } : {}),
    onPart: (each) => parts.push(each),
  });
  let done = false;
  answers.then(
    () => (done = true),
    () => (done = true),
  );
  return { answers, parts, isDone: () => done };
}

async function only(target: QueryTarget): Promise<DeviceRows> {
  const clock = new SteppedClock();
  const { answers } = ask([target], clock);
  await turn();
  clock.step(1000);
  const [answer] = await answers;
  assert.ok(answer);
  assert.equal(clock.pendingTimers, 0);
  return answer;
}

async function statusOf(target: QueryTarget): Promise<DeviceAnswer> {
  return (await only(target)).answer;
}

function failing(error: unknown): QueryTarget {
  return {
    peerId: 'peer-failing',
    name: 'failing',
    ask: () => {
      throw error;
    },
  };
}

const keysOf = ({ rows }: Pick<DeviceRows, 'rows'>): unknown[] => rows.map(({ key }) => key[0]);

describe('a question to many devices', () => {
  test('goes to all of them at once, and parts are handed on as they come', async () => {
    const clock = new SteppedClock();
    const second = Promise.withResolvers<void>();
    const slow = scripted('slow', async function* () {
      yield part(0, [9, 8]);
      await second.promise;
      yield part(1, [7], last);
    });
    const quick = saying('quick', part(0, [5], { more: true }));
    const { answers, parts, isDone } = ask([slow, quick], clock);
    await turn();
    assert.deepEqual(
      new Set(parts.map(({ target, seq, isFinal }) => `${target.name} ${seq} ${isFinal}`)),
      new Set(['quick 0 true', 'slow 0 false']),
    );
    assert.equal(isDone(), false);
    clock.step(300);
    second.resolve();
    const [first, other] = await answers;
    assert.deepEqual(first?.answer, { id: 'peer-slow', name: 'slow', status: 'ok', count: 3, ms: 300 });
    assert.deepEqual(other?.answer, { id: 'peer-quick', name: 'quick', status: 'ok', count: 1, ms: 0 });
    assert.deepEqual([first.more, other.more], [false, true]);
    assert.equal(clock.pendingTimers, 0);
  });

  test('is answered when the slowest has answered, not at the deadline', async () => {
    const clock = new SteppedClock();
    const { answers } = ask([saying('a', part(0, [], last)), saying('b', part(0, [1], last))], clock);
    assert.deepEqual(
      (await answers).map(({ answer }) => answer.status),
      ['ok', 'ok'],
    );
  });

  test('is answered at the deadline, with what came of those that are late', async () => {
    const clock = new SteppedClock();
    const late = hanging('late', part(0, [3, 2]));
    const silent = hanging('silent');
    const { answers, isDone } = ask([late, silent, saying('quick', part(0, [5], last))], clock);
    await turn();
    clock.step(999);
    await turn();
    assert.equal(isDone(), false);
    clock.step(1);
    const [first, second, third] = await answers;
    assert.equal(first?.answer.status, 'timeout');
    assert.equal(first.answer.error?.code, 'timeout');
    assert.deepEqual([first.answer.count, first.answer.ms], [2, 1000]);
    assert.deepEqual(keysOf(first), [3, 2]);
    assert.deepEqual([second?.answer.status, second?.answer.count], ['timeout', 0]);
    assert.equal(third?.answer.status, 'ok');
    await turn();
    assert.deepEqual([late.ended, silent.ended], [1, 1]);
  });

  test('does not wait for a device that ignores its cancellation', async () => {
    const deaf: QueryTarget = {
      peerId: 'peer-deaf',
      name: 'deaf',
      ask: () => ({ [Symbol.asyncIterator]: () => ({ next: () => new Promise(() => undefined) }) }),
    };
    assert.equal((await statusOf(deaf)).status, 'timeout');
  });

  test('does not wait at all for a device that is known to be offline', async () => {
    const clock = new SteppedClock();
    const { answers } = ask([{ peerId: 'peer-off', name: 'off', ask: null }], clock);
    const [answer] = await answers;
    assert.deepEqual([answer?.answer.status, answer?.answer.ms], ['offline', 0]);
    assert.equal(answer?.answer.error?.code, 'device_offline');
  });

  test('that is cancelled is cancelled at every device, and only then fails', async () => {
    const clock = new SteppedClock();
    const cancel = new AbortController();
    const targets = [hanging('a'), hanging('b', part(0, [1])), hanging('c')];
    const { answers } = ask(targets, clock, cancel.signal);
    await turn();
    cancel.abort();
    await assert.rejects(answers, { code: 'cancelled' });
    await turn();
    assert.deepEqual(
      targets.map(({ ended }) => ended),
      [1, 1, 1],
    );
    assert.equal(clock.pendingTimers, 0);
    const never = hanging('never');
    await assert.rejects(ask([never], clock, cancel.signal).answers, { code: 'cancelled' });
    assert.equal(never.requests.length, 0);
  });

  test('tells each device what it may answer, all of them together within bounds', async () => {
    for (const [count, bytes] of [
      [1, limits.maxQueryAnswerBytes],
      [64, limits.maxQueryBytes / 64],
    ] as const) {
      const targets = Array.from({ length: count }, (_, i) => saying(`d${i}`, part(0, [], last)));
      await ask(targets, new SteppedClock()).answers;
      for (const { requests } of targets) assert.equal(requests[0]?.max_bytes, bytes);
    }
  });
});

describe('the status of a device', () => {
  const ways: readonly (readonly [string, unknown, DeviceAnswer['status'], string])[] = [
    ['that went offline', new MeshError('device_offline'), 'offline', 'device_offline'],
    ['whose connection was lost', new MeshError('carrier_lost'), 'offline', 'carrier_lost'],
    ['that closed its session', new MeshError('session_closed'), 'offline', 'session_closed'],
    ['that cannot be connected to in time', new MeshError('connect_timeout'), 'timeout', 'connect_timeout'],
    ['that does not prove itself in time', new MeshError('proof_timeout'), 'timeout', 'proof_timeout'],
    [
      'that nobody can reach without signaling',
      new MeshError('signaling_unreachable'),
      'offline',
      'signaling_unreachable',
    ],
    ['that gave up', reset(ResetCode.timeout), 'timeout', 'timeout'],
    ['that refused', reset(ResetCode.denied), 'denied', 'denied'],
    ['that was revoked', reset(ResetCode.revoked), 'denied', 'revoked'],
    ['that knows no queries', reset(ResetCode.unsupported), 'error', 'unsupported'],
    ['that is busy', reset(ResetCode.tooManyStreams), 'error', 'overloaded'],
    ['that shuts down', reset(ResetCode.shuttingDown), 'offline', 'shutting_down'],
    ['that broke inside', reset(ResetCode.internal), 'error', 'stream_reset'],
    ['that did not prove itself', new MeshError('proof_failed'), 'error', 'proof_failed'],
    ['that fails in an unknown way', new TypeError('x'), 'error', 'internal'],
  ];
  for (const [which, error, status, code] of ways)
    test(`${which} is ${status}`, async () => {
      const answer = await statusOf(failing(error));
      assert.deepEqual([answer.status, answer.error?.code], [status, code]);
    });

  test('is what it says of itself, except that it is offline', async () => {
    const says = (code: string): QueryPart => ({ kind: 'error', code, message: 'No\u001b[2J\nnever' });
    for (const [code, status] of [
      ['denied', 'denied'],
      ['timeout', 'timeout'],
      ['device_offline', 'error'],
      ['bad_filter', 'error'],
    ] as const) {
      const { answer, rows } = await only(saying('a', part(0, [4]), says(code)));
      assert.equal(answer.status, status);
      assert.deepEqual(answer.error, { code, message: 'No [2J never' });
      assert.equal(rows.length, 1);
    }
  });
});

describe('an answer that breaks the protocol is an error of its device, and keeps what came before it', () => {
  const cases: Record<string, readonly QueryPart[]> = {
    'a missing part': [part(0, [9, 8]), part(2, [7], last)],
    'rows out of order within a part': [part(0, [9, 8]), part(1, [7, 8], last)],
    'rows out of order between parts': [part(0, [9, 8]), part(1, [8.5], last)],
    'more rows than were asked for': [part(0, [9, 8]), part(1, [7, 6, 5, 4, 3, 2, 1, 0, -1], last)],
    'no last part': [part(0, [9, 8])],
  };
  for (const [name, parts] of Object.entries(cases))
    test(name, async () => {
      const clock = new SteppedClock();
      const bad = saying('bad', ...parts);
      const { answers, parts: shown } = ask([bad, saying('good', part(0, [1], last))], clock);
      const [first, second] = await answers;
      assert.deepEqual([first?.answer.status, first?.answer.error?.code], ['error', 'bad_message']);
      assert.deepEqual(first && keysOf(first), [9, 8]);
      assert.equal(first?.more, false);
      assert.equal(second?.answer.status, 'ok');
      assert.equal(shown.filter(({ target }) => target.name === 'bad').length, 1);
      await turn();
      assert.equal(bad.ended, 1);
    });

  test('nothing, with a promise of more', async () => {
    assert.equal((await statusOf(saying('a', part(0, [], { more: true })))).status, 'error');
  });
});

test('a part that comes again is ignored', async () => {
  const clock = new SteppedClock();
  const repeats = saying('a', part(0, [9]), part(0, [9]), part(1, [8]), part(0, [7, 6]), part(2, [5], last));
  const { answers, parts } = ask([repeats], clock);
  const [answer] = await answers;
  assert.equal(answer?.answer.status, 'ok');
  assert.deepEqual(keysOf(answer), [9, 8, 5]);
  assert.deepEqual(
    parts.map(({ seq }) => seq),
    [0, 1, 2],
  );
});

function reset(code: ResetCode): MeshError {
  return new MeshError('stream_reset', undefined, { cause: code });
}
