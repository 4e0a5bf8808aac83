import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { ProvenPeer, Stream } from '@cocoon-mesh/mesh';
import { resetCodeOf, writeMessage } from '@cocoon-mesh/mesh';
import { sessionPair, turn } from '@cocoon-mesh/mesh/session-pair.contract.ts';
import type { SessionPair } from '@cocoon-mesh/mesh/session-pair.contract.ts';
import type {
  NeededRight,
  QueryPart,
  QueryRequest,
  QueryRow,
  QueryType,
  Rights,
} from '@cocoon-mesh/protocol';
import {
  MeshError,
  ResetCode,
  encode,
  limits,
  memberRights,
  narrowRights,
  queryOpenSchema,
  queryPartSchema,
  queryRequestSchema,
  streamProtocols,
} from '@cocoon-mesh/protocol';
import type { Answerer } from './answer-parts.ts';
import { askStream } from './ask-stream.ts';
import { QueryServer } from './query-server.ts';
import { rowOf } from './targets.contract.ts';

interface Served {
  readonly pair: SessionPair;
  readonly server: QueryServer;
  readonly denied: NeededRight[];
  readonly ask: (request?: Partial<QueryRequest>, signal?: AbortSignal) => AsyncGenerator<QueryPart>;
  readonly open: (type: QueryType) => Stream;
}

const request: QueryRequest = {
  type: 'list_tasks',
  params: {},
  limit: 10,
  after: null,
  timeout_ms: 1000,
  max_bytes: limits.maxQueryAnswerBytes,
};

/** A device on the right that answers, and whoever asks it on the left. */
function serve(
  answerer: Answerer | null,
  rights: Rights = memberRights,
  sessionLimits: Parameters<typeof sessionPair>[0] = {},
): Served {
  const denied: NeededRight[] = [];
  // Only what the server looks at.
  const peer = { peerId: 'peer-1', name: 'asker', rights } as ProvenPeer;
  const pair: SessionPair = sessionPair({
    ...sessionLimits,
    acceptRight: (stream) => server.handle(stream, peer),
  });
  const server = new QueryServer({
    clock: pair.clock,
    denied: (_peer, right) => denied.push(right),
    log: () => undefined,
  });
  if (answerer) server.answer('list_tasks', answerer);
  const open = (type: QueryType): Stream =>
    pair.left.open(streamProtocols.query, encode(queryOpenSchema, { type }));
  const mesh = {
    openStream: async (_peerId: string, protocol: string, header: Uint8Array) =>
      pair.left.open(protocol, header),
  };
  const ask = (change: Partial<QueryRequest> = {}, signal = new AbortController().signal) =>
    askStream(mesh, pair.clock, 'peer-2', { ...request, ...change }, signal);
  return { pair, server, denied, ask, open };
}

async function all(parts: AsyncIterable<QueryPart>): Promise<QueryPart[]> {
  const found: QueryPart[] = [];
  for await (const part of parts) found.push(part);
  return found;
}

function rowsIn(parts: readonly QueryPart[]): QueryRow[] {
  return parts.flatMap((part) => (part.kind === 'part' ? part.rows : []));
}

async function* counting(
  from: number,
  note: (n: number) => void = () => undefined,
): AsyncGenerator<QueryRow> {
  for (let n = from; ; n--) {
    note(n);
    yield rowOf(n);
  }
}

async function* rowsOf(...keys: readonly number[]): AsyncGenerator<readonly QueryRow[]> {
  yield keys.map((key) => rowOf(key));
}

function until(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason as Error));
  });
}

function errorIn(parts: readonly QueryPart[]): string | undefined {
  const last = parts.at(-1);
  return last?.kind === 'error' ? last.code : undefined;
}

