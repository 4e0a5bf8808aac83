import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { turn } from '@cocoon-mesh/mesh/session-pair.contract.ts';
import { MeshError } from '@cocoon-mesh/protocol';
import { collect } from './answer-under-way.ts';
import { MeshOfProviders } from './mesh-of-providers.contract.ts';
import type { Content, Provider } from './provider.ts';
import type { CapabilityRequest } from './request.ts';
import { content, scriptedProvider, untilAborted } from './scripted-provider.contract.ts';

const echo = { protocol: 'demo.echo', version: '^1.0.0', payload: 'hello', parts: [] };

async function serve(mesh: MeshOfProviders, change: Partial<CapabilityRequest> = {}) {
  const { source, payload, chunks } = await collect(mesh.router.request({ ...echo, ...change }));
  return { ...source, payload, chunks };
}

async function deviceOf(mesh: MeshOfProviders, change: Partial<CapabilityRequest> = {}): Promise<string> {
  return (await serve(mesh, change)).device;
}

function failing(error: Error): Provider['handle'] {
  return async () => {
    throw error;
  };
}

/** Streams one chunk, then waits. */
const hanging: Provider['handle'] = async function* ({ signal }) {
  yield content('first');
  await untilAborted(signal);
};

describe('a request', () => {
  test('is answered by another device as if it were this one, and says by which', async () => {
    const mesh = new MeshOfProviders();
    mesh.add(
      'gpu',
      scriptedProvider({ version: '1.2.0', handle: async ({ parts }) => content(['x'], ...parts) }),
    );
    mesh.add('plain');
    const answer = mesh.router.request({ ...echo, parts: [Uint8Array.of(1)] });
    assert.deepEqual(await answer.device, { device: 'gpu', deviceId: 'peer-gpu', attempts: 1 });
    const { payload, parts, source, chunks } = await collect(answer);
    assert.deepEqual([payload, [...(parts[0] ?? [])], chunks], [['x'], [1], []]);
    assert.deepEqual(source, {
      device: 'gpu',
      deviceId: 'peer-gpu',
      version: '1.2.0',
      attempts: 1,
      queueMs: 0,
      totalMs: 0,
      insteadOf: null,
    });
    assert.equal(mesh.clock.pendingTimers, 0);
  });

  test('is served by this device when it can and has a free place, without asking anybody', async () => {
    const mesh = new MeshOfProviders();
    const hold = Promise.withResolvers<Content>();
    mesh.local.add(scriptedProvider({ limit: 1, handle: () => hold.promise }));
    const gpu = mesh.add('gpu', scriptedProvider());
    const first = serve(mesh);
    await turn();
    assert.deepEqual([mesh.asked, gpu.described], [[], 0]);
    assert.equal(await deviceOf(mesh), 'gpu');
    hold.resolve(content('mine'));
    assert.equal((await first).device, 'me');
  });

  test('of a range never reaches a version outside it', async () => {
    const mesh = new MeshOfProviders();
    const two = scriptedProvider({ version: '2.0.0' });
    mesh.add('new', two);
    await assert.rejects(serve(mesh), { code: 'capability_not_found', message: /there is 2\.0\.0/ });
    mesh.add('old', scriptedProvider({ version: '1.0.0' }), two);
    assert.equal((await serve(mesh)).version, '1.0.0');
    assert.equal(two.calls.length, 0);
    await assert.rejects(serve(mesh, { version: 'latest' }), { code: 'bad_message' });
  });

  test('with features goes to a device that has them, also to one that got them just now', async () => {
    const mesh = new MeshOfProviders();
    const model = scriptedProvider({ state: { features: ['model:a'] } });
    mesh.add('a', model);
    mesh.add('b', scriptedProvider({ state: { features: ['model:b'] } }));
    assert.equal(await deviceOf(mesh, { features: ['model:b'] }), 'b');
    await assert.rejects(serve(mesh, { features: ['model:c'] }), { code: 'capability_not_found' });
    model.change({ features: ['model:a', 'model:c'] });
    mesh.clock.step(10_000);
    assert.equal(await deviceOf(mesh, { features: ['model:c'] }), 'a');
  });

  test('spreads over devices by what they can take at once', async () => {
    const mesh = new MeshOfProviders();
    const hold = Promise.withResolvers<Content>();
    const providers = [1, 2, 5].map((limit) =>
      scriptedProvider({ limit, maxQueued: 10, handle: () => hold.promise }),
    );
    providers.forEach((provider, i) => mesh.add(`box-${i}`, provider));
    const answers = [];
    for (let i = 0; i < 16; i++) {
      answers.push(serve(mesh));
      for (let turns = 0; turns < 4; turns++) await turn();
    }
    hold.resolve(content(1));
    await Promise.all(answers);
    assert.deepEqual(
      providers.map(({ calls }) => calls.length),
      [2, 4, 10],
    );
  });

  test('does not go to the busiest, although this device never asked it before', async () => {
    const mesh = new MeshOfProviders();
    const hold = Promise.withResolvers<Content>();
    const busy = mesh.add('busy', scriptedProvider({ limit: 2, handle: () => hold.promise }));
    mesh.add('idle', scriptedProvider({ limit: 1 }));
    const from = { id: 'other', name: 'other' };
    const call = { payload: 1, parts: [], session: null, features: [], from, timeoutMs: 1_000 };
    const never = new AbortController().signal;
    const wanted = { protocol: 'demo.echo', version: '*', features: [] };
    for (let i = 0; i < 2; i++) void busy.local.answer(wanted, call, never).next();
    assert.equal(await deviceOf(mesh), 'idle');
    assert.deepEqual(mesh.asked, ['idle']);
    hold.resolve(content(1));
  });

  test('of a session goes where the last one went, until that device cannot take it', async () => {
    const mesh = new MeshOfProviders();
    mesh.add('a', scriptedProvider({ limit: 1, maxQueued: 0 }));
    const b = mesh.add('b', scriptedProvider({ limit: 1, maxQueued: 0, state: { warm: false } }));
    assert.equal(await deviceOf(mesh, { preferDevice: 'b', session: 's' }), 'b');
    assert.equal(await deviceOf(mesh, { session: 's' }), 'b');
    assert.equal(await deviceOf(mesh, { session: 't' }), 'a');
    b.listed = { online: false };
    assert.equal(await deviceOf(mesh, { session: 's' }), 'a');
    b.listed = {};
    assert.equal(await deviceOf(mesh, { session: 's' }), 'a');
  });

  test('does not wait for what a silent device would say of itself', async () => {
    const mesh = new MeshOfProviders();
    mesh.add('good', scriptedProvider());
    mesh.add('silent', scriptedProvider()).listed = { load: 0.5 };
    mesh.silent = 'silent';
    const answer = serve(mesh);
    await turn();
    mesh.clock.step(1_000);
    assert.equal((await answer).device, 'good');
  });
});

