/**
 * How commands speak to the running daemon: HTTP over its control socket, which only the user can open. Nothing
 * is sent to a TCP port, so no other program can pose as the daemon.
 */

import { once } from 'node:events';
import type { ClientRequest, IncomingMessage, OutgoingHttpHeaders } from 'node:http';
import { request as openRequest } from 'node:http';
import { createInterface } from 'node:readline';
import { MeshError, isErrorCode } from '@cocoon-mesh/protocol/errors.ts';
import { limits } from '@cocoon-mesh/protocol/limits.ts';
import type { Home } from '../home.ts';
import { systemCode } from '../key-file.ts';
import { assertOwnFolder, controlSocketPath } from './socket-path.ts';

/** The daemon marks errors of its own with it, so that they differ from whatever a service answers. */
export const errorHeader = 'cocoon-error';

export interface ControlRequest {
  readonly method?: string;
  readonly headers?: OutgoingHttpHeaders | readonly string[];
  readonly signal?: AbortSignal;
}

/** What `askLong` is told: on the way, and at the end. */
export interface LongAnswer {
  readonly progress: unknown;
  readonly answer: unknown;
}

type LongLine<Told extends LongAnswer> =
  Pick<Told, 'progress'> | Pick<Told, 'answer'> | { readonly error: ToldError };

const notThere: ReadonlySet<string> = new Set(['ENOENT', 'ECONNREFUSED', 'ENOTDIR', 'EACCES']);

export class ControlClient {
  readonly #home: Home;
  readonly #path: string;

  constructor(home: Home) {
    this.#home = home;
    this.#path = controlSocketPath(home);
  }

  /** One question, one answer. @throws MeshError not_running, and whatever the daemon answers */
  async ask<T>(method: string, path: string, body?: unknown): Promise<T> {
    const request = await this.open(path, { method, headers: { 'content-type': 'application/json' } });
    const response = await this.send(request, body === undefined ? '' : JSON.stringify(body));
    return JSON.parse(await text(response)) as T;
  }

  /** As `ask`, of what takes a while: told meanwhile how far it is. @throws as `ask` */
  async askLong<Told extends LongAnswer>(
    path: string,
    body: unknown,
    onProgress: (progress: Told['progress']) => void,
  ): Promise<Told['answer']> {
    const headers = { 'content-type': 'application/json' };
    const response = await this.send(
      await this.open(path, { method: 'POST', headers }),
      JSON.stringify(body),
    );
    for await (const text of createInterface({ input: response })) {
      const line = JSON.parse(text) as LongLine<Told>;
      if ('progress' in line) onProgress(line.progress);
      else if ('answer' in line) return line.answer;
      else throw toldError(line.error);
    }
    throw new MeshError('internal', 'The cocoon broke off its answer');
  }

  /** Answers that come line by line until the daemon ends them. The request's body stays open. */
  async *lines<T>(request: ClientRequest): AsyncGenerator<T> {
    request.flushHeaders();
    const response = await this.#answered(request);
    for await (const line of createInterface({ input: response })) yield JSON.parse(line) as T;
  }

  /** A request whose body the caller writes. */
  async open(
    path: string,
    { method = 'GET', headers = {}, signal }: ControlRequest = {},
  ): Promise<ClientRequest> {
    await assertOwnFolder(this.#path).catch((thrown: unknown) => {
      if (thrown instanceof MeshError) throw thrown;
    });
    return openRequest({
      socketPath: this.#path,
      path,
      method,
      headers: Array.isArray(headers)
        ? ['Host', 'cocoon', ...headers]
        : { host: 'cocoon', ...(headers as OutgoingHttpHeaders) },
      agent: false,
      maxHeaderSize: 2 * limits.maxHttpHeadBytes,
      ...(signal ? { signal } : {}),
    });
  }

  /** Ends the request with this body. @throws as `ask` */
  async send(request: ClientRequest, body: string): Promise<IncomingMessage> {
    request.end(body);
    return this.#answered(request);
  }

  /** The head of the answer. @throws as `ask` */
  async answer(request: ClientRequest): Promise<IncomingMessage> {
    return this.#answered(request);
  }

  async #answered(request: ClientRequest): Promise<IncomingMessage> {
    let response: IncomingMessage;
    try {
      [response] = (await once(request, 'response')) as [IncomingMessage];
    } catch (cause) {
      throw this.#failure(cause);
    }
    // What still goes wrong is seen by whoever reads the answer or writes the body.
    request.on('error', () => undefined);
    if (response.headers[errorHeader] === undefined) return response;
    throw problem(await text(response));
  }

  #failure(cause: unknown): MeshError {
    if (cause instanceof Error && cause.name === 'AbortError')
      return new MeshError('cancelled', undefined, { cause });
    if (notThere.has(systemCode(cause)))
      return new MeshError('not_running', `No cocoon is running with the home ${this.#home.path}`, {
        cause,
        hint: 'Start one with `cocoon up` or `cocoon run`, or name another --home.',
      });
    return new MeshError('internal', 'The cocoon broke off the connection', { cause });
  }
}

async function text(response: IncomingMessage): Promise<string> {
  let all = '';
  response.setEncoding('utf8');
  for await (const chunk of response) all += String(chunk);
  return all;
}

function problem(body: string): MeshError {
  const { code, title, hint } = JSON.parse(body) as { code?: unknown; title?: string; hint?: string };
  return toldError({ code, message: title, hint });
}

interface ToldError {
  readonly code?: unknown;
  readonly message?: string | undefined;
  readonly hint?: string | undefined;
}

/** An error that the daemon told in a line. */
export function toldError({ code, message, hint }: ToldError): MeshError {
  return new MeshError(isErrorCode(code) ? code : 'internal', message, hint === undefined ? {} : { hint });
}
