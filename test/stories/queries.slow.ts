/*
 * One question to many devices, as a program at the gateway sees it: parts as they come, the slowest healthy device
 * as the measure, everybody told when the asker goes away, and none of it through signaling.
 */

import assert from 'node:assert/strict';
import { execFile, spawnSync } from 'node:child_process';
import { resolve as absolute } from 'node:path';
import { createInterface } from 'node:readline';
import { Readable } from 'node:stream';
import type { ReadableStream } from 'node:stream/web';
import { after, before, beforeEach, describe, test } from 'node:test';
import { promisify } from 'node:util';
import type { Stream } from '@cocoon-mesh/mesh';
import { readMessages, writeMessage } from '@cocoon-mesh/mesh';
import type { DeviceAnswer, QueryPart, QueryRow, Task } from '@cocoon-mesh/protocol';
import { limits, queryPartSchema, queryRequestSchema, streamProtocols } from '@cocoon-mesh/protocol';
import { sampleTaskRow } from '@cocoon-mesh/protocol/sample-messages.ts';
import { CocoonProcess, enroll, sees } from './cocoon-process.ts';
import { bytesThroughSignaling } from './signaling-metrics.ts';
import { TaskClient } from './task-client.ts';
import { WirePeer } from './wire-peer.ts';

const root = absolute(import.meta.dirname, '../..');
const withTerminal = spawnSync('script', ['--version']).status === 0;

interface Part {
  readonly device: string;
  readonly seq: number;
  readonly rows: readonly { readonly title: string }[];
  readonly is_final: boolean;
}

interface Result {
  readonly rows: readonly { readonly title: string; readonly device: string }[];
  readonly devices: readonly DeviceAnswer[];
  readonly partial: boolean;
}

type Line = { readonly part: Part } | { readonly result: Result };

/** Answers with what it is told to, in the wire's own messages. */
class Answering implements AsyncDisposable {
  readonly peer: WirePeer;
  answer: (stream: Stream, send: (part: QueryPart) => Promise<void>) => Promise<void> = async () => undefined;

