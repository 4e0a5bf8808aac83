/** A store in memory and a device without anything, for tests of the runner. */

import { randomBytes } from 'node:crypto';
import type { Task } from '@cocoon-mesh/protocol';
import { MeshError, nextStatuses } from '@cocoon-mesh/protocol';
import type { DeviceFacts } from './requirements.ts';
import type { RunnableTasks } from './runner.node.ts';
import type { RunEnd } from './task-store.node.ts';

export const noFacts: DeviceFacts = {
  missingDocker: () => Promise.resolve('It has neither docker nor podman.'),
  hasGpu: () => Promise.resolve(false),
  memoryBytes: 4e9,
  cpus: 2,
  labels: ['fast'],
  hasCapability: (protocol) => protocol === 'llm.chat',
};

export function newTask(more: Partial<Task> = {}): Task {
  const hex = randomBytes(12).toString('hex');
  const id = `0190${hex.slice(0, 4)}-${hex.slice(4, 8)}-7${hex.slice(8, 11)}-8${hex.slice(11, 14)}-${hex.slice(12)}`;
  const now = '2026-01-01T00:00:00.000Z';
  return {
    id,
    title: 'a task',
    status: 'pending',
    command: 'true',
    labels: [],
    requires: [],
    exit_code: null,
    error: null,
    created_at: now,
    updated_at: now,
    started_at: null,
    finished_at: null,
    version: 1,
    description: '',
    input: null,
    output: null,
    timeout_ms: null,
    ...more,
  };
}

export class TasksInMemory implements RunnableTasks {
  readonly #tasks = new Map<string, Task>();
  /** Thrown by every call while it is set: the database is gone. */
  outage: Error | null = null;
  /** Ids in the order of their claims. */
  readonly claims: string[] = [];

  add(task: Task): Task {
    this.#tasks.set(task.id, task);
    return task;
  }

  get(id: string): Task {
    const task = this.#tasks.get(id);
    if (!task) throw new MeshError('task_not_found');
    return task;
  }

  async claimForRun(id: string): Promise<Task> {
    await this.#answer();
    const task = this.#change(id, { status: 'running' });
    this.claims.push(id);
    return task;
  }

  async finishRun(id: string, { status, exitCode, error, output }: RunEnd): Promise<Task> {
    await this.#answer();
    if (this.get(id).status !== 'running') throw new MeshError('bad_status_change');
    return this.#change(id, { status, exit_code: exitCode, error, output });
  }

  async update(id: string, { status }: { status: 'cancelled' }): Promise<Task> {
    await this.#answer();
    return this.#change(id, { status });
  }

  async running(): Promise<Task[]> {
    await this.#answer();
    return [...this.#tasks.values()].filter(({ status, command }) => status === 'running' && command);
  }

  async #answer(): Promise<void> {
    await Promise.resolve();
    if (this.outage) throw this.outage;
  }

  #change(id: string, change: Partial<Task> & Pick<Task, 'status'>): Task {
    const task = this.get(id);
    if (!nextStatuses[task.status].includes(change.status)) throw new MeshError('bad_status_change');
    const changed = { ...task, ...change, version: task.version + 1 };
    this.#tasks.set(id, changed);
    return changed;
  }
}