describe('a query to a device', () => {
  test('is answered by whoever is registered for its type, and leaves no stream behind', async () => {
    const seen: QueryRequest[] = [];
    const { ask, pair } = serve((asked) => {
      seen.push(asked);
      return rowsOf(3, 2, 1);
    });
    const parts = await all(ask({ params: { status: ['failed'] }, after: 'x' }));
    assert.deepEqual(parts, [
      { kind: 'part', seq: 0, rows: [rowOf(3), rowOf(2), rowOf(1)], is_final: true, more: false },
    ]);
    assert.deepEqual(seen, [{ ...request, params: { status: ['failed'] }, after: 'x' }]);
    await turn();
    assert.deepEqual([pair.left.streams, pair.right.streams], [0, 0]);
    // Nothing was reset, and no limit of ours waits any more.
    pair.clock.step(20_000);
  });

  test('is told which device asks, or that it is this one', async () => {
    const from: unknown[] = [];
    const { ask, server } = serve((_request, _signal, asker) => {
      from.push(asker);
      return rowsOf(1);
    });
    await all(ask());
    await all(server.ask(request, new AbortController().signal));
    assert.deepEqual(from, [{ id: 'peer-1', name: 'asker' }, null]);
  });

  test('reads no more of an endless answer than one row above the limit', async () => {
    let lowest = Infinity;
    let ended = false;
    const { ask } = serve(async function* () {
      try {
        yield* counting(100, (n) => (lowest = n));
      } finally {
        ended = true;
      }
    });
    const parts = await all(ask({ limit: 5 }));
    assert.deepEqual(
      rowsIn(parts).map(({ key }) => key[0]),
      [100, 99, 98, 97, 96],
    );
    const last = parts.at(-1);
    assert.ok(last?.kind === 'part' && last.is_final && last.more === true);
    assert.equal(lowest, 95);
    await turn();
    assert.equal(ended, true);
  });

  test('says that there is no more when exactly as many rows were there as were asked for', async () => {
    const { ask } = serve(() => rowsOf(3, 2));
    const [part] = await all(ask({ limit: 2 }));
    assert.ok(part?.kind === 'part' && part.more === false);
  });

  test('comes in parts of bounded size, and in no more bytes than the asker holds', async () => {
    const large: Answerer = async function* () {
      for (let n = 50; n > 0; n--) yield { ...rowOf(n), value: 'x'.repeat(40_000) };
    };
    const { ask } = serve(large);
    const parts = await all(ask({ limit: 50 }));
    assert.equal(rowsIn(parts).length, 50);
    assert.ok(parts.length >= 25);
    assert.ok(parts.every((part) => encode(queryPartSchema, part).length < 110_000));
    const cut = await all(ask({ limit: 50, max_bytes: 500_000 }));
    assert.equal(rowsIn(cut).length, 12);
    const last = cut.at(-1);
    assert.ok(last?.kind === 'part' && last.more === true);
    assert.equal(errorIn(await all(ask({ max_bytes: 1000 }))), 'message_too_large');
  });

  test('counts what stands around the rows of each part, too', async () => {
    const { ask, pair } = serve(async function* () {
      for (let n = 100; ; n--) {
        yield rowOf(n);
        // Each row is a part of its own.
        await new Promise<void>((resolve) => pair.clock.after(25, resolve));
      }
    });
    const parts = all(ask({ limit: 100, max_bytes: 1000, timeout_ms: 60_000 }));
    for (let i = 0; i < 200; i++) {
      await turn();
      pair.clock.step(5);
    }
    const answer = await parts;
    assert.ok(answer.length > 3, `${answer.length} parts`);
    assert.ok(JSON.stringify(answer).length <= 1000, `${JSON.stringify(answer).length} bytes`);
  });

  test('shows a row that is there although the next one takes long', async () => {
    const next = Promise.withResolvers<void>();
    const { ask, pair } = serve(async function* () {
      yield rowOf(2);
      await next.promise;
      yield rowOf(1);
    });
    const parts = ask();
    const first = parts.next();
    await turn();
    pair.clock.step(20);
    const { value } = await first;
    assert.deepEqual(value, { kind: 'part', seq: 0, rows: [rowOf(2)], is_final: false });
    next.resolve();
    assert.equal(rowsIn(await all(parts)).length, 1);
  });

  test('is read from its answerer no faster than the asker reads it', async () => {
    let made = 0;
    const { ask, pair } = serve(
      async function* () {
        for (let n = 900; n > 0; n--) {
          made++;
          yield { ...rowOf(n), value: 'x'.repeat(10_000) };
        }
      },
      memberRights,
      { limits: { streamWindowBytes: 100_000, streamQueueBytes: 100_000 } },
    );
    const parts = ask({ limit: 900 });
    await parts.next();
    for (let i = 0; i < 50; i++) await turn();
    assert.ok(made < 60, `${made} rows were made`);
    assert.ok(rowsIn(await all(parts)).length > 700);
    assert.equal(pair.left.streams, 0);
  });

  test('ends at its deadline, with what was there before', async () => {
    const { ask, pair } = serve(async function* (_asked, signal) {
      yield rowOf(1);
      await until(signal);
    });
    const parts = all(ask());
    await turn();
    pair.clock.step(20);
    await turn();
    pair.clock.step(980);
    const answer = await parts;
    assert.equal(rowsIn(answer).length, 1);
    assert.equal(errorIn(answer), 'timeout');
  });

  test('that an asker does not read is dropped some time after its deadline', async () => {
    const { pair, open } = serve(() => counting(1e6), memberRights, {
      limits: { streamWindowBytes: 1000, streamMinimumBytes: 1000, streamQueueBytes: 1000, deadAfterMs: 1e9 },
    });
    const stream = open('list_tasks');
    await writeMessage(stream, queryRequestSchema, { ...request, limit: 1000 }, 10_000);
    stream.end();
    await turn();
    pair.clock.step(6000);
    await turn();
    await assert.rejects(drain(stream), (error) => resetCodeOf(error) === ResetCode.timeout);
    assert.equal(pair.right.streams, 0);
  });

  test('is cancelled at the device when the asker leaves or its signal fires', async () => {
    for (const leave of ['return', 'signal'] as const) {
      let reason: unknown = null;
      const { ask, pair } = serve(async function* (_asked, signal) {
        yield rowOf(1);
        await until(signal).catch((thrown: unknown) => (reason = thrown));
      });
      const cancel = new AbortController();
      const parts = ask({}, cancel.signal);
      const first = parts.next();
      await turn();
      pair.clock.step(20);
      await first;
      if (leave === 'return') await parts.return(undefined);
      else {
        const rest = all(parts);
        cancel.abort();
        await assert.rejects(rest);
      }
      await turn();
      assert.equal(resetCodeOf(reason), ResetCode.cancel);
      await turn();
      assert.equal(pair.right.streams, 0);
    }
  });
});

