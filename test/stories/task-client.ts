/** Tasks of an installed daemon, through its gateway as a program uses it. */

import type { DeviceAnswer, Task } from '@cocoon-mesh/protocol';
import type { CocoonProcess } from './cocoon-process.ts';

export interface Listed {
  readonly tasks: readonly (Task & { readonly device: string })[];
  readonly devices: readonly DeviceAnswer[];
  readonly partial: boolean;
  readonly next_cursor: string | null;
}

export interface Answer<Body> {
  readonly status: number;
  readonly body: Body;
}

export class TaskClient {
  readonly #cocoon: CocoonProcess;

  constructor(cocoon: CocoonProcess) {
    this.#cocoon = cocoon;
  }

  async post(path: string, body: unknown, signal: AbortSignal): Promise<Response> {
    return this.#send('POST', path, body, signal);
  }

  async ask<Body>(method: string, path: string, body?: unknown): Promise<Answer<Body>> {
    const response = await this.#send(method, path, body, AbortSignal.timeout(60_000));
    return { status: response.status, body: (await response.json()) as Body };
  }

  /** The id; throws with what was said instead. */
  async add(title: string, more: object = {}): Promise<string> {
    const { status, body } = await this.ask<Task>('POST', '/tasks', { title, ...more });
    if (status !== 201) throw new Error(`The task was refused: ${JSON.stringify(body)}`);
    return body.id;
  }

  /** `count` of them, eight at a time. */
  async addMany(count: number, title: (i: number) => string): Promise<string[]> {
    const ids: string[] = [];
    let next = 0;
    const worker = async (): Promise<void> => {
      for (let i = next++; i < count; i = next++) ids[i] = await this.add(title(i));
    };
    await Promise.all(Array.from({ length: 8 }, worker));
    return ids;
  }

  async list(query = ''): Promise<Listed> {
    const { status, body } = await this.ask<Listed>('GET', `/aggregate/tasks${query}`);
    if (status !== 200) throw new Error(`The list was refused: ${JSON.stringify(body)}`);
    return body;
  }

  /** Ids of every page. @param between done after each page */
  async pages(query: string, between: () => Promise<void> = async () => undefined): Promise<string[]> {
    const ids: string[] = [];
    for (let cursor: string | null = null, first = true; first || cursor !== null; first = false) {
      const page = await this.list(`?${query}${cursor === null ? '' : `&cursor=${cursor}`}`);
      ids.push(...page.tasks.map(({ id }) => id));
      cursor = page.next_cursor;
      await between();
    }
    return ids;
  }

  async #send(method: string, path: string, body: unknown, signal: AbortSignal): Promise<Response> {
    return fetch(`${this.#cocoon.gateway}${path}`, {
      method,
      headers: { authorization: `Bearer ${await this.#cocoon.gatewayToken()}` },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      signal,
    });
  }
}