  private constructor(peer: WirePeer) {
    this.peer = peer;
    peer.mesh.handle(streamProtocols.query, (stream) => void this.#serve(stream));
  }

  static async join(cocoon: CocoonProcess, name: string): Promise<Answering> {
    const answering = new Answering(await WirePeer.of(cocoon, name));
    await answering.peer.mesh.describe({
      kind: 'cocoon',
      name,
      services: [],
      capabilities: [{ protocol: 'tasks', version: '1.0.0' }],
    });
    return answering;
  }

  async #serve(stream: Stream): Promise<void> {
    const send = (part: QueryPart) => writeMessage(stream, queryPartSchema, part, limits.maxQueryPartBytes);
    try {
      for await (const _ of readMessages(stream, queryRequestSchema, 4 * limits.maxQueryParamsBytes)) break;
      await this.answer(stream, send);
      stream.end();
    } catch {
      // The asker went away, which is what some of these wait for.
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.peer[Symbol.asyncDispose]();
  }
}

let signaling: CocoonProcess;
let laptop: CocoonProcess;
let server: CocoonProcess;
let odd: Answering;
let client: TaskClient;

before(async () => {
  signaling = await CocoonProcess.start({ command: 'signaling', args: ['--port', '0'] });
  laptop = await CocoonProcess.start({
    command: 'run',
    args: ['--name', 'laptop', '--gateway-port', '0', '--signaling', signaling.signaling],
  });
  server = await enroll(laptop, { name: 'server', engine: 'werift' });
  odd = await Answering.join(laptop, 'odd');
  await sees(laptop, 'server');
  await sees(laptop, 'odd');
  client = new TaskClient(laptop);
  await new TaskClient(server).addMany(300, (i) => `server ${i}`);
  await client.add('laptop 0');
  // Sessions are there before anything is timed.
  for (const end = Date.now() + 20_000; Date.now() < end;)
    if ((await ask({ limit: 1, timeout_ms: 20_000 })).result.devices.length === 3) break;
});

beforeEach(() => {
  odd.answer = async (_, send) => send({ kind: 'part', seq: 0, rows: [], is_final: true, more: false });
});

after(async () => {
  await odd?.[Symbol.asyncDispose]();
  await Promise.all([laptop, server].map((cocoon) => cocoon?.[Symbol.asyncDispose]()));
  await signaling?.[Symbol.asyncDispose]();
});

function post(body: object, signal = AbortSignal.timeout(60_000)): Promise<Response> {
  return client.post('/query', { query_type: 'list_tasks', ...body }, signal);
}

/** When each line came, in milliseconds from the question. */
async function* lines(body: object, signal?: AbortSignal): AsyncGenerator<readonly [Line, number]> {
  const asked = performance.now();
  const response = await post(body, signal);
  assert.equal(response.headers.get('content-type'), 'application/x-ndjson');
  const text = Readable.fromWeb(response.body as ReadableStream<Uint8Array>);
  for await (const line of createInterface({ input: text }))
    yield [JSON.parse(line) as Line, performance.now() - asked];
}

async function ask(body: object) {
  const parts: (readonly [Part, number])[] = [];
  for await (const [line, ms] of lines(body)) {
    if ('part' in line) parts.push([line.part, ms]);
    else return { parts, result: line.result, ms };
  }
  throw new Error('The answer ended without a result');
}

/** A row of a device that makes up its tasks. */
function row(title: string, created = '2030-01-01T00:00:00.000Z') {
  const value = { ...sampleTaskRow, title, created_at: created };
  return { key: [Date.parse(created), value.id], at: `${Date.parse(created)}.${value.id}`, value };
}

describe('a question to many devices', () => {
  test('is answered part by part as devices find their rows, and at the end as one list', async () => {
    const slow = Promise.withResolvers<void>();
    odd.answer = async (_, send) => {
      await send({ kind: 'part', seq: 0, rows: [row('odd 0')], is_final: false });
      await slow.promise;
      await send({ kind: 'part', seq: 1, rows: [], is_final: true, more: false });
    };
    const told: string[] = [];
    let result: Result | undefined;
    for await (const [line] of lines({ limit: 200, timeout_ms: 20_000 })) {
      if ('result' in line) result = line.result;
      else told.push(`${line.part.device} ${line.part.seq}${line.part.is_final ? ' final' : ''}`);
      // Everybody else has been heard while one still thinks.
      const others = ['laptop', 'server'].every((name) =>
        told.some((part) => part.startsWith(name) && part.endsWith('final')),
      );
      if (others && told.includes('odd 0')) slow.resolve();
    }
    assert.equal(told.at(-1), 'odd 1 final');
    assert.deepEqual(
      result?.rows.slice(0, 3).map(({ title, device }) => `${device}: ${title.split(' ')[0]}`),
      ['odd: odd', 'laptop: laptop', 'server: server'],
    );
    assert.equal(result?.rows.length, 200);
    assert.equal(result?.partial, false);
  });

  test('takes as long as its slowest healthy device, not until the deadline', async () => {
    const pauseMs = 400;
    odd.answer = async (_, send) => {
      await new Promise((resolve) => void setTimeout(resolve, pauseMs));
      await send({ kind: 'part', seq: 0, rows: [], is_final: true, more: false });
    };
    const { result, ms } = await ask({ limit: 10, timeout_ms: 30_000 });
    const slowest = Math.max(...result.devices.map((device) => device.ms));
    assert.ok(slowest >= pauseMs - 1, `${slowest} ms`);
    assert.ok(ms < slowest + 1_000, `${ms} ms, the slowest device ${slowest}`);
  });

  test('counts a part that comes twice once', async () => {
    odd.answer = async (_, send) => {
      const part: QueryPart = { kind: 'part', seq: 0, rows: [row('twice')], is_final: false };
      await send(part);
      await send(part);
      await send({ kind: 'part', seq: 1, rows: [], is_final: true, more: false });
    };
    const { result, parts } = await ask({ limit: 10, timeout_ms: 20_000 });
    assert.equal(result.rows.filter(({ title }) => title === 'twice').length, 1);
    assert.equal(parts.filter(([part]) => part.device === 'odd').length, 2);
    assert.equal(result.devices.find(({ name }) => name === 'odd')?.count, 1);
  });

  test('is answered by the others when one finds what is no passage and no task', async () => {
    const { value } = row('odd');
    const passage = { file: 'a', heading: '', line: 1, snippet: '', score: 1, space: 'x' };
    for (const [type, good, bad] of [
      ['search_tasks', { ...value, snippet: '' }, value],
      ['search_knowledgebase', passage, { ...passage, line: '\u001b[2J' }],
    ] as const) {
      const answers = async (found: QueryRow['value']) => {
        odd.answer = async (_, send) =>
          send({ kind: 'part', seq: 0, rows: [{ key: [1], at: '1', value: found }], is_final: true });
        const devices = ['odd', 'server'];
        const { result } = await ask({ query_type: type, params: { text: 'nothing' }, devices });
        return result.devices.map(({ status, error }) => error?.code ?? status);
      };
      assert.deepEqual(await answers(good), ['ok', 'ok'], type);
      assert.deepEqual(await answers(bad), ['bad_message', 'ok'], type);
    }
  });

  test('steers no terminal of whoever asks', async () => {
    const steering = '\u001b]0;mine\u0007\u001b[2J';
    const { key, at, value } = row('odd');
    const rows = [
      { key, at, value: { ...value, created_at: steering, error: steering, labels: [steering] } },
    ];
    odd.answer = async (_, send) => send({ kind: 'part', seq: 0, rows, is_final: true });
    for (const args of [
      ['tasks', 'list'],
      ['query', 'list_tasks'],
    ]) {
      const { stdout, stderr } = await laptop.command([...args, '--device', 'odd']);
      assert.match(stdout, /odd/);
      assert.ok(!`${stdout}${stderr}`.includes('\u001b'), args.join(' '));
    }
  });

  test(
    'shows on a terminal who has not answered yet',
    { skip: withTerminal ? false : 'no script (util-linux)' },
    async () => {
      odd.answer = async (_, send) => {
        await new Promise((resolve) => setTimeout(resolve, 1_000));
        await send({ kind: 'part', seq: 0, rows: [], is_final: true });
      };
      const line = `npx cocoon tasks list --all --timeout 20s --home '${laptop.home}'`;
      const { stdout } = await promisify(execFile)('script', ['-qec', line, '/dev/null'], { cwd: root });
      assert.match(stdout, /2 of 3 devices answered, \d+ rows, waiting for odd/);
    },
  );

  test('ends at every device when the asker goes away', async () => {
    const begun = Promise.withResolvers<void>();
    const cancelled = Promise.withResolvers<void>();
    odd.answer = async (stream) => {
      stream.signal.addEventListener('abort', () => cancelled.resolve());
      begun.resolve();
      await new Promise(() => undefined);
    };
    const asker = new AbortController();
    const gone = assert.rejects(async () => {
      for await (const _ of lines({ limit: 10, timeout_ms: 30_000 }, asker.signal));
    });
    await begun.promise;
    asker.abort();
    await gone;
    await within(cancelled.promise, 'the device was not told');
  });

  test('reaches no device through signaling, and needs none', async () => {
    const before = await bytesThroughSignaling(signaling);
    const { result } = await ask({ limit: 300, timeout_ms: 20_000 });
    assert.equal(result.rows.length, 300);
    const moved = (await bytesThroughSignaling(signaling)) - before;
    assert.ok(moved < 20_000 && JSON.stringify(result.rows).length > 60_000, `${moved} bytes`);
    await signaling.stop();
    const listed = await client.list('?limit=5&timeout_ms=20000&device=laptop,server');
    assert.deepEqual(
      listed.devices.map(({ status }) => status),
      ['ok', 'ok'],
    );
    const far = await client.ask<Task>('POST', '/tasks?device=server', {
      title: 'over there',
      command: 'echo hi',
      run: true,
    });
    assert.equal(far.status, 201);
  });
});

describe('bad input at the gateway', () => {
  const unknown = '0193b5a0-7c1e-7a33-9c55-0f3c1de1a001';
  const deep = (levels: number): unknown => (levels === 0 ? 1 : [deep(levels - 1)]);
  const sql = `'); drop table task; --" or 1=1`;

  test('is refused with a code, and nothing is written', async () => {
    const total = async () => (await laptop.json<{ total: number }>('tasks', 'stats')).total;
    const id = await client.add('target');
    const ended = await client.add('ended');
    await client.ask('POST', `/tasks/${ended}/cancel`);
    const before = await total();
    const rows: readonly (readonly [string, string, unknown, number, string])[] = [
      ['POST', '/tasks', { title: 'x'.repeat(10 * 1024 * 1024) }, 413, 'message_too_large'],
      ['POST', '/tasks', { title: 'x', input: deep(100) }, 400, 'bad_task'],
      ['POST', '/tasks', { title: 'x', input: 'y'.repeat(2 * 1024 * 1024) }, 400, 'bad_task'],
      ['POST', '/tasks', { title: 'x', colour: 'blue' }, 400, 'bad_task'],
      ['POST', '/tasks', { title: 5 }, 400, 'bad_task'],
      ['POST', '/tasks', 'no object', 400, 'bad_task'],
      ['GET', '/tasks/nonsense', undefined, 400, 'usage'],
      ['GET', `/tasks/${unknown}`, undefined, 404, 'task_not_found'],
      ['PATCH', `/tasks/${id}`, { status: 'finished' }, 400, 'bad_task'],
      ['PATCH', `/tasks/${ended}`, { status: 'completed' }, 409, 'bad_status_change'],
      ['POST', '/tasks', { title: 'x', run: true }, 400, 'bad_task'],
      ['PATCH', `/tasks/${id}`, { version: 99, title: 'newer' }, 409, 'task_conflict'],
      ['DELETE', `/tasks/${sql.replaceAll('/', '')}`, undefined, 400, 'usage'],
      ['GET', '/aggregate/tasks?status=finished', undefined, 400, 'bad_filter'],
      ['GET', '/aggregate/tasks?colour=blue', undefined, 400, 'bad_filter'],
      ['GET', '/aggregate/tasks?limit=-1', undefined, 400, 'bad_filter'],
      ['GET', '/aggregate/tasks?cursor=AAAA', undefined, 400, 'bad_cursor'],
      ['POST', '/query', { query_type: 'everything' }, 400, 'bad_filter'],
      [
        'POST',
        '/query',
        { query_type: 'search_tasks', params: { text: 'x'.repeat(2000) } },
        400,
        'bad_filter',
      ],
      ['POST', '/query', { query_type: 'custom', params: {} }, 400, 'bad_filter'],
    ];
    for (const [method, path, body, status, code] of rows) {
      const answer = await client.ask<{ code: string }>(method, path, body);
      assert.deepEqual([answer.status, answer.body.code], [status, code], `${method} ${path.slice(0, 60)}`);
    }
    assert.equal(await total(), before);
  });

  test('a cursor of one question does not fit another', async () => {
    const { next_cursor: cursor } = await client.list('?limit=1&device=server&status=pending');
    assert.ok(cursor);
    const answer = await client.ask<{ code: string }>(
      'GET',
      `/aggregate/tasks?device=server&status=failed&cursor=${cursor}`,
    );
    assert.deepEqual([answer.status, answer.body.code], [400, 'bad_cursor']);
  });

  test('SQL is a text like any other, in every field that takes one', async () => {
    const task = {
      title: sql,
      description: sql,
      command: `: ${sql}`,
      input: { [sql]: sql },
      labels: ['sql'],
    };
    const id = await client.add(sql, task);
    const { body } = await client.ask<Task>('GET', `/tasks/${id}`);
    assert.deepEqual(
      [body.title, body.description, body.command, body.input],
      [sql, sql, `: ${sql}`, { [sql]: sql }],
    );
    for (const path of [
      `label=${encodeURIComponent(sql)}`,
      `created_after=${encodeURIComponent(sql)}`,
      `order=${encodeURIComponent(sql)}`,
    ])
      assert.notEqual((await client.ask('GET', `/aggregate/tasks?device=laptop&${path}`)).status, 500, path);
    const searched = await client.post(
      '/query',
      { query_type: 'search_tasks', params: { text: sql }, devices: ['laptop'] },
      AbortSignal.timeout(20_000),
    );
    assert.match(await searched.text(), new RegExp(`"result".*${id}`));
    assert.ok((await laptop.json<{ total: number }>('tasks', 'stats')).total >= 2);
  });
});

async function within<T>(promise: Promise<T>, failure: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(failure)), 20_000);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
