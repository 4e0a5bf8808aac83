/**
 * The tasks whose home is this device: answers a request about them, whoever asks. Rights were judged before; what
 * a task may be and do is decided here and in the store.
 */

import type { Task, TaskAnswer, TaskChange, TaskDraft, TaskRequest } from '@cocoon-mesh/protocol';
import { MeshError } from '@cocoon-mesh/protocol';
import type { TaskStore } from '@cocoon-mesh/tasks';
import type { TaskRunner } from '@cocoon-mesh/tasks/runner.node.ts';

export interface OpenTasks {
  readonly store: TaskStore;
  readonly runner: TaskRunner;
}

/** Where the store and the runner come from; they may be away. */
export interface TaskSource {
  /** @throws MeshError capability_off | storage_failed | … */
  use(): Promise<OpenTasks>;
}

export class TaskHome {
  readonly #source: TaskSource;

  constructor(source: TaskSource) {
    this.#source = source;
  }

  /**
   * @param by the PeerId of who asks
   * @throws MeshError task_not_found | task_conflict | bad_status_change | cannot_run | storage_failed | …
   */
  async *answer(
    request: TaskRequest,
    by: string,
    signal: AbortSignal,
  ): AsyncGenerator<TaskAnswer, void, undefined> {
    const tasks = await this.#source.use();
    if (request.op === 'logs') {
      const { id, offset, follow } = request;
      // Whoever asks for the log of a task that is not there learns it before anything else.
      await tasks.store.get(id);
      // The same bytes in a view of their own kind.
      for await (const piece of tasks.runner.logs(id, offset, { follow, signal }))
        yield { log: { offset: piece.offset, bytes: new Uint8Array(piece.bytes) } };
    } else yield await single(request, by, tasks);
  }
}

async function single(
  request: Exclude<TaskRequest, { op: 'logs' }>,
  by: string,
  { store, runner }: OpenTasks,
): Promise<TaskAnswer> {
  switch (request.op) {
    case 'create':
      return { task: await create(request.task, request.run ? by : null, { store, runner }) };
    case 'get':
      return { task: await store.get(request.id) };
    case 'update':
      return { task: await update(request.id, request.change, { store, runner }) };
    case 'delete':
      return { task: await remove(request.id, { store, runner }) };
    case 'run':
      return { task: await runner.run(await store.get(request.id), by) };
    case 'cancel':
      return { task: await runner.cancel(request.id) };
    case 'can_run':
      return { missing: (await runner.missing(request.requires)).map((why) => why.slice(0, 256)) };
  }
}

/** @param by who runs it at once; null: it waits */
async function create(draft: TaskDraft, by: string | null, { store, runner }: OpenTasks): Promise<Task> {
  // What would be refused a moment later is not made first.
  if (by !== null && !draft.command)
    throw new MeshError('bad_task', 'A task without a command cannot run', {
      hint: 'Give it a command, or leave out that it is to run.',
    });
  const missing = await runner.missing(draft.requires ?? []);
  if (missing.length > 0)
    throw new MeshError('cannot_run', `The task cannot run on this device. ${missing.join(' ')}`);
  if (by !== null) runner.checkCommand(draft.command ?? '');
  const task = await store.create(draft);
  return by === null ? task : runner.run(task, by);
}

/** Whether a command runs, and how it ends, is not said from outside. */
async function update(id: string, change: TaskChange, { store, runner }: OpenTasks): Promise<Task> {
  if (change.status === 'running' && (await store.get(id)).command)
    throw new MeshError('bad_status_change', 'A task with a command is running when its command is', {
      hint: `Run it with \`cocoon tasks run ${id}\`.`,
    });
  if (change.status !== undefined && runner.ended(id) !== null)
    throw new MeshError('bad_status_change', 'The task runs, and ends by itself', {
      hint: `Cancel it with \`cocoon tasks cancel ${id}\`.`,
    });
  return store.update(id, change);
}

/** One that runs is cancelled first, by whoever wants that. */
async function remove(id: string, { store, runner }: OpenTasks): Promise<Task> {
  const task = await store.get(id);
  await store.delete(id);
  await runner.forget(id);
  return task;
}
