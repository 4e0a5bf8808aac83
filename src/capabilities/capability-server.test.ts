import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Stream } from '@cocoon-mesh/mesh';
import { resetCodeOf, writeMessage } from '@cocoon-mesh/mesh';
import { sessionPair, turn } from '@cocoon-mesh/mesh/session-pair.contract.ts';
import type { CapabilityAnswerMessage } from '@cocoon-mesh/protocol';
import { ResetCode, capabilityRequestSchema, encode, limits, streamProtocols } from '@cocoon-mesh/protocol';
import { askStream } from './ask-stream.ts';
import type { Content } from './provider.ts';
import { content, scriptedProvider, untilAborted } from './scripted-provider.contract.ts';
import { sampleRequest, servedDevice } from './served-device.contract.ts';

async function all(messages: AsyncIterable<CapabilityAnswerMessage>): Promise<CapabilityAnswerMessage[]> {
  const found: CapabilityAnswerMessage[] = [];
  for await (const message of messages) found.push(message);
  return found;
}

function kinds(messages: readonly CapabilityAnswerMessage[]): string[] {
  return messages.map((message) => (message.kind === 'error' ? message.code : message.kind));
}

function resetWith(code: ResetCode): (error: unknown) => boolean {
  return (error) => resetCodeOf(error) === code;
}

describe('a request to a device', () => {
  test('is answered with payload and parts, and leaves no stream and no timer behind', async () => {
    const provider = scriptedProvider();
    const { ask, pair } = servedDevice(provider);
    const timers = pair.clock.pendingTimers;
    const parts = [Uint8Array.of(1, 2), new Uint8Array()];
    const [end] = await all(ask({ payload: { text: 'Grüße' }, parts, session: 's', features: [] }));
    assert.ok(end?.kind === 'end');
    assert.deepEqual([end.payload, end.parts.map((part) => [...part])], [{ text: 'Grüße' }, [[1, 2], []]]);
    const [call] = provider.calls;
    assert.deepEqual([call?.session, call?.from], ['s', { id: 'peer-1', name: 'asker' }]);
    await turn();
    assert.deepEqual([pair.left.streams, pair.right.streams], [0, 0]);
    assert.ok(pair.clock.pendingTimers <= timers + 2, 'what is left are acknowledgements of the session');
  });

  test('is answered by chunks, made no faster than they are read', async () => {
    let made = 0;
    const provider = scriptedProvider({
      handle: async function* () {
        for (; made < 200; made++) yield content('x'.repeat(10_000));
      },
    });
    const { ask, pair } = servedDevice(provider, {
      limits: { streamWindowBytes: 100_000, streamQueueBytes: 100_000 },
    });
    const answer = ask();
    await answer.next();
    for (let i = 0; i < 50; i++) await turn();
    assert.ok(made < 40, `${made} chunks were made`);
    assert.deepEqual(kinds((await all(answer)).slice(-2)), ['chunk', 'end']);
    assert.equal(made, 200);
    assert.equal(pair.right.streams, 0);
  });

  for (const how of ['signal', 'leaving'] as const)
    test(`is cancelled at its provider by ${how}`, async () => {
      const cancelled = Promise.withResolvers<unknown>();
      const provider = scriptedProvider({
        handle: async function* ({ signal }) {
          signal.addEventListener('abort', () => cancelled.resolve(signal.reason));
          yield content(1);
          await untilAborted(signal);
        },
      });
      const { ask, pair, local } = servedDevice(provider);
      const cancel = new AbortController();
      const answer = ask({}, cancel.signal);
      await answer.next();
      assert.equal(local.load, 0.5);
      if (how === 'leaving') await answer.return(undefined);
      else {
        cancel.abort();
        await assert.rejects(all(answer));
      }
      assert.ok(await cancelled.promise);
      await turn();
      assert.deepEqual([local.load, pair.right.streams], [0, 0]);
    });

  test('ends at its deadline with `timeout`, and its provider is told', async () => {
    let told: unknown = null;
    const provider = scriptedProvider({
      handle: ({ signal }) => untilAborted(signal).catch((thrown: unknown) => ((told = thrown), content(1))),
    });
    const { ask, pair } = servedDevice(provider);
    const answer = all(ask());
    await turn();
    pair.clock.step(1_000);
    assert.deepEqual(kinds(await answer), ['timeout']);
    assert.equal((told as DOMException).name, 'TimeoutError');
  });

  test('that nobody reads is dropped some time after its deadline', async () => {
    const provider = scriptedProvider({
      handle: async function* () {
        for (;;) yield content('x'.repeat(1_000));
      },
    });
    const { open, pair } = servedDevice(provider, {
      limits: {
        streamWindowBytes: 1_000,
        streamMinimumBytes: 1_000,
        streamQueueBytes: 1_000,
        deadAfterMs: 1e9,
      },
    });
    const stream = open();
    await writeMessage(stream, capabilityRequestSchema, sampleRequest, 10_000);
    stream.end();
    await turn();
    pair.clock.step(6_000);
    await turn();
    await assert.rejects(drain(stream), resetWith(ResetCode.timeout));
    assert.equal(pair.right.streams, 0);
  });
});