describe('a query that goes wrong', () => {
  test('tells the error of its answerer, and nothing of the inside of an unknown one', async () => {
    for (const [thrown, code, message] of [
      [new MeshError('bad_filter', 'No such field: x'), 'bad_filter', 'No such field: x'],
      [new TypeError('password is hunter2'), 'internal', 'Something went wrong inside'],
      [new MeshError('bad_filter', 'x'.repeat(5000)), 'bad_filter', 'x'.repeat(1024)],
    ] as const) {
      const { ask } = serve(async function* () {
        yield rowOf(9);
        throw thrown;
      });
      const answer = await all(ask());
      assert.deepEqual(answer.at(-1), { kind: 'error', code, message });
    }
    const { ask } = serve(() => {
      throw new MeshError('bad_cursor');
    });
    assert.equal(errorIn(await all(ask())), 'bad_cursor');
  });

  test('because its answerer makes bad rows is an error, not a broken stream', async () => {
    for (const bad of [
      { key: [], at: '', value: 1 },
      { key: [NaN], at: '', value: 1 },
      { key: [1], at: 'x'.repeat(257), value: 1 },
      { key: [1], at: '', value: undefined as unknown as null },
      { key: [1], at: '', value: new Uint8Array(3) as unknown as null },
    ]) {
      const { ask } = serve(async function* () {
        yield bad;
      });
      assert.equal(errorIn(await all(ask())), 'bad_message');
    }
    const { ask } = serve(async function* () {
      yield { ...rowOf(1), value: 'x'.repeat(limits.maxQueryRowBytes) };
    });
    assert.equal(errorIn(await all(ask())), 'message_too_large');
  });

  test('because nobody answers its type is unsupported', async () => {
    const { ask, server } = serve(null);
    assert.equal(errorIn(await all(ask())), 'unsupported');
    assert.equal(errorIn(await all(server.ask(request, new AbortController().signal))), 'unsupported');
  });

  test('because its request is no request is answered so', async () => {
    const header = encode(queryOpenSchema, { type: 'list_tasks' });
    const good = encode(queryRequestSchema, request);
    const framed = (message: Uint8Array) =>
      Uint8Array.of(0, 0, message.length >> 8, message.length & 255, ...message);
    for (const bytes of [
      Uint8Array.of(0xff, 0xff, 0xff, 0xff),
      Uint8Array.of(0, 0, 0, 1, 0xc1),
      framed(good).subarray(0, 20),
      new Uint8Array(),
      Uint8Array.of(...framed(good), ...framed(good)),
      framed(encode(queryRequestSchema, { ...request, type: 'custom' })),
    ]) {
      const { pair } = serve(() => rowsOf(1));
      const stream = pair.left.open(streamProtocols.query, header);
      stream.write(bytes);
      stream.end();
      const [length, ...answer] = [await stream.read()].map((chunk) => chunk ?? new Uint8Array());
      assert.deepEqual(answer, []);
      assert.match(String.fromCharCode(...(length ?? [])), /error.*(bad_message|message_too_large)/s);
      await turn();
      assert.equal(pair.right.streams, 0);
    }
  });

  test('because its request never comes is dropped', async () => {
    const { pair, open } = serve(() => rowsOf(1), memberRights, { limits: { deadAfterMs: 1e9 } });
    const stream = open('list_tasks');
    await turn();
    pair.clock.step(limits.openTimeoutMs);
    await turn();
    await assert.rejects(stream.read(), (error) => resetCodeOf(error) === ResetCode.timeout);
    assert.equal(pair.right.streams, 0);
  });

  test('because its header is bad is refused', async () => {
    const { pair } = serve(() => rowsOf(1));
    for (const header of [new Uint8Array(), encode(queryOpenSchema, { type: 'custom' }).subarray(1)])
      await assert.rejects(
        pair.left.open(streamProtocols.query, header).read(),
        (error) => resetCodeOf(error) === ResetCode.badHeader,
      );
  });
});