describe('a stand-in', () => {
  const words = () => scriptedProvider({ state: { isStandIn: true } });

  test('of this device leaves a request to whoever has the real thing', async () => {
    const mesh = new MeshOfProviders();
    mesh.local.add(words());
    const gpu = mesh.add('gpu', scriptedProvider());
    mesh.add('other', words());
    assert.deepEqual([await deviceOf(mesh), gpu.described], ['gpu', 1]);
  });

  test('serves where nobody has it who is there', async () => {
    const mesh = new MeshOfProviders();
    mesh.local.add(words());
    mesh.add('other', words());
    assert.equal(await deviceOf(mesh), 'me');
    const gpu = mesh.add('gpu', scriptedProvider());
    assert.equal(await deviceOf(mesh), 'gpu');
    gpu.fails = () => {
      throw new MeshError('device_offline');
    };
    const { device, attempts } = await serve(mesh);
    assert.deepEqual([device, attempts], ['me', 2]);
    gpu.listed = { online: false };
    assert.equal(await deviceOf(mesh), 'me');
  });

  test('of another device does not serve in place of what was set up here and does not work, unless it is named', async () => {
    const mesh = new MeshOfProviders();
    const broken = {
      problem: 'config.json is missing',
      problemCode: 'model_unavailable',
      features: [],
    } as const;
    mesh.local.add(scriptedProvider({ state: broken }));
    mesh.add('other', scriptedProvider({ state: { isStandIn: true, features: ['model:words'] } }));
    await assert.rejects(serve(mesh), { code: 'model_unavailable', message: 'config.json is missing' });
    assert.equal(await deviceOf(mesh, { features: ['model:words'] }), 'other');
    assert.equal(await deviceOf(mesh, { preferDevice: 'other' }), 'other');
    assert.equal(await deviceOf(mesh, { onlyDevice: 'other' }), 'other');
    mesh.add('gpu', scriptedProvider());
    assert.equal(await deviceOf(mesh), 'gpu');
  });

  test('does not serve in place of a device that is there but full, or broken, unless it is preferred', async () => {
    const mesh = new MeshOfProviders();
    mesh.local.add(words());
    const gpu = scriptedProvider({ limit: 1, maxQueued: 0, handle: ({ signal }) => untilAborted(signal) });
    mesh.add('gpu', gpu);
    const cancel = new AbortController();
    const blocking = serve(mesh, { signal: cancel.signal });
    await turn();
    await assert.rejects(serve(mesh), { code: 'overloaded' });
    assert.equal(await deviceOf(mesh, { preferDevice: 'me' }), 'me');
    cancel.abort();
    await assert.rejects(blocking, { code: 'cancelled' });
    const broken = new MeshOfProviders();
    broken.local.add(words());
    broken.add('gpu', scriptedProvider({ handle: failing(new Error('broken')) }));
    await assert.rejects(serve(broken), { code: 'provider_failed' });
  });

  test('stays with the session that it served', async () => {
    const mesh = new MeshOfProviders();
    mesh.local.add(words());
    assert.equal(await deviceOf(mesh, { session: 's' }), 'me');
    mesh.add('gpu', scriptedProvider());
    assert.deepEqual([await deviceOf(mesh, { session: 's' }), await deviceOf(mesh)], ['me', 'gpu']);
  });

  test('waits two seconds, not longer, for others to say whether they have more', async () => {
    const mesh = new MeshOfProviders();
    mesh.local.add(words());
    mesh.add('silent', scriptedProvider());
    mesh.silent = 'silent';
    const answer = serve(mesh);
    await turn();
    mesh.clock.step(2_000);
    assert.equal((await answer).device, 'me');
  });

  test('that is busy leaves a request to that of another device', async () => {
    const mesh = new MeshOfProviders();
    const full = failing(new MeshError('overloaded', 'Busy', { retryAfterMs: 1_000 }));
    mesh.local.add(scriptedProvider({ state: { isStandIn: true }, handle: full }));
    mesh.add('other', words());
    assert.equal(await deviceOf(mesh), 'other');
  });

  test('asks more devices than usual whether they have the real thing', async () => {
    const mesh = new MeshOfProviders();
    mesh.local.add(words());
    for (let i = 0; i < 12; i++) mesh.add(`a-${i}`, words());
    // Of those that are not known, names decide.
    mesh.add('real', scriptedProvider());
    assert.equal(await deviceOf(mesh), 'real');
  });
});

