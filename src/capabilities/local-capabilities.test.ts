import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { CapabilityAnswerMessage } from '@cocoon-mesh/protocol';
import { MeshError } from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { LocalCapabilities } from './local-capabilities.ts';
import type { Content, Provider } from './provider.ts';
import { content, scriptedProvider, untilAborted } from './scripted-provider.contract.ts';

const never = new AbortController().signal;
const from = { id: 'peer-1', name: 'asker' };

function open() {
  const clock = new SteppedClock();
  const logged: string[] = [];
  const local = new LocalCapabilities({
    clock,
    log: (_level, message, fields) => logged.push(`${message} ${JSON.stringify(fields)}`),
  });
  return { clock, local, logged };
}

interface Asked {
  readonly protocol?: string;
  readonly version?: string;
  readonly features?: readonly string[];
  readonly payload?: Content['payload'];
}

function ask(local: LocalCapabilities, asked: Asked = {}, signal: AbortSignal = never) {
  const { protocol = 'demo.echo', version = '^1.0.0', features = [], payload = 'hello' } = asked;
  const call = { payload, parts: [], session: null, features, from, timeoutMs: 1_000 };
  return local.answer({ protocol, version, features }, call, signal);
}

async function all(messages: AsyncIterable<CapabilityAnswerMessage>): Promise<CapabilityAnswerMessage[]> {
  const found: CapabilityAnswerMessage[] = [];
  for await (const message of messages) found.push(message);
  return found;
}

async function last(messages: AsyncIterable<CapabilityAnswerMessage>): Promise<CapabilityAnswerMessage> {
  const [message] = (await all(messages)).slice(-1);
  assert.ok(message);
  return message;
}

async function code(messages: AsyncIterable<CapabilityAnswerMessage>): Promise<string> {
  const message = await last(messages);
  return message.kind === 'error' ? message.code : message.kind;
}

describe('a request to this device', () => {
  test('is answered in one piece, with who served it and what it took', async () => {
    const { local } = open();
    const provider = scriptedProvider();
    local.add(provider);
    assert.deepEqual(await all(ask(local, { payload: { a: [1] } })), [
      {
        kind: 'end',
        payload: { a: [1] },
        parts: [],
        version: '1.0.0',
        queue_ms: 0,
        load: { in_flight: 0, queued: 0, limit: 2 },
      },
    ]);
    assert.deepEqual(provider.calls[0]?.from, from);
  });

  test('is answered as a stream, read no faster than the asker reads', async () => {
    const { local } = open();
    let made = 0;
    local.add(
      scriptedProvider({
        handle: async function* () {
          for (; made < 3; made++) yield content(made, Uint8Array.of(made));
        },
      }),
    );
    const answer = ask(local);
    assert.deepEqual((await answer.next()).value, { kind: 'chunk', payload: 0, parts: [Uint8Array.of(0)] });
    assert.equal(made, 0);
    const rest = await all(answer);
    assert.deepEqual(
      rest.map(({ kind }) => kind),
      ['chunk', 'chunk', 'end'],
    );
  });

  test('has at its end what a stream returns', async () => {
    const { local } = open();
    local.add(
      scriptedProvider({
        handle: async function* () {
          yield content('word');
          return content({ usage: 1 });
        },
      }),
    );
    const message = await last(ask(local));
    assert.ok(message.kind === 'end');
    assert.deepEqual(message.payload, { usage: 1 });
  });

  test('goes to the newest version within its range, and never to another', async () => {
    const { local } = open();
    for (const version of ['1.0.0', '1.10.0', '1.9.0', '2.0.0', '1.11.0-beta.1'])
      local.add(scriptedProvider({ version }));
    const served = async (range: string): Promise<string> => {
      const message = await last(ask(local, { version: range }));
      return message.kind === 'end' ? message.version : message.kind === 'error' ? message.code : '';
    };
    assert.equal(await served('^1.0.0'), '1.10.0');
    assert.equal(await served('~1.9'), '1.9.0');
    assert.equal(await served('*'), '2.0.0');
    assert.equal(await served('^3'), 'capability_not_found');
  });

  test('goes to a provider with all features it needs, and rather to one that is free', async () => {
    const { local } = open();
    const hold = Promise.withResolvers<Content>();
    const busy = scriptedProvider({
      limit: 1,
      state: { features: ['model:a', 'tools'] },
      handle: () => hold.promise,
    });
    const free = scriptedProvider({
      limit: 1,
      state: { features: ['model:a', 'tools', 'space:x'], warm: false },
    });
    local.add(busy);
    local.add(free);
    const first = all(ask(local, { features: ['tools'] }));
    await Promise.resolve();
    await all(ask(local, { features: ['model:a', 'tools'] }));
    await all(ask(local, { features: ['space:x'] }));
    assert.deepEqual([busy.calls.length, free.calls.length], [1, 2]);
    assert.equal(await code(ask(local, { features: ['model:b'] })), 'capability_not_found');
    hold.resolve(content(1));
    await first;
  });

  test('goes to one with a place in its queue, and to a stand-in only where there is no other', async () => {
    const { local } = open();
    const hold = Promise.withResolvers<Content>();
    const full = scriptedProvider({ limit: 1, maxQueued: 0, handle: () => hold.promise });
    const waiting = scriptedProvider({ limit: 1, maxQueued: 4, handle: () => hold.promise });
    const standIn = scriptedProvider({ state: { isStandIn: true } });
    for (const provider of [standIn, full, waiting]) local.add(provider);
    const answers = [1, 2, 3].map((payload) => last(ask(local, { payload })));
    hold.resolve(content('held'));
    await Promise.all(answers);
    assert.deepEqual(
      [standIn, full, waiting].map(({ calls }) => calls.length),
      [0, 1, 2],
    );
  });

  test('that a provider cannot serve now says why, in the words and with the code of the provider', async () => {
    const { local } = open();
    const provider = scriptedProvider();
    local.add(provider);
    provider.change({ problem: 'The model folder has no tokenizer.json', problemCode: 'model_unavailable' });
    const message = await last(ask(local));
    assert.ok(message.kind === 'error');
    assert.deepEqual(
      [message.code, message.message],
      ['model_unavailable', 'The model folder has no tokenizer.json'],
    );
    provider.change({ problem: null });
    assert.equal(await code(ask(local)), 'end');
  });

  test('that finds the queue full is told when to come back', async () => {
    const { local } = open();
    local.add(scriptedProvider({ limit: 1, maxQueued: 0, handle: ({ signal }) => untilAborted(signal) }));
    const cancel = new AbortController();
    const first = all(ask(local, {}, cancel.signal));
    await Promise.resolve();
    const message = await last(ask(local));
    assert.ok(message.kind === 'error' && message.code === 'overloaded');
    assert.ok((message.retry_after_ms ?? 0) > 0);
    assert.deepEqual(message.load, { in_flight: 1, queued: 0, limit: 1 });
    cancel.abort();
    await first;
  });
});