describe('who may ask', () => {
  const queryOnly = memberRights.filter(({ protocol }) => protocol === 'query');
  const isDenied = (error: unknown) => resetCodeOf(error) === ResetCode.denied;

  test('a query about tasks needs the right to read tasks, too', async () => {
    let asked = 0;
    const { denied, open } = serve(() => {
      asked++;
      return rowsOf(1);
    }, queryOnly);
    for (const type of ['list_tasks', 'get_task_stats', 'search_tasks'] as const)
      await assert.rejects(open(type).read(), isDenied);
    assert.deepEqual(denied[0], { protocol: 'tasks', verb: 'read', name: null });
    assert.equal(denied.length, 3);
    assert.equal(asked, 0);
  });

  test('who was given the capability of tasks, and no tasks, reads none', async () => {
    const { denied, open } = serve(() => rowsOf(1), narrowRights([], ['tasks']));
    for (const type of ['list_tasks', 'get_task_stats', 'search_tasks'] as const)
      await assert.rejects(open(type).read(), isDenied);
    assert.equal(denied.length, 3);
  });

  test('one about anything else does not', async () => {
    const { server, ask } = serve(null, queryOnly);
    server.answer('search_knowledgebase', () => rowsOf(1));
    assert.equal(rowsIn(await all(ask({ type: 'search_knowledgebase' }))).length, 1);
  });

  test('nobody has more queries under way than the limit, however they are left', async () => {
    let running = 0;
    const stop = Promise.withResolvers<void>();
    const { open, ask, pair } = serve(async function* () {
      running++;
      await stop.promise;
      yield rowOf(1);
    });
    const streams = Array.from({ length: limits.maxQueriesPerPeer }, () => open('list_tasks'));
    for (const stream of streams) {
      await writeMessage(stream, queryRequestSchema, request, 10_000);
      stream.end();
    }
    await turn();
    assert.equal(running, limits.maxQueriesPerPeer);
    const busy = (error: unknown) => resetCodeOf(error) === ResetCode.tooManyStreams;
    await assert.rejects(all(ask()), busy);
    // Answerers that do not end keep their places, or a peer could start any number of them.
    for (const stream of streams) stream.reset(ResetCode.cancel);
    await turn();
    await assert.rejects(all(ask()), busy);
    stop.resolve();
    await turn();
    assert.equal(rowsIn(await all(ask())).length, 1);
    assert.equal(pair.right.streams, 0);
  });

  test('a device that shuts down says so', async () => {
    const { server, ask } = serve((_asked, signal) => ({
      [Symbol.asyncIterator]: () => ({ next: () => until(signal) }),
    }));
    const parts = all(ask());
    await turn();
    server.close();
    const shuttingDown = (error: unknown) => resetCodeOf(error) === ResetCode.shuttingDown;
    await assert.rejects(parts, shuttingDown);
    await assert.rejects(all(ask()), shuttingDown);
  });
});

