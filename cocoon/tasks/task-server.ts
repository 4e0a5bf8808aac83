/**
 * `/cocoon/tasks/1` of this device. That the peer has the right which the stream's header names was judged when the
 * stream was opened; here each request is held to that header.
 */

import type { Mesh, ProvenPeer, Stream } from '@cocoon-mesh/mesh';
import { readSingleMessage, writeMessage } from '@cocoon-mesh/mesh';
import type { Clock, TaskAnswer, TaskRequest, Verb } from '@cocoon-mesh/protocol';
import {
  MeshError,
  ResetCode,
  allows,
  decode,
  limits,
  maxTaskMessageBytes,
  streamProtocols,
  taskAnswerSchema,
  taskRequestSchema,
  taskVerbs,
  tasksOpenSchema,
  toMeshError,
} from '@cocoon-mesh/protocol';
import type { TaskHome } from './task-home.ts';
import type { Denied } from '../reach.ts';

/** A request is at hand when its stream is opened; 3 MiB on a slow line take a while. */
const requestLimitMs = 30_000;

export interface TaskServerOptions {
  readonly mesh: Pick<Mesh, 'handle'>;
  readonly home: TaskHome;
  readonly clock: Clock;
  readonly log: (level: 'debug' | 'info' | 'warn', message: string, fields?: Record<string, unknown>) => void;
  readonly denied: Denied;
}

export function serveTasks(options: TaskServerOptions): void {
  options.mesh.handle(streamProtocols.tasks, (stream, peer) => void serve(stream, peer, options));
}

async function serve(stream: Stream, peer: ProvenPeer, options: TaskServerOptions): Promise<void> {
  const { home, clock, log, denied } = options;
  try {
    const { verb } = decode(tasksOpenSchema, stream.header, limits.maxOpenHeaderBytes);
    const patience = { clock, ms: requestLimitMs };
    const request = await readSingleMessage(stream, taskRequestSchema, maxTaskMessageBytes, patience);
    assertRight(request, verb, peer, denied);
    log('debug', 'A peer asked about tasks', { peer: peer.peerId, op: request.op });
    for await (const answer of home.answer(request, peer.peerId, stream.signal)) await send(stream, answer);
    stream.end();
  } catch (thrown) {
    await refuse(stream, toMeshError(thrown));
  }
}

/** The verb that a request takes: making a task that runs at once is running it. */
export function verbOf(request: TaskRequest): 'read' | 'write' | 'run' {
  return request.op === 'create' && request.run ? 'run' : taskVerbs[request.op];
}

/** @throws MeshError bad_message | denied */
function assertRight(request: TaskRequest, verb: Verb, peer: ProvenPeer, denied: Denied): void {
  if (verbOf(request) !== verb)
    throw new MeshError('bad_message', `A stream for ${verb} cannot ${request.op} a task`);
  // Running a new task is also making one.
  if (request.op !== 'create' || allows(peer.rights, 'tasks', 'write', null)) return;
  denied(peer, { protocol: 'tasks', verb: 'write', name: null });
  throw new MeshError('denied');
}

async function send(stream: Stream, answer: TaskAnswer): Promise<void> {
  await writeMessage(stream, taskAnswerSchema, answer, maxTaskMessageBytes);
}

async function refuse(stream: Stream, error: MeshError): Promise<void> {
  if (stream.signal.aborted) return;
  const { code, message, hint } = error;
  try {
    const described = { code, message: message.slice(0, 1024), hint: hint.slice(0, 512) };
    await send(stream, { error: described });
    stream.end();
  } catch {
    stream.reset(ResetCode.internal);
  }
}
