import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Device, Mesh, Stream } from '@cocoon-mesh/mesh';
import { readSingleMessage, writeMessage } from '@cocoon-mesh/mesh';
import type { TaskAnswer, TaskRequest } from '@cocoon-mesh/protocol';
import {
  maxTaskMessageBytes,
  neededRight,
  streamProtocols,
  systemClock,
  taskAnswerSchema,
  taskRequestSchema,
} from '@cocoon-mesh/protocol';
import { sampleTask } from '@cocoon-mesh/protocol/sample-messages.ts';
import { localStreamPair } from '../local-stream.ts';
import type { TaskHome } from './task-home.ts';
import { TaskService } from './task-service.ts';

const other = { peerId: 'peer-2', name: 'server', self: false } as Device;
const { signal } = new AbortController();
const logs = { op: 'logs', id: sampleTask.id, offset: 0, follow: true } as const;

interface Asked {
  readonly service: TaskService;
  /** The other device's end of the stream, with the request read from it. */
  readonly served: Promise<{ readonly stream: Stream; readonly request: TaskRequest }>;
  readonly answer: (...answers: readonly TaskAnswer[]) => Promise<Stream>;
}

function asking(): Asked {
  const served = Promise.withResolvers<{ stream: Stream; request: TaskRequest }>();
  const mesh: Pick<Mesh, 'openStream'> = {
    openStream: async (_peerId, protocol, header) => {
      const [near, far] = localStreamPair(protocol, header);
      const patience = { clock: systemClock, ms: 10_000 };
      void readSingleMessage(far, taskRequestSchema, maxTaskMessageBytes, patience).then(
        (request) => served.resolve({ stream: far, request }),
        served.reject,
      );
      return near;
    },
  };
  // Only what a question to another device needs.
  const service = new TaskService(mesh as Mesh, {} as TaskHome);
  const answer = async (...answers: readonly TaskAnswer[]): Promise<Stream> => {
    const { stream } = await served.promise;
    for (const each of answers) await writeMessage(stream, taskAnswerSchema, each, maxTaskMessageBytes);
    return stream;
  };
  return { service, served: served.promise, answer };
}

describe('a request about another device’s tasks', () => {
  test('shows the right that it takes, and a task that runs at once takes the right to run', async () => {
    const requests = [
      [{ op: 'get', id: sampleTask.id }, 'read'],
      [{ op: 'delete', id: sampleTask.id }, 'write'],
      [{ op: 'create', task: { title: 'x' }, run: false }, 'write'],
      [{ op: 'create', task: { title: 'x' }, run: true }, 'run'],
      [{ op: 'run', id: sampleTask.id }, 'run'],
    ] as const;
    for (const [request, verb] of requests) {
      const { service, served, answer } = asking();
      const placed = service.task(other, request, signal);
      const { stream } = await served;
      assert.equal(neededRight(streamProtocols.tasks, stream.header)?.verb, verb, request.op);
      (await answer({ task: sampleTask })).end();
      assert.deepEqual((await placed).task, sampleTask);
    }
  });

  test('that is given up is given up there, too', { timeout: 10_000 }, async () => {
    const { service, served } = asking();
    const given = new AbortController();
    const piece = service.logs(other, logs, given.signal).next();
    const { stream } = await served;
    assert.equal(stream.signal.aborted, false);
    given.abort();
    assert.equal(stream.signal.aborted, true);
    await assert.rejects(piece, { code: 'cancelled' });
  });

  test('whose answer is left in the middle ends there, too', async () => {
    const { service, answer } = asking();
    const pieces = service.logs(other, logs, signal);
    const next = pieces.next();
    const stream = await answer({ log: { offset: 0, bytes: new Uint8Array([1]) } });
    assert.deepEqual((await next).value?.bytes, new Uint8Array([1]));
    await pieces.return(undefined);
    assert.equal(stream.signal.aborted, true);
  });

  test('is not answered by nothing, or by something else', async () => {
    const empty = asking();
    const none = empty.service.task(other, { op: 'get', id: sampleTask.id }, signal);
    (await empty.answer()).end();
    await assert.rejects(none, { code: 'bad_message' });
    const strange = asking();
    const wrong = strange.service.task(other, { op: 'get', id: sampleTask.id }, signal);
    (await strange.answer({ missing: [] })).end();
    await assert.rejects(wrong, { code: 'bad_message' });
  });
});