describe('a request that ends early', () => {
  for (const how of ['signal', 'leaving', 'deadline'] as const)
    test(`by ${how} cancels its provider, whose place is free when it has ended`, async () => {
      const { local, clock } = open();
      const ended = Promise.withResolvers<void>();
      let cancelled = false;
      local.add(
        scriptedProvider({
          limit: 1,
          handle: async function* ({ signal }) {
            signal.addEventListener('abort', () => (cancelled = true));
            try {
              yield content('first');
              await untilAborted(signal);
            } finally {
              await ended.promise;
            }
          },
        }),
      );
      const cancel = new AbortController();
      const answer = ask(local, {}, cancel.signal);
      await answer.next();
      if (how === 'leaving') await answer.return(undefined);
      else {
        const next = code(answer);
        if (how === 'signal') cancel.abort();
        else clock.step(1_000);
        assert.equal(await next, how === 'signal' ? 'cancelled' : 'timeout');
      }
      await turn();
      assert.equal(cancelled, true);
      assert.equal(local.load, 1);
      ended.resolve();
      await turn();
      assert.equal(local.load, 0);
      assert.equal(clock.pendingTimers, 0);
    });

  test('while it waits leaves the queue without having been served', async () => {
    const { local } = open();
    const provider = scriptedProvider({ limit: 1, handle: ({ signal }) => untilAborted(signal) });
    local.add(provider);
    const [one, two] = [new AbortController(), new AbortController()];
    const running = all(ask(local, {}, one.signal));
    const waiting = all(ask(local, {}, two.signal));
    await turn();
    assert.equal(local.states()[0]?.queued, 1);
    two.abort();
    await waiting;
    assert.equal(local.states()[0]?.queued, 0);
    one.abort();
    await running;
    assert.equal(provider.calls.length, 1);
  });
});

