/** `cocoon/plugin`: what a plugin imports. */

import type { Content } from '@cocoon-mesh/capabilities';
import type { Json } from '@cocoon-mesh/protocol';
import type { Asking } from './asking.ts';

export type { AskOptions, Asking, CapabilityResult, WantedCapability } from './asking.ts';
export type { JsonOf } from './json-of.ts';
export type { JsonSchema } from './schema-check.ts';
export type { CapabilityAnswer, Content } from '@cocoon-mesh/capabilities';
export type { Json } from '@cocoon-mesh/protocol';

/** A value that was made for a place where JSON belongs. */
export type JsonLike = Json | object | undefined | void;

export interface PluginLog {
  /** As `info`. */
  (message: string, fields?: Readonly<Record<string, Json>>): void;
  debug(message: string, fields?: Readonly<Record<string, Json>>): void;
  info(message: string, fields?: Readonly<Record<string, Json>>): void;
  warn(message: string, fields?: Readonly<Record<string, Json>>): void;
  error(message: string, fields?: Readonly<Record<string, Json>>): void;
}

/** As long as the plugin runs. */
export interface PluginContext extends Asking {
  /** The plugin is to stop. */
  readonly signal: AbortSignal;
  readonly log: PluginLog;
  /** As `settings` of the manifest says, with its defaults. */
  readonly settings: { readonly [key: string]: Json };
  /** A folder of the plugin's own; it outlives updates. */
  readonly dataDir: string;
}

/** Of one request. */
export interface RequestContext extends PluginContext {
  /** The asker went away, or its time is over. */
  readonly signal: AbortSignal;
  /** The device that asks: its peer id, and its name as this device knows it. */
  readonly from: { readonly id: string; readonly name: string };
  /** What came with the payload and is not text. */
  readonly parts: readonly Uint8Array[];
  /** The same for requests that belong together. */
  readonly session: string | null;
  readonly features: readonly string[];
}

/** Of one query. */
export interface QueryContext extends PluginContext {
  /** The asker went away, has all the rows it wants, or its time is over. */
  readonly signal: AbortSignal;
  /** The device that asks: its peer id, and its name as this device knows it. */
  readonly from: { readonly id: string; readonly name: string };
}

export interface PluginCapabilityHandler {
  /**
   * The payload follows the manifest's `request`, where there is one. A value or a promise is an answer in one
   * piece; an async iterable is a stream, whose return value follows the last chunk.
   */
  handle(payload: Json, context: RequestContext): JsonLike | Promise<JsonLike> | AsyncIterable<JsonLike>;
}

/** Rows: a list, or one by one. `ranked` says where they stand among those of other devices. */
export type PluginQuery = {
  handle(
    params: { readonly [key: string]: Json },
    context: QueryContext,
  ): JsonLike | Promise<JsonLike> | AsyncIterable<JsonLike>;
}['handle'];

export interface Plugin {
  /** Key: `text.shout`, or with several versions of one `text.shout@1.4.0`. */
  readonly capabilities?: { readonly [key: string]: PluginCapabilityHandler };
  /** Key: `params.name` of a `custom` query. */
  readonly queries?: { readonly [name: string]: PluginQuery };
  /** Before the first request; nothing is offered until it is done. */
  start?(context: PluginContext): void | Promise<void>;
  /** After the last one, within a few seconds. */
  stop?(): void | Promise<void>;
}

/** The default export of the manifest's `main`. */
export function definePlugin<const P extends Plugin>(plugin: P): P {
  return plugin;
}

/** Codes that a plugin may answer with; any other error is `plugin_failed`. */
export const pluginErrorCodes = [
  'bad_payload',
  'bad_filter',
  'not_found',
  'denied',
  'overloaded',
  'model_unavailable',
  'text_too_long',
  'unsupported',
] as const;
export type PluginErrorCode = (typeof pluginErrorCodes)[number];

/** An answer that says no. */
export class PluginError extends Error {
  override readonly name = 'PluginError';
  readonly code: PluginErrorCode;

  constructor(code: PluginErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}

const contentMark = Symbol.for('cocoon.plugin.content');
const rankMark = Symbol.for('cocoon.plugin.rank');

/** An answer or a chunk with binary parts beside its JSON. */
export function withParts(payload: Json, parts: readonly Uint8Array[]): Content {
  return { payload, parts, [contentMark]: true } as Content;
}

/** A row of a query; higher ranks come first, among the rows of all devices. */
export function ranked(rank: number | string, value: Json): object {
  return { rank, value, [rankMark]: true };
}

export function isContent(value: unknown): value is Content {
  return typeof value === 'object' && value !== null && contentMark in value;
}

export function isRanked(value: unknown): value is { readonly rank: number | string; readonly value: Json } {
  return typeof value === 'object' && value !== null && rankMark in value;
}
