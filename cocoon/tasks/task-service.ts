/** Tasks for this device's user: those at home, and those of another device through the mesh. */

import type { Device, Mesh, Stream } from '@cocoon-mesh/mesh';
import { readMessages, writeMessage } from '@cocoon-mesh/mesh';
import type { Task, TaskAnswer, TaskRequest } from '@cocoon-mesh/protocol';
import {
  MeshError,
  ResetCode,
  encode,
  maxTaskMessageBytes,
  streamProtocols,
  taskAnswerSchema,
  taskRequestSchema,
  tasksOpenSchema,
} from '@cocoon-mesh/protocol';
import { answeredError, streamError } from '../stream-error.ts';
import type { TaskHome } from './task-home.ts';
import { verbOf } from './task-server.ts';

export type SingleTaskRequest = Exclude<TaskRequest, { op: 'logs' | 'can_run' }>;
export type LogRequest = Extract<TaskRequest, { op: 'logs' }>;

/** A task, and whose it is. */
export interface PlacedTask {
  readonly device: Device;
  readonly task: Task;
}

export interface LogPiece {
  readonly bytes: Uint8Array;
  readonly offset: number;
}

export class TaskService {
  readonly #mesh: Mesh;
  readonly #home: TaskHome;

  constructor(mesh: Mesh, home: TaskHome) {
    this.#mesh = mesh;
    this.#home = home;
  }

  /** By name or PeerId; null is this device. @throws MeshError device_not_found | name_changed */
  device(named: string | null): Device {
    return this.#mesh.resolve(named ?? this.#mesh.peerId);
  }

  /** @throws MeshError task_not_found | device_offline | denied | … */
  async task(device: Device, request: SingleTaskRequest, signal: AbortSignal): Promise<PlacedTask> {
    const { task } = await this.#single(device, request, signal);
    if (!task) throw new MeshError('bad_message', `${device.name} answered without the task`);
    return { device, task };
  }

  /** What it lacks to run a task. @throws MeshError as `task` */
  async missing(
    device: Device,
    requires: readonly string[],
    signal: AbortSignal,
  ): Promise<readonly string[]> {
    const request: TaskRequest = { op: 'can_run', requires: [...requires] };
    return (await this.#single(device, request, signal)).missing ?? [];
  }

  /** Until the end of the log, or of the task when it is followed. @throws MeshError as `task` */
  async *logs(device: Device, request: LogRequest, signal: AbortSignal): AsyncGenerator<LogPiece> {
    for await (const { log } of this.#ask(device, request, signal)) if (log) yield log;
  }

  async #single(device: Device, request: TaskRequest, signal: AbortSignal): Promise<TaskAnswer> {
    for await (const answer of this.#ask(device, request, signal)) return answer;
    throw new MeshError('bad_message', `${device.name} did not answer`);
  }

  #ask(device: Device, request: TaskRequest, signal: AbortSignal): AsyncIterable<TaskAnswer> {
    return device.self
      ? this.#home.answer(request, device.peerId, signal)
      : this.#askOther(device, request, signal);
  }

  async *#askOther(
    { peerId, name }: Device,
    request: TaskRequest,
    signal: AbortSignal,
  ): AsyncGenerator<TaskAnswer> {
    const header = encode(tasksOpenSchema, { verb: verbOf(request) });
    let stream: Stream | null = null;
    let whole = false;
    const cut = (): void => stream?.reset(ResetCode.cancel);
    try {
      stream = await this.#mesh.openStream(peerId, streamProtocols.tasks, header, signal);
      signal.addEventListener('abort', cut);
      signal.throwIfAborted();
      await writeMessage(stream, taskRequestSchema, request, maxTaskMessageBytes);
      stream.end();
      for await (const answer of readMessages(stream, taskAnswerSchema, maxTaskMessageBytes)) {
        if (answer.error) throw answeredError(answer.error);
        yield answer;
      }
      whole = true;
    } catch (thrown) {
      throw withNextStep(streamError(thrown, name, signal), request);
    } finally {
      signal.removeEventListener('abort', cut);
      if (!whole) cut();
    }
  }
}

/** What others may run is switched on at the device itself, which no other error says. */
function withNextStep(error: MeshError, request: TaskRequest): MeshError {
  if (error.code !== 'denied' || verbOf(request) !== 'run') return error;
  return new MeshError('denied', error.message, {
    cause: error,
    hint: 'Its user says who else may run tasks there, with remote_tasks in its config.toml.',
  });
}