test('the own device is asked without a stream, with the same limits', async () => {
  const { server } = serve(() => counting(9));
  const parts = await all(server.ask({ ...request, limit: 2 }, new AbortController().signal));
  assert.deepEqual(parts, [{ kind: 'part', seq: 0, rows: [rowOf(9), rowOf(8)], is_final: true, more: true }]);
});

test('the own device stops when its answer is left, although no signal says so', async () => {
  const left = Promise.withResolvers<void>();
  const { server, pair } = serve(async function* (_asked, signal) {
    yield rowOf(1);
    await until(signal).catch(() => left.resolve());
  });
  const parts = server.ask(request, new AbortController().signal);
  const first = parts.next();
  await turn();
  pair.clock.step(20);
  assert.equal((await first).done, false);
  await parts.return(undefined);
  await left.promise;
});

describe('an answer on a stream that breaks the protocol', () => {
  test('is refused, and its stream reset', async () => {
    const garbage: readonly Uint8Array[] = [
      Uint8Array.of(0, 0, 0, 1, 0xc1),
      Uint8Array.of(0xff, 0, 0, 0),
      Uint8Array.of(0, 0, 0, 9),
    ];
    for (const bytes of garbage) {
      const reset = Promise.withResolvers<void>();
      const pair = sessionPair({
        acceptRight: (stream) => {
          stream.signal.addEventListener('abort', () => reset.resolve());
          stream.write(bytes);
          if (bytes[3] === 9) stream.end();
        },
      });
      const mesh = {
        openStream: async (_peerId: string, protocol: string, header: Uint8Array) =>
          pair.left.open(protocol, header),
      };
      await assert.rejects(
        all(askStream(mesh, pair.clock, 'peer-2', request, new AbortController().signal)),
        (error) => error instanceof MeshError && /^(bad_message|message_too_large)$/.test(error.code),
      );
      if (bytes[3] !== 9) await reset.promise;
      await turn();
      assert.equal(pair.left.streams, 0);
    }
  });

  test('is refused when it is more than the asker holds', async () => {
    const value = 'x'.repeat(50_000);
    const pair = sessionPair({
      acceptRight: (stream) => void flood(stream),
    });
    async function flood(stream: Stream): Promise<void> {
      for (let seq = 0; seq < 100; seq++) {
        const rows = [{ ...rowOf(1000 - seq), value }];
        const part = { kind: 'part' as const, seq, rows, is_final: false };
        await writeMessage(stream, queryPartSchema, part, limits.maxQueryPartBytes).catch(() => undefined);
        if (stream.signal.aborted) return;
      }
    }
    const mesh = {
      openStream: async (_peerId: string, protocol: string, header: Uint8Array) =>
        pair.left.open(protocol, header),
    };
    const asked = { ...request, max_bytes: 100_000 };
    await assert.rejects(all(askStream(mesh, pair.clock, 'peer-2', asked, new AbortController().signal)), {
      code: 'message_too_large',
    });
  });
});

async function drain(stream: Stream): Promise<void> {
  while ((await stream.read()) !== null);
}