describe('what is said when several devices did not serve', () => {
  const gone = new MeshError('capability_not_found');
  const busy = new MeshError('overloaded', 'Busy', { retryAfterMs: 2_000 });
  const broken = new Error('broken');

  for (const [name, errors, code] of [
    ['is that one failed, not that another has it no more', [broken, gone], 'provider_failed'],
    ['is that one failed, not that another is busy', [broken, busy], 'provider_failed'],
    ['is that one is busy, not that another has it no more', [gone, busy], 'overloaded'],
  ] as const)
    test(name, async () => {
      for (const order of [errors, errors.toReversed()]) {
        const mesh = new MeshOfProviders();
        for (const [i, error] of order.entries())
          mesh.add(`box-${i}`, scriptedProvider({ handle: failing(error) }));
        await assert.rejects(serve(mesh), { code });
      }
    });
});

describe('a device that was preferred', () => {
  test('serves also when another one, or this one, is better', async () => {
    const mesh = new MeshOfProviders();
    mesh.local.add(scriptedProvider());
    mesh.add('gpu', scriptedProvider({ state: { warm: false } }));
    const { device, insteadOf } = await serve(mesh, { preferDevice: 'gpu' });
    assert.deepEqual([device, insteadOf], ['gpu', null]);
  });

  test('is replaced when it is off, full, or does not have it, and the answer says so', async () => {
    const mesh = new MeshOfProviders();
    const full = scriptedProvider({ limit: 1, maxQueued: 0, handle: ({ signal }) => untilAborted(signal) });
    mesh.add('full', full);
    mesh.add('off', scriptedProvider()).listed = { online: false };
    mesh.add('plain', scriptedProvider({ protocol: 'demo.other' }));
    mesh.add('good', scriptedProvider());
    const cancel = new AbortController();
    const blocking = serve(mesh, { onlyDevice: 'full', signal: cancel.signal });
    await turn();
    const replaced = async (preferDevice: string) => {
      const { device, attempts, insteadOf } = await serve(mesh, { preferDevice });
      return [device, attempts, insteadOf?.device, insteadOf?.code, insteadOf?.reason];
    };
    assert.deepEqual(await replaced('off'), ['good', 1, 'off', 'device_offline', 'off is offline']);
    const [device, attempts, name, code] = await replaced('full');
    assert.deepEqual([device, attempts, name, code], ['good', 2, 'full', 'overloaded']);
    assert.deepEqual((await replaced('plain')).slice(0, 4), ['good', 1, 'plain', 'capability_not_found']);
    await assert.rejects(serve(mesh, { preferDevice: 'typo' }), { code: 'device_not_found' });
    cancel.abort();
    await assert.rejects(blocking, { code: 'cancelled' });
  });

  test('and no other is asked when it is named as the only one', async () => {
    const mesh = new MeshOfProviders();
    mesh.add('good', scriptedProvider());
    const off = mesh.add('off', scriptedProvider({ handle: failing(new Error('broken')) }));
    await assert.rejects(serve(mesh, { onlyDevice: 'off' }), { code: 'provider_failed' });
    off.listed = { online: false };
    await assert.rejects(serve(mesh, { onlyDevice: 'off' }), { code: 'device_offline' });
    assert.deepEqual(mesh.asked, ['off']);
  });

  test('may belong to another owner, whose devices are asked in no other case', async () => {
    const mesh = new MeshOfProviders();
    mesh.add('box', scriptedProvider()).listed = { foreign: true, name: 'box@abcdefgh' };
    await assert.rejects(serve(mesh), { code: 'capability_not_found' });
    assert.equal(await deviceOf(mesh, { preferDevice: 'box@abcdefgh' }), 'box@abcdefgh');
  });
});

