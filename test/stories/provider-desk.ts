/**
 * Providers whose every answer a story writes itself: plugins of installed cocoons that pass what they are asked to a
 * server of the test and say what it says. They are as fast, as busy and as reliable as the story wants.
 */

import { EventEmitter, once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';

const patienceMs = 20_000;

export interface Offered {
  readonly protocol: string;
  readonly version: string;
  /** Requests at once. */
  readonly limit?: number;
  readonly streams?: boolean;
  readonly features?: readonly string[];
}

/** One request, as it came to a plugin. */
export interface Call {
  readonly device: string;
  readonly protocol: string;
  readonly version: string;
  readonly payload: unknown;
  readonly session: string | null;
  /** The plugin was told to stop, or is gone itself. */
  readonly gone: AbortSignal;
  chunk(value: unknown): void;
  end(value?: unknown): void;
  /** One of the codes that plugins may say; any other makes it throw. */
  fail(code: string): void;
}

const modelList = JSON.stringify({ object: 'list', data: [{ id: 'small', object: 'model' }] });

type Behaviour = (call: Call) => void;

/** Says who it is. */
const obliging: Behaviour = (call) =>
  call.end({ device: call.device, version: call.version, payload: call.payload });

export class ProviderDesk implements AsyncDisposable {
  readonly calls: Call[] = [];
  /** Of the plugins, by device. */
  readonly folder: string;
  readonly #server: Server;
  readonly #came = new EventEmitter();
  readonly #behaviours = new Map<string, Behaviour>();

  private constructor(server: Server, folder: string) {
    this.#server = server;
    this.folder = folder;
    server.on('request', (request, response) => void this.#take(request, response));
  }

  static async start(): Promise<ProviderDesk> {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    return new ProviderDesk(server, await mkdtemp(join(tmpdir(), 'cocoon-desk-')));
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** A folder for `--plugin`. */
  async plugin(device: string, capabilities: readonly Offered[]): Promise<string> {
    const folder = join(this.folder, device);
    await mkdir(folder, { mode: 0o700 });
    const offered = capabilities.map(({ streams, ...capability }) =>
      streams === true ? { ...capability, chunk: true } : capability,
    );
    const cocoon = { capabilities: offered };
    const manifest = { name: `of-${device}`, version: '1.0.0', type: 'module', main: 'plugin.ts', cocoon };
    await writeFile(join(folder, 'package.json'), JSON.stringify(manifest));
    await writeFile(join(folder, 'plugin.ts'), pluginText(`${this.url}/${device}`, capabilities));
    return folder;
  }

  /** What a device answers from now on; without a behaviour it is obliging. */
  when(device: string, behaviour: Behaviour = obliging): void {
    this.#behaviours.set(device, behaviour);
  }

  /** Requests are kept waiting until they are answered here. @returns those that came since */
  hold(...devices: readonly string[]): Call[] {
    const held: Call[] = [];
    for (const device of devices) this.when(device, (call) => held.push(call));
    return held;
  }

  /** Resolves when what is asked for holds, looked at with each request that comes. */
  async until(holds: () => boolean): Promise<void> {
    const limit = AbortSignal.timeout(patienceMs);
    while (!holds()) await once(this.#came, 'call', { signal: limit });
  }

  async #take(request: IncomingMessage, response: ServerResponse): Promise<void> {
    // Whoever looks for an OpenAI-compatible server here finds one with a model.
    if (request.method === 'GET') return void response.end(modelList);
    const [device = '', protocol = '', version = ''] = (request.url ?? '').slice(1).split('/');
    const { payload, session } = JSON.parse(await text(request)) as Pick<Call, 'payload' | 'session'>;
    const gone = new AbortController();
    response.on('close', () => {
      if (!response.writableFinished) gone.abort();
    });
    const say = (line: object): boolean => response.write(`${JSON.stringify(line)}\n`);
    const call: Call = {
      device,
      protocol,
      version,
      payload,
      session,
      gone: gone.signal,
      chunk: (value) => say({ chunk: value }),
      end: (value = null) => response.end(JSON.stringify({ end: value })),
      fail: (code) => response.end(JSON.stringify({ fail: code })),
    };
    this.calls.push(call);
    (this.#behaviours.get(device) ?? obliging)(call);
    this.#came.emit('call');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
    this.#server.closeAllConnections();
    await rm(this.folder, { recursive: true, force: true });
  }
}

/** Resolves when it has happened. */
export async function aborted(signal: AbortSignal): Promise<void> {
  if (!signal.aborted) await once(signal, 'abort', { signal: AbortSignal.timeout(patienceMs) });
}

function pluginText(url: string, capabilities: readonly Offered[]): string {
  const handlers = capabilities.map(({ protocol, version, streams }) => {
    const key = `${protocol}/${version}`;
    return `'${protocol}@${version}': { handle: (payload, context) => ${streams === true ? 'asked' : 'whole'}('${key}', payload, context) },`;
  });
  return `
    import { createInterface } from 'node:readline';
    import { Readable } from 'node:stream';
    import { definePlugin, PluginError } from 'cocoon/plugin';
    import type { Json, RequestContext } from 'cocoon/plugin';

    async function* asked(key: string, payload: Json, { signal, session }: RequestContext) {
      const body = JSON.stringify({ payload, session });
      const response = await fetch('${url}/' + key, { method: 'POST', body, signal });
      for await (const line of createInterface({ input: Readable.fromWeb(response.body) })) {
        const said = JSON.parse(line);
        if ('chunk' in said) yield said.chunk;
        else if ('end' in said) return said.end;
        else throw new PluginError(said.fail, 'The story says so');
      }
    }

    async function whole(key: string, payload: Json, context: RequestContext) {
      return (await asked(key, payload, context).next()).value;
    }

    export default definePlugin({ capabilities: { ${handlers.join('\n')} } });
  `;
}
