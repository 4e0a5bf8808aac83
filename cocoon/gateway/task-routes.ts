/**
 * `/tasks`: tasks of this device, or of the one that `?device=` names. The gateway and the control socket answer
 * them alike.
 */

import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Device } from '@cocoon-mesh/mesh';
import type { Clock } from '@cocoon-mesh/protocol';
import {
  MeshError,
  deadline,
  limits,
  requirementField,
  taskChangeSchema,
  taskDraftSchema,
  taskIdField,
  toMeshError,
} from '@cocoon-mesh/protocol';
import * as z from 'zod/mini';
import type { Delegation } from '../tasks/delegation.ts';
import type { LogPiece, SingleTaskRequest, TaskService } from '../tasks/task-service.ts';
import type { TaskView } from '../tasks/task-view.ts';
import { taskView } from '../tasks/task-view.ts';
import { answerJson } from './answer.ts';
import { Parameters } from './parameters.ts';
import { readJsonBody } from './request-body.ts';

export interface TaskRoutes {
  readonly service: TaskService;
  readonly delegation: Delegation;
  readonly clock: Clock;
}

/** A session, perhaps an introduction first, and the answer of a busy device. */
const taskTimeoutMs = 30_000;
const maxLogOffset = Number.MAX_SAFE_INTEGER;

/** What `POST /tasks` takes. */
export const newTaskSchema = z.extend(taskDraftSchema, { run: z.optional(z.boolean()) });
const requirementsField = z.array(requirementField).check(z.maxLength(32));

/** What comes back for a task that is not there any more. */
type Deleted = TaskView & { readonly deleted: true };

/** @returns false: it is no route of these */
export async function answerTasks(
  request: IncomingMessage,
  response: ServerResponse,
  { path, query }: { path: string; query: URLSearchParams },
  routes: TaskRoutes,
): Promise<boolean> {
  const gone = new AbortController();
  response.on('close', () => gone.abort(new DOMException('The client is gone', 'AbortError')));
  const route = findRoute(request.method ?? '', path);
  if (!route) return false;
  await new TaskExchange(request, response, query, routes, gone.signal).answer(route);
  return true;
}

type Route =
  | { readonly kind: 'create' | 'hosts' }
  | { readonly kind: 'get' | 'update' | 'delete' | 'run' | 'cancel' | 'logs'; readonly id: string };

function findRoute(method: string, path: string): Route | null {
  if (path === '/tasks') return method === 'POST' ? { kind: 'create' } : null;
  if (path === '/tasks/hosts') return method === 'GET' ? { kind: 'hosts' } : null;
  const [, id, what = ''] = /^\/tasks\/([^/]+)(?:\/([a-z]+))?$/.exec(path) ?? [];
  const kinds = {
    'GET ': 'get',
    'PATCH ': 'update',
    'DELETE ': 'delete',
    'POST run': 'run',
    'POST cancel': 'cancel',
    'GET logs': 'logs',
  } as const;
  const key = `${method} ${what}`;
  if (id === undefined || !Object.hasOwn(kinds, key)) return null;
  return { kind: kinds[key as keyof typeof kinds], id };
}

class TaskExchange {
  readonly #request: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #query: URLSearchParams;
  readonly #routes: TaskRoutes;
  readonly #gone: AbortSignal;

  constructor(
    request: IncomingMessage,
    response: ServerResponse,
    query: URLSearchParams,
    routes: TaskRoutes,
    gone: AbortSignal,
  ) {
    this.#request = request;
    this.#response = response;
    this.#query = query;
    this.#routes = routes;
    this.#gone = gone;
  }