describe('when a device fails', () => {
  test('before its first byte, others are asked, two at most', async () => {
    const mesh = new MeshOfProviders();
    const broken = () => scriptedProvider({ handle: failing(new Error('broken')) });
    const device = mesh.add('a', scriptedProvider());
    device.fails = () => {
      throw new MeshError('connect_timeout');
    };
    mesh.add('b', broken());
    mesh.add('c', scriptedProvider());
    const { device: served, attempts } = await serve(mesh, { preferDevice: 'a' });
    assert.deepEqual([served, attempts], ['c', 3]);

    const other = new MeshOfProviders();
    for (const name of ['a', 'b', 'c', 'd']) other.add(name, broken());
    await assert.rejects(serve(other), { code: 'provider_failed' });
    assert.deepEqual(other.asked, ['a', 'b', 'c']);
  });

  test('with its session before the first byte, another one answers and nobody notices', async () => {
    const mesh = new MeshOfProviders();
    const device = mesh.add('a', scriptedProvider({ handle: ({ signal }) => untilAborted(signal) }));
    mesh.add('b', scriptedProvider());
    const answer = serve(mesh, { preferDevice: 'a' });
    await turn();
    device.vanish();
    const { device: served, attempts } = await answer;
    assert.deepEqual([served, attempts], ['b', 2]);
  });

  test('after its first byte, the answer ends with a clear error and nobody else is asked', async () => {
    const mesh = new MeshOfProviders();
    const device = mesh.add('a', scriptedProvider({ handle: hanging }));
    mesh.add('b', scriptedProvider());
    const answer = mesh.router.request({ ...echo, preferDevice: 'a' });
    const chunks = answer.chunks[Symbol.asyncIterator]();
    assert.equal((await chunks.next()).value?.payload, 'first');
    device.vanish();
    await assert.rejects(chunks.next(), { message: /^a broke off its answer/ });
    await assert.rejects(answer.end, MeshError);
    assert.equal((await answer.device).device, 'a');
    assert.deepEqual([await chunks.next(), mesh.asked], [{ done: true, value: undefined }, ['a']]);
  });

  test('because of the request itself, nobody else is asked', async () => {
    const mesh = new MeshOfProviders();
    for (const name of ['a', 'b'])
      mesh.add(
        name,
        scriptedProvider({ handle: failing(new MeshError('bad_payload', 'input.0: not a text')) }),
      );
    await assert.rejects(serve(mesh), { code: 'bad_payload', message: 'input.0: not a text' });
    assert.equal(mesh.asked.length, 1);
  });

  test('by being busy, and all others are too, the shortest wait is told', async () => {
    const mesh = new MeshOfProviders();
    const full = (retryAfterMs: number) =>
      scriptedProvider({ handle: failing(new MeshError('overloaded', 'Busy', { retryAfterMs })) });
    mesh.add('a', full(9_000));
    mesh.add('b', full(2_000));
    mesh.add('c', full(5_000));
    await assert.rejects(serve(mesh), { code: 'overloaded', retryAfterMs: 2_000 });
  });

  test('too often, it is left alone for ten seconds, and then tried', async () => {
    const mesh = new MeshOfProviders();
    const provider = scriptedProvider({ handle: failing(new Error('broken')) });
    mesh.add('a', provider);
    for (let i = 0; i < 20; i++) await assert.rejects(serve(mesh), { code: 'provider_failed' });
    await assert.rejects(serve(mesh), { code: 'overloaded', message: /left alone/ });
    assert.equal(provider.calls.length, 20);
    mesh.add('b', scriptedProvider());
    const { insteadOf, attempts } = await serve(mesh, { preferDevice: 'a' });
    assert.deepEqual([insteadOf?.code, attempts], ['overloaded', 1]);
    mesh.clock.step(10_000);
    assert.equal((await serve(mesh, { preferDevice: 'a' })).attempts, 2);
    assert.equal(provider.calls.length, 21);
  });

  test('by not being reached, it is waited for once, and not where it is the only one', async () => {
    const mesh = new MeshOfProviders();
    const away = mesh.add('away', scriptedProvider());
    away.unreachable = true;
    mesh.add('b', scriptedProvider());
    const preferred = { preferDevice: 'away' };
    const first = serve(mesh, preferred);
    await turn();
    mesh.clock.step(5_000);
    const { insteadOf, attempts } = await first;
    assert.deepEqual([insteadOf?.code, attempts], ['connect_timeout', 2]);
    const next = await serve(mesh, preferred);
    assert.deepEqual([next.device, next.insteadOf?.code, next.attempts], ['b', 'connect_timeout', 1]);
    away.unreachable = false;
    assert.equal(await deviceOf(mesh, { onlyDevice: 'away' }), 'away');
    assert.equal(await deviceOf(mesh, preferred), 'b');
    away.listed = { path: 'lan' };
    const back = await serve(mesh, preferred);
    assert.deepEqual([back.device, back.insteadOf], ['away', null]);
  });

  test('by being busy or by refusing a request, that counts for nothing', async () => {
    const mesh = new MeshOfProviders();
    const errors = [new MeshError('overloaded', 'Busy', { retryAfterMs: 1 }), new MeshError('bad_payload')];
    for (const error of errors) {
      const provider = scriptedProvider({ protocol: `demo.${error.status}`, handle: failing(error) });
      mesh.add(`box-${error.status}`, provider);
      for (let i = 0; i < 40; i++)
        await assert.rejects(serve(mesh, { protocol: provider.protocol }), { code: error.code });
      assert.equal(provider.calls.length, 40);
    }
  });

  test('with words for a terminal, its control characters are taken out', async () => {
    const mesh = new MeshOfProviders();
    const options = { hint: 'see\u009b2J' };
    mesh.add(
      'a',
      scriptedProvider({ handle: failing(new MeshError('not_found', 'no\u001b[31m!\n', options)) }),
    );
    await assert.rejects(serve(mesh), { message: 'a: no [31m! ', hint: 'see 2J' });
  });

  test('in all the time there is, no other one is asked', async () => {
    const mesh = new MeshOfProviders();
    for (const name of ['a', 'b'])
      mesh.add(name, scriptedProvider({ handle: ({ signal }) => untilAborted(signal) }));
    const answer = serve(mesh, { timeoutMs: 500 });
    for (let turns = 0; turns < 4; turns++) await turn();
    mesh.clock.step(500);
    await assert.rejects(answer, { code: 'timeout' });
    assert.equal(mesh.asked.length, 1);
  });

  test('or all that have it are off, that is said', async () => {
    const mesh = new MeshOfProviders();
    await assert.rejects(serve(mesh), { code: 'capability_not_found' });
    mesh.add('gpu', scriptedProvider()).listed = { online: false };
    await assert.rejects(serve(mesh), { code: 'device_offline', message: /gpu/ });
    const own = scriptedProvider();
    mesh.local.add(own);
    own.change({ problem: 'The folder is empty', problemCode: 'model_unavailable' });
    await assert.rejects(serve(mesh), { code: 'model_unavailable', message: 'The folder is empty' });
  });
});

