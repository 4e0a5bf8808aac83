/** A plugin that was loaded, and the requests it works on. Runs in the plugin's process; knows no sockets. */

import type { Content } from '@cocoon-mesh/capabilities';
import type { Json } from '@cocoon-mesh/protocol';
import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import type { JsonLike, Plugin, PluginContext, RequestContext } from '../plugin-api.ts';
import { isContent, isRanked, pluginErrorCodes } from '../plugin-api.ts';
import type { FromPlugin, ToPlugin } from '../plugin-messages.ts';
import type { SchemaCheck } from '../schema-check.ts';
import { SendCredit } from '../send-credit.ts';
import { plainJson } from './plain-json.ts';

type Request = ToPlugin & { kind: 'request' };
export type Served = (ToPlugin & { kind: 'start' })['capabilities'][number];

/** Checks of a capability; null: whatever it is. */
export interface ServedChecks {
  readonly payload: SchemaCheck | null;
  readonly answer: SchemaCheck | null;
  readonly chunk: SchemaCheck | null;
}

export interface PluginRuntimeOptions {
  readonly plugin: Plugin;
  readonly served: readonly (Served & { readonly checks: ServedChecks })[];
  readonly context: PluginContext;
  /** @returns bytes of the message. @throws MeshError bad_message | message_too_large */
  readonly send: (message: FromPlugin) => number;
}

interface Running {
  readonly controller: AbortController;
  readonly credit: SendCredit;
}

export class PluginRuntime {
  readonly #options: PluginRuntimeOptions;
  readonly #running = new Map<number, Running>();

  constructor(options: PluginRuntimeOptions) {
    this.#options = options;
  }

  request(request: Request): void {
    void this.#serve(request);
  }

  cancel(id: number, reason: MeshError): void {
    this.#running.get(id)?.controller.abort(reason);
  }

  cancelAll(): void {
    for (const { controller } of this.#running.values()) controller.abort(new MeshError('shutting_down'));
  }

  grant(id: number, bytes: number): void {
    this.#running.get(id)?.credit.grant(bytes);
  }

  async #serve(request: Request): Promise<void> {
    const { send } = this.#options;
    const { id } = request;
    const running = { controller: new AbortController(), credit: new SendCredit(request.window) };
    this.#running.set(id, running);
    try {
      const end =
        request.target.kind === 'query'
          ? await this.#query(request, running)
          : await this.#capability(request, running);
      send({ kind: 'end', id, ...end });
    } catch (thrown) {
      send({ kind: 'error', id, ...errorOf(thrown) });
    } finally {
      this.#running.delete(id);
    }
  }

  async #capability(request: Request, running: Running): Promise<PlainContent> {
    const { plugin, served } = this.#options;
    const { target, payload } = request;
    const found = served.find((one) => target.kind === 'capability' && isSame(one, target));
    const handler = found && handlerOf(plugin, found);
    if (!found || !handler) throw new MeshError('unsupported', 'The plugin offers no such capability');
    const { checks, protocol, version } = found;
    const wrong = checks.payload?.problem(payload) ?? null;
    if (wrong !== null) throw new MeshError('bad_payload', `The payload of ${protocol}: ${wrong}`);
    const answer = await handler.handle(payload, this.#requestContext(request, running));
    if (!isStream(answer)) return checked(answer, checks.answer, `The answer of ${protocol} ${version}`);
    if (!found.streams)
      throw new MeshError(
        'bad_answer',
        `${protocol} ${version} answered with a stream, and its manifest has an \`answer\` and no \`chunk\``,
      );
    const last = await this.#stream(request.id, answer, running, (chunk) =>
      checked(chunk, checks.chunk, `A chunk of ${protocol} ${version}`),
    );
    if (last === undefined) return { payload: null, parts: [] };
    return checked(last, checks.answer, `The answer of ${protocol} ${version}`);
  }

  async #query(request: Request, running: Running): Promise<PlainContent> {
    const { plugin, context } = this.#options;
    const { target, payload, from } = request;
    const name = target.kind === 'query' ? target.name : '';
    const queries = plugin.queries ?? {};
    const handle = Object.hasOwn(queries, name) ? queries[name] : undefined;
    if (!handle) throw new MeshError('unsupported', 'The plugin answers no such query');
    const params = typeof payload === 'object' && payload !== null && !Array.isArray(payload) ? payload : {};
    const answer = await handle(params as { readonly [key: string]: Json }, {
      ...context,
      signal: running.controller.signal,
      from,
    });
    await this.#stream(request.id, isStream(answer) ? answer : listed(answer), running, rowOf);
    return { payload: null, parts: [] };
  }

  /** @returns the iterable's return value */
  async #stream(
    id: number,
    values: AsyncIterable<JsonLike>,
    { controller, credit }: Running,
    contentOf: (value: JsonLike) => PlainContent,
  ): Promise<JsonLike> {
    const { signal } = controller;
    const iterator = values[Symbol.asyncIterator]() as AsyncIterator<JsonLike, JsonLike>;
    let over = false;
    try {
      for (;;) {
        const step = await iterator.next();
        if (step.done === true) {
          over = true;
          return step.value;
        }
        await credit.room(signal);
        credit.spend(this.#options.send({ kind: 'chunk', id, ...contentOf(step.value) }));
      }
    } finally {
      // It may be waiting for something that never comes; its clean-up is its own matter.
      if (!over) void Promise.resolve(iterator.return?.()).catch(() => undefined);
    }
  }

  #requestContext({ from, parts, session, features }: Request, { controller }: Running): RequestContext {
    return {
      ...this.#options.context,
      signal: controller.signal,
      from,
      parts,
      session,
      features,
    };
  }
}