describe('a provider that goes wrong', () => {
  const bad =
    (value: unknown): Provider['handle'] =>
    async () =>
      value as Content;

  test('fails its request only, and tells the asker nothing of its inside', async () => {
    for (const handle of [
      () => {
        throw new Error('password is hunter2');
      },
      async () => {
        throw new MeshError('internal', 'password is hunter2');
      },
      async function* () {
        yield content(1);
        throw new TypeError('password is hunter2');
      },
    ] satisfies Provider['handle'][]) {
      const { local, logged } = open();
      local.add(scriptedProvider({ handle }));
      const message = await last(ask(local));
      assert.ok(message.kind === 'error');
      assert.deepEqual(
        [message.code, message.message],
        ['provider_failed', 'The provider of demo.echo failed'],
      );
      assert.match(logged[0] ?? '', /hunter2/);
      assert.equal(local.load, 0);
    }
  });

  test('keeps the codes that it gives on purpose', async () => {
    const { local } = open();
    local.add(
      scriptedProvider({
        handle: async () => {
          throw new MeshError('text_too_long', 'input.3 has 600 tokens, the model takes 512');
        },
      }),
    );
    const message = await last(ask(local));
    assert.ok(message.kind === 'error' && message.code === 'text_too_long');
    assert.equal(message.message, 'input.3 has 600 tokens, the model takes 512');
  });

  test('by an answer that cannot be sent is named for it', async () => {
    let deep: Content['payload'] = 1;
    for (let i = 0; i < 21; i++) deep = [deep];
    for (const value of [
      undefined,
      null,
      {},
      { payload: 1 },
      { payload: undefined, parts: [] },
      { payload: Number.NaN, parts: [] },
      { payload: new Date(), parts: [] },
      { payload: deep, parts: [] },
      { payload: 1, parts: ['text'] },
      { payload: 1, parts: Array.from({ length: 257 }, () => new Uint8Array()) },
    ]) {
      const { local } = open();
      local.add(scriptedProvider({ handle: bad(value) }));
      assert.equal(await code(ask(local)), 'bad_answer', JSON.stringify(value));
      assert.equal(local.load, 0);
    }
    const { local } = open();
    local.add(scriptedProvider({ handle: (() => undefined) as unknown as Provider['handle'] }));
    assert.equal(await code(ask(local)), 'provider_failed');
  });
});

describe('what is told of this device', () => {
  test('is what serves, each version once, and follows providers that come, go and change', async () => {
    const { local } = open();
    let told = 0;
    local.onChange((change) => (told += change === 'offer' ? 1 : 0));
    assert.equal(local.load, null);
    const one = scriptedProvider({ state: { features: ['model:a'] } });
    const remove = local.add(one);
    local.add(scriptedProvider({ state: { features: ['model:b'] } }));
    local.add(scriptedProvider({ protocol: 'demo.upper', version: '2.1.0' }));
    assert.deepEqual(local.advertised(), [
      { protocol: 'demo.echo', version: '1.0.0' },
      { protocol: 'demo.upper', version: '2.1.0' },
    ]);
    assert.equal(local.states().length, 3);
    one.change({ problem: 'It crashed' });
    assert.equal(local.states().length, 2);
    assert.equal(local.all()[0]?.problem, 'It crashed');
    remove();
    remove();
    one.change({ problem: null });
    assert.equal(local.states().length, 2);
    assert.equal(told, 5);
  });

  test('is nothing that was switched off', () => {
    const local = new LocalCapabilities({
      clock: new SteppedClock(),
      disabled: ['demo.echo'],
      log: () => undefined,
    });
    local.add(scriptedProvider());
    local.add(scriptedProvider({ protocol: 'demo.other' }));
    assert.deepEqual(
      local.all().map(({ protocol }) => protocol),
      ['demo.other'],
    );
  });

  test('has the highest load of its providers', async () => {
    const { local } = open();
    const hold = Promise.withResolvers<Content>();
    local.add(scriptedProvider({ limit: 4, handle: () => hold.promise }));
    local.add(scriptedProvider({ protocol: 'demo.idle' }));
    const running = Array.from({ length: 3 }, () => all(ask(local)));
    await turn();
    assert.equal(local.load, 0.75);
    running.push(all(ask(local)), all(ask(local)));
    await turn();
    assert.equal(local.load, 1);
    hold.resolve(content(1));
    await Promise.all(running);
    assert.equal(local.load, 0);
  });

  test('is never what others could not read', () => {
    const { local } = open();
    for (const change of [
      { protocol: 'Demo' },
      { protocol: '' },
      { version: '1.0' },
      { version: '01.0.0' },
      { limit: 0 },
      { limit: 1.5 },
      { maxQueued: -1 },
    ])
      assert.throws(
        () => local.add(scriptedProvider(change)),
        { code: 'bad_manifest' },
        JSON.stringify(change),
      );
    for (let i = 0; i < 64; i++) local.add(scriptedProvider());
    assert.throws(() => local.add(scriptedProvider()), { code: 'bad_manifest' });
  });
});

/** Everything that is due happens. */
function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