describe('an asker that goes', () => {
  for (const how of ['signal', 'leaving', 'deadline'] as const)
    test(`by ${how} is heard of by the provider, here and at another device`, async () => {
      for (const where of ['me', 'gpu']) {
        const mesh = new MeshOfProviders();
        const provider = scriptedProvider({ handle: hanging });
        const local = where === 'me' ? mesh.local : mesh.add('gpu').local;
        local.add(provider);
        const cancel = new AbortController();
        const answer = mesh.router.request({ ...echo, signal: cancel.signal, timeoutMs: 1_000 });
        const chunks = answer.chunks[Symbol.asyncIterator]();
        await chunks.next();
        const next = how === 'leaving' ? null : chunks.next();
        if (how === 'leaving') await chunks.return?.();
        else if (how === 'signal') cancel.abort();
        else mesh.clock.step(1_000);
        const code = how === 'deadline' ? 'timeout' : 'cancelled';
        if (next) await assert.rejects(next, { code });
        await assert.rejects(answer.end, { code });
        await turn();
        await turn();
        assert.equal(provider.calls[0]?.signal.aborted, true);
        assert.equal(local.load, 0);
      }
    });

  test('in the middle leaves no load behind at the device', async () => {
    const mesh = new MeshOfProviders();
    const stream = scriptedProvider({ limit: 2, handle: hanging });
    mesh.add('a', stream);
    mesh.add('b', scriptedProvider({ limit: 1, state: { warm: false } }));
    await mesh.descriptions.refresh(['peer-a', 'peer-b'], 1_000);
    for (let i = 0; i < 6; i++) {
      for await (const _ of mesh.router.request({ ...echo, preferDevice: 'a' }).chunks) break;
      for (let turns = 0; turns < 4; turns++) await turn();
    }
    for await (const _ of mesh.router.request(echo).chunks) break;
    assert.equal(stream.calls.length, 7);
  });

  test('in the middle of the one try at a device that failed too often lets the next one try', async () => {
    const mesh = new MeshOfProviders();
    let handle = failing(new Error('broken'));
    mesh.add('a', scriptedProvider({ handle: (call) => handle(call) }));
    for (let i = 0; i < 20; i++) await assert.rejects(serve(mesh), { code: 'provider_failed' });
    mesh.clock.step(10_000);
    handle = hanging;
    for await (const _ of mesh.router.request(echo).chunks) break;
    for (let turns = 0; turns < 4; turns++) await turn();
    handle = async () => content('well');
    assert.equal((await serve(mesh)).payload, 'well');
  });

  test('before anybody was asked asks nobody', async () => {
    const mesh = new MeshOfProviders();
    mesh.add('gpu', scriptedProvider());
    const cancel = AbortSignal.abort();
    await assert.rejects(serve(mesh, { signal: cancel }), { code: 'cancelled' });
    assert.deepEqual(mesh.asked, []);
  });
});

test('a device that does not begin in time is given up for the next one when the asker says so', async () => {
  const mesh = new MeshOfProviders();
  const slow = scriptedProvider({ handle: ({ signal }) => untilAborted(signal) });
  mesh.add('slow', slow);
  mesh.add('good', scriptedProvider());
  const answer = serve(mesh, { preferDevice: 'slow', firstAnswerMs: 100 });
  await turn();
  mesh.clock.step(100);
  const { device, insteadOf } = await answer;
  assert.deepEqual([device, insteadOf?.code], ['good', 'timeout']);
  assert.equal(slow.calls[0]?.signal.aborted, true);
});

test('a request that cannot be sent is refused before anybody is asked', async () => {
  const mesh = new MeshOfProviders();
  mesh.add('gpu', scriptedProvider());
  for (const change of [
    { protocol: 'Demo' },
    { timeoutMs: 0 },
    { timeoutMs: 600_001 },
    { payload: undefined as unknown as null },
    { features: [''] },
    { session: 'x'.repeat(129) },
  ])
    await assert.rejects(serve(mesh, change), { code: 'bad_message' }, JSON.stringify(change));
  assert.deepEqual(mesh.asked, []);
});