/** Also when nobody wrote a version behind it. */
export function handlerOf(
  { capabilities = {} }: Plugin,
  { protocol, version }: { protocol: string; version: string },
): { handle: NonNullable<Plugin['capabilities']>[string]['handle'] } | undefined {
  const key = [`${protocol}@${version}`, protocol].find((name) => Object.hasOwn(capabilities, name));
  return key === undefined ? undefined : capabilities[key];
}

function isSame(one: Served, target: { readonly protocol: string; readonly version: string }): boolean {
  return one.protocol === target.protocol && one.version === target.version;
}

interface PlainContent {
  payload: Json;
  parts: Uint8Array[];
}

/** @throws MeshError bad_answer */
function checked(value: unknown, check: SchemaCheck | null, what: string): PlainContent {
  const content: Content = isContent(value) ? value : { payload: value as Json, parts: [] };
  const payload = plainJson(content.payload, what);
  const wrong = check?.problem(payload) ?? null;
  if (wrong !== null) throw new MeshError('bad_answer', `${what} breaks its schema: ${wrong}`);
  return { payload, parts: [...content.parts] };
}

function rowOf(value: JsonLike): PlainContent {
  const row = isRanked(value)
    ? { rank: value.rank, value: plainJson(value.value, 'A row') }
    : { rank: null, value: plainJson(value, 'A row') };
  return { payload: row, parts: [] };
}

async function* listed(value: unknown): AsyncGenerator<JsonLike, void, undefined> {
  if (value === undefined || value === null) return;
  if (Array.isArray(value)) yield* value as JsonLike[];
  else yield value;
}

function isStream(value: unknown): value is AsyncIterable<JsonLike> {
  return typeof value === 'object' && value !== null && Symbol.asyncIterator in value;
}

const ownCodes: ReadonlySet<string> = new Set([...pluginErrorCodes, 'bad_answer']);

/** Whatever was thrown: that it cannot even be read must not end the others' requests. */
function errorOf(thrown: unknown): { code: string | null; message: string } {
  try {
    return readError(thrown);
  } catch {
    return { code: null, message: 'It threw what cannot be read' };
  }
}

function readError(thrown: unknown): { code: string | null; message: string } {
  const { code, message } =
    typeof thrown === 'object' && thrown !== null
      ? (thrown as { code?: unknown; message?: unknown })
      : { code: null, message: thrown };
  // What it would send was none: nothing of the daemon's is wrong.
  if (thrown instanceof MeshError && (code === 'bad_message' || code === 'message_too_large'))
    return { code: 'bad_answer', message: `The answer cannot be sent: ${thrown.message}` };
  const known = typeof code === 'string' && ownCodes.has(code) ? code : null;
  return { code: known, message: String(message).slice(0, 1024).toWellFormed() };
}
