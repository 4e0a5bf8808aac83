import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Mesh, ProvenPeer, Stream } from '@cocoon-mesh/mesh';
import { readMessages, resetCodeOf, writeMessage } from '@cocoon-mesh/mesh';
import type { Rights, TaskAnswer, TaskRequest } from '@cocoon-mesh/protocol';
import {
  MeshError,
  ResetCode,
  encode,
  maxTaskMessageBytes,
  memberRights,
  streamProtocols,
  taskAnswerSchema,
  taskRequestSchema,
  tasksOpenSchema,
} from '@cocoon-mesh/protocol';
import { sampleTask, sampleTaskRequests } from '@cocoon-mesh/protocol/sample-messages.ts';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { localStreamPair } from '../local-stream.ts';
import type { TaskHome } from './task-home.ts';
import { serveTasks } from './task-server.ts';

type Handler = Parameters<Mesh['handle']>[1];
type Answering = TaskHome['answer'];

const kinds = ['read', 'write', 'run'] as const;
type Kind = (typeof kinds)[number];
/** Written out, so that a change of the table in the protocol is seen here. */
const kindOf: Readonly<Record<TaskRequest['op'], Kind>> = {
  get: 'read',
  logs: 'read',
  can_run: 'read',
  create: 'run',
  update: 'write',
  delete: 'write',
  cancel: 'write',
  run: 'run',
};

const [creating] = sampleTaskRequests;
const reading: TaskRequest = { op: 'get', id: sampleTask.id };

async function* oneTask(): ReturnType<Answering> {
  yield { task: sampleTask };
}

interface Served {
  readonly clock: SteppedClock;
  readonly denied: string[];
  /** Requests that came as far as the tasks. */
  readonly reached: TaskRequest[];
  readonly open: (header: Uint8Array) => Stream;
  readonly ask: (verb: Kind, request: TaskRequest) => Promise<TaskAnswer[]>;
}

function serve(answer: Answering = oneTask, rights: Rights = memberRights): Served {
  const clock = new SteppedClock();
  const denied: string[] = [];
  const reached: TaskRequest[] = [];
  let handler: Handler | null = null;
  const home = {
    answer: (...given: Parameters<Answering>) => {
      reached.push(given[0]);
      return answer(...given);
    },
  } as TaskHome;
  serveTasks({
    mesh: { handle: (_protocol, given) => void (handler = given) },
    home,
    clock,
    log: () => undefined,
    denied: (_peer, { protocol, verb }) => denied.push(`${protocol} ${verb}`),
  });
  const open = (header: Uint8Array): Stream => {
    const [asking, serving] = localStreamPair(streamProtocols.tasks, header);
    // Only what the server looks at.
    handler?.(serving, { peerId: 'peer-1', name: 'asker', rights } as ProvenPeer);
    return asking;
  };
  const ask = async (verb: Kind, request: TaskRequest): Promise<TaskAnswer[]> => {
    const stream = open(headerFor(verb));
    await writeMessage(stream, taskRequestSchema, request, maxTaskMessageBytes);
    stream.end();
    return Array.fromAsync(readMessages(stream, taskAnswerSchema, maxTaskMessageBytes));
  };
  return { clock, denied, reached, open, ask };
}

function headerFor(verb: Kind): Uint8Array {
  return encode(tasksOpenSchema, { verb });
}

function codeIn([first]: readonly TaskAnswer[]): string | undefined {
  return first?.error?.code;
}

describe('a stream about tasks', () => {
  test('carries requests of the kind that it was opened for, and no other', async () => {
    for (const request of sampleTaskRequests)
      for (const kind of kinds) {
        const { ask, reached } = serve();
        const answers = await ask(kind, request);
        const fits = kindOf[request.op] === kind;
        assert.equal(codeIn(answers), fits ? undefined : 'bad_message', `${request.op} as ${kind}`);
        assert.equal(reached.length, fits ? 1 : 0, `${request.op} as ${kind}`);
      }
  });

  test('that was opened for making a task does not run it', async () => {
    assert.ok(creating?.op === 'create');
    const { ask, reached } = serve();
    assert.equal(codeIn(await ask('write', { ...creating, run: false })), undefined);
    assert.equal(codeIn(await ask('write', { ...creating, run: true })), 'bad_message');
    assert.equal(codeIn(await ask('run', { ...creating, run: false })), 'bad_message');
    assert.equal(reached.length, 1);
  });

  test('makes a task that runs at once only for who may also make one, and tells of who may not', async () => {
    assert.ok(creating?.op === 'create');
    const mayRun = memberRights.map((right) =>
      right.protocol === 'tasks' ? { ...right, verbs: ['read', 'run'] as const } : right,
    ) as typeof memberRights;
    const { ask, reached, denied } = serve(oneTask, mayRun);
    assert.equal(codeIn(await ask('run', creating)), 'denied');
    assert.deepEqual(reached, []);
    assert.deepEqual(denied, ['tasks write']);
    assert.equal(codeIn(await ask('run', { op: 'run', id: sampleTask.id })), undefined);
  });

  test('ends the work for whoever is gone', async () => {
    const started = Promise.withResolvers<AbortSignal>();
    const { open } = serve(async function* (_request, _by, signal) {
      started.resolve(signal);
      await new Promise((resolve) => signal.addEventListener('abort', resolve));
      yield { task: sampleTask };
    });
    const stream = open(headerFor('read'));
    await writeMessage(stream, taskRequestSchema, reading, maxTaskMessageBytes);
    stream.end();
    const signal = await started.promise;
    assert.equal(signal.aborted, false);
    stream.reset(ResetCode.cancel);
    assert.equal(signal.aborted, true);
  });

  test('answers an error whatever its length, so that the asker learns its code', async () => {
    const { ask } = serve(() => {
      throw new MeshError('storage_failed', 'x'.repeat(5000), { hint: 'y'.repeat(5000) });
    });
    const [answer] = await ask('read', reading);
    assert.equal(answer?.error?.code, 'storage_failed');
    assert.deepEqual([answer?.error?.message.length, answer?.error?.hint?.length], [1024, 512]);
  });

  test('is refused with a header or a message that is none', async () => {
    const { open, reached } = serve();
    const garbage = open(new Uint8Array([1, 2, 3]));
    const told = await Array.fromAsync(readMessages(garbage, taskAnswerSchema, maxTaskMessageBytes));
    assert.equal(codeIn(told), 'bad_message');
    const stream = open(headerFor('read'));
    stream.write(new Uint8Array([0, 0, 0, 3, 0xc1, 0xc1, 0xc1]));
    stream.end();
    const answers = await Array.fromAsync(readMessages(stream, taskAnswerSchema, maxTaskMessageBytes));
    assert.equal(codeIn(answers), 'bad_message');
    assert.deepEqual(reached, []);
  });

  test('that never brings its request is given up after thirty seconds', async () => {
    const { open, clock } = serve();
    const stream = open(headerFor('read'));
    const answers = Array.fromAsync(readMessages(stream, taskAnswerSchema, maxTaskMessageBytes)).then(
      codeIn,
      (thrown: unknown) => resetCodeOf(thrown),
    );
    clock.step(29_999);
    assert.equal(clock.pendingTimers, 1);
    clock.step(1);
    assert.equal(await answers, ResetCode.timeout);
  });
});