describe('a request that goes wrong', () => {
  test('because nobody serves it is answered so', async () => {
    assert.deepEqual(kinds(await all(servedDevice(null).ask())), ['capability_not_found']);
  });

  test('because its header names no capability or no range is refused', async () => {
    const { pair, open } = servedDevice(scriptedProvider());
    const bad = pair.left.open(streamProtocols.capability, new Uint8Array());
    await assert.rejects(bad.read(), resetWith(ResetCode.badHeader));
    await assert.rejects(open('latest').read(), resetWith(ResetCode.badHeader));
  });

  test('because it is no request, or two, is answered so', async () => {
    const good = encode(capabilityRequestSchema, sampleRequest);
    const framed = (message: Uint8Array) =>
      Uint8Array.of(0, 0, message.length >> 8, message.length & 255, ...message);
    for (const bytes of [
      Uint8Array.of(0xff, 0xff, 0xff, 0xff),
      Uint8Array.of(0, 0, 0, 1, 0xc1),
      framed(good).subarray(0, 20),
      new Uint8Array(),
      Uint8Array.of(...framed(good), ...framed(good)),
    ]) {
      const provider = scriptedProvider();
      const { pair, open } = servedDevice(provider);
      const stream = open();
      stream.write(bytes);
      stream.end();
      const answer = String.fromCharCode(...((await stream.read()) ?? []));
      assert.match(answer, /error.*(bad_message|message_too_large)/s);
      await turn();
      assert.deepEqual([provider.calls.length, pair.right.streams], [0, 0]);
    }
  });

  test('because its answer is larger than a message may be is a bad answer', async () => {
    const large = new Uint8Array(limits.maxCapabilityMessageBytes);
    const { ask } = servedDevice(scriptedProvider({ handle: async () => content(1, large) }));
    assert.deepEqual(kinds(await all(ask())), ['bad_answer']);
  });

  test('because it never comes is dropped', async () => {
    const { pair, open } = servedDevice(scriptedProvider(), { limits: { deadAfterMs: 1e9 } });
    const stream = open();
    await turn();
    pair.clock.step(60_000);
    await turn();
    await assert.rejects(stream.read(), resetWith(ResetCode.timeout));
    assert.equal(pair.right.streams, 0);
  });

  test('because it is too large is not even sent', async () => {
    const provider = scriptedProvider();
    const { ask } = servedDevice(provider);
    const parts = [new Uint8Array(limits.maxCapabilityMessageBytes)];
    await assert.rejects(all(ask({ parts })), { code: 'message_too_large' });
    await turn();
    assert.equal(provider.calls.length, 0);
  });
});

describe('a peer', () => {
  test('has no more requests under way than the limit', async () => {
    const stop = Promise.withResolvers<Content>();
    const limit = limits.maxCapabilityRequestsPerPeer;
    const { open, ask, pair, local } = servedDevice(
      scriptedProvider({ limit: limit + 1, handle: () => stop.promise }),
    );
    const streams = Array.from({ length: limit }, () => open());
    for (const stream of streams) {
      await writeMessage(stream, capabilityRequestSchema, sampleRequest, 10_000);
      stream.end();
    }
    await turn();
    assert.equal(local.states()[0]?.in_flight, limit);
    await assert.rejects(all(ask()), resetWith(ResetCode.tooManyStreams));
    stop.resolve(content(1));
    for (const stream of streams) await drain(stream);
    await turn();
    assert.deepEqual(kinds(await all(ask())), ['end']);
    assert.equal(pair.right.streams, 0);
  });

  test('has only a few of its requests read at once: no stream of it makes this device hold more', async () => {
    const provider = scriptedProvider({ limit: 100 });
    const { open } = servedDevice(provider);
    const silent = Array.from({ length: 4 }, () => open());
    await turn();
    const fifth = open();
    await writeMessage(fifth, capabilityRequestSchema, sampleRequest, 10_000);
    fifth.end();
    await turn();
    assert.equal(provider.calls.length, 0);
    silent[0]?.reset(ResetCode.cancel);
    await turn();
    assert.equal(provider.calls.length, 1);
  });

  test('is told when the device shuts down', async () => {
    const { server, ask } = servedDevice(scriptedProvider({ handle: ({ signal }) => untilAborted(signal) }));
    const answer = all(ask());
    await turn();
    server.close();
    await assert.rejects(answer, resetWith(ResetCode.shuttingDown));
    await assert.rejects(all(ask()), resetWith(ResetCode.shuttingDown));
  });
});

test('an answer that breaks the protocol is refused, and its stream reset', async () => {
  for (const bytes of [
    Uint8Array.of(0, 0, 0, 1, 0xc1),
    Uint8Array.of(0xff, 0, 0, 0),
    Uint8Array.of(0, 0, 0, 9),
    null,
  ]) {
    const pair = sessionPair({
      acceptRight: (stream) => {
        if (bytes) stream.write(bytes);
        if (bytes?.[3] === 9 || !bytes) stream.end();
      },
    });
    const mesh = {
      openStream: async (_peerId: string, protocol: string, header: Uint8Array) =>
        pair.left.open(protocol, header),
    };
    const wanted = { protocol: 'demo.echo', version: '*' };
    const never = new AbortController().signal;
    await assert.rejects(all(askStream(mesh, pair.clock, 'peer-2', wanted, sampleRequest, never)), {
      code: 'bad_answer',
    });
    await turn();
    assert.equal(pair.left.streams, 0);
  }
});

async function drain(stream: Stream): Promise<void> {
  while ((await stream.read()) !== null);
}
