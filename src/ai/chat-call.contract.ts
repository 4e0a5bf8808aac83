/** Calls of a chat provider as tests make them. */

import assert from 'node:assert/strict';
import type { Content, Provider, ProviderCall } from '@cocoon-mesh/capabilities';
import type { Json } from '@cocoon-mesh/protocol';
import { MeshError } from '@cocoon-mesh/protocol';
import type { ChatChunk, ChatCompletion } from './chat-payload.ts';

export const hello: readonly Json[] = [{ role: 'user', content: 'Hello' }];

export function callOf(payload: Json, signal = new AbortController().signal): ProviderCall {
  return { payload, parts: [], signal, session: null, features: [], from: { id: 'x', name: 'asker' } };
}

export async function complete(
  provider: Provider,
  fields: Record<string, Json> = {},
): Promise<ChatCompletion> {
  const content = await (provider.handle(callOf({ messages: hello, ...fields })) as Promise<Content>);
  return content.payload as unknown as ChatCompletion;
}

export function stream(
  provider: Provider,
  fields: Record<string, Json> = {},
  signal?: AbortSignal,
): AsyncIterableIterator<ChatChunk> {
  const handled = provider.handle(callOf({ messages: hello, ...fields, stream: true }, signal));
  return chunks(handled as AsyncIterable<Content>);
}

async function* chunks(contents: AsyncIterable<Content>): AsyncGenerator<ChatChunk> {
  for await (const { payload } of contents) yield payload as unknown as ChatChunk;
}

export async function all<T>(values: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = [];
  for await (const value of values) list.push(value);
  return list;
}

export function textOf(chunks: readonly ChatChunk[]): string {
  return chunks.flatMap(({ choices }) => choices.map((choice) => choice.delta.content ?? '')).join('');
}

/** The error that it ends with, which must be of this code. */
export async function failure(work: Promise<unknown>, code: string): Promise<MeshError> {
  try {
    await work;
  } catch (thrown) {
    assert.ok(thrown instanceof MeshError, String(thrown));
    assert.equal(thrown.code, code, thrown.message);
    return thrown;
  }
  throw new Error(`it did not fail with ${code}`);
}