  async answer(route: Route): Promise<void> {
    switch (route.kind) {
      case 'create':
        return answerJson(this.#response, await this.#create(), 201);
      case 'hosts':
        return answerJson(this.#response, { devices: await this.#hosts() });
      case 'logs':
        return this.#logs(taskId(route.id));
      case 'update': {
        const id = taskId(route.id);
        const device = this.#device();
        const change = await readJsonBody(
          this.#request,
          taskChangeSchema,
          limits.maxTaskMessageBytes,
          'bad_task',
        );
        return this.#one(device, { op: 'update', id, change });
      }
      default:
        return this.#one(this.#device(), { op: route.kind, id: taskId(route.id) });
    }
  }

  async #one(device: Device, request: SingleTaskRequest) {
    const view = await this.#ask(device, request);
    const answered: TaskView | Deleted = request.op === 'delete' ? { ...view, deleted: true } : view;
    answerJson(this.#response, answered);
  }

  async #create(): Promise<TaskView> {
    const device = this.#device();
    const { run = false, ...task } = await readJsonBody(
      this.#request,
      newTaskSchema,
      limits.maxTaskMessageBytes,
      'bad_task',
    );
    try {
      return await this.#ask(device, { op: 'create', task, run });
    } catch (thrown) {
      if (!(thrown instanceof MeshError) || thrown.code !== 'cannot_run') throw thrown;
      throw await this.#routes.delegation.elsewhere(thrown, device, task.requires ?? [], this.#gone);
    }
  }

  async #hosts(): Promise<readonly string[]> {
    const parameters = new Parameters(this.#query, ['requires']);
    const requires = requirementsField.safeParse(parameters.all('requires'));
    if (!requires.success) throw new MeshError('usage', 'The parameter requires is a list of requirements');
    const hosts = await this.#routes.delegation.hosts(requires.data, this.#gone);
    return hosts.map(({ name }) => name);
  }

  async #ask(device: Device, request: SingleTaskRequest): Promise<TaskView> {
    const limit = deadline(this.#routes.clock, taskTimeoutMs);
    try {
      const signal = AbortSignal.any([limit.signal, this.#gone]);
      return taskView(await this.#routes.service.task(device, request, signal));
    } finally {
      limit.cancel();
    }
  }

  #device(): Device {
    return this.#routes.service.device(new Parameters(this.#query, ['device']).one('device'));
  }

  async #logs(id: string): Promise<void> {
    const parameters = new Parameters(this.#query, ['device', 'follow', 'offset']);
    const follow = parameters.flag('follow');
    const offset = parameters.number('offset', { from: 0, to: maxLogOffset }) ?? 0;
    const device = this.#routes.service.device(parameters.one('device'));
    // Errors that are known before the first piece have a status of their own.
    await this.#ask(device, { op: 'get', id });
    const lines = /\bapplication\/x-ndjson\b/.test(this.#request.headers.accept ?? '');
    this.#response.writeHead(200, {
      'content-type': lines ? 'application/x-ndjson' : 'text/plain; charset=utf-8',
      'cache-control': 'no-store',
      'x-content-type-options': 'nosniff',
    });
    this.#response.flushHeaders();
    const decoder = new TextDecoder();
    const pieces = this.#routes.service.logs(device, { op: 'logs', id, offset, follow }, this.#gone);
    try {
      for await (const piece of pieces) await this.#write(lines ? logLine(piece, decoder) : piece.bytes);
    } catch (thrown) {
      if (!lines) throw thrown;
      this.#response.write(`${JSON.stringify({ error: toMeshError(thrown) })}\n`);
    }
    this.#response.end();
  }

  /** Waits for a reader that is slower than the log. */
  async #write(data: string | Uint8Array): Promise<void> {
    const response = this.#response;
    if (response.write(data)) return;
    await new Promise<void>((resolve) => {
      const done = (): void => {
        response.off('drain', done);
        response.off('close', done);
        resolve();
      };
      response.on('drain', done);
      response.on('close', done);
    });
  }
}

/** A character may be cut by the end of a piece; the rest of it comes with the next one. */
function logLine({ bytes, offset }: LogPiece, decoder: InstanceType<typeof TextDecoder>): string {
  return `${JSON.stringify({ offset, log: decoder.decode(bytes, { stream: true }) })}\n`;
}

/** @throws MeshError usage */
function taskId(text: string): string {
  const id = taskIdField.safeParse(text.toLowerCase());
  if (id.success) return id.data;
  throw new MeshError('usage', `${JSON.stringify(text.slice(0, 64))} is not the id of a task`, {
    hint: 'Ids of tasks are UUIDs (version 7); `cocoon tasks list` shows them.',
  });
}
