/** Requests for embeddings as a router makes them, for tests. */

import type { Provider, ProviderCall } from '@cocoon-mesh/capabilities';
import type { Json } from '@cocoon-mesh/protocol';
import { readEmbeddingsAnswer } from './embeddings-payload.ts';

export function call(payload: Json, others: Partial<ProviderCall> = {}): ProviderCall {
  return {
    payload,
    parts: [],
    signal: new AbortController().signal,
    session: null,
    features: [],
    from: { id: 'someone', name: 'laptop' },
    ...others,
  };
}

/** The whole way: handled, and read as an asker does. */
export async function embed(
  provider: Provider,
  input: readonly string[],
  others: Partial<ProviderCall> = {},
) {
  const content = await provider.handle(call({ input }, others));
  if (Symbol.asyncIterator in content) throw new Error('embeddings are not a stream');
  return readEmbeddingsAnswer(content, input.length);
}

/** Waits for changes of the provider until its state is as wanted. */
export async function until(provider: Provider, holds: (state: Provider['state']) => boolean): Promise<void> {
  while (!holds(provider.state)) {
    await new Promise<void>((resolve) => {
      const forget = provider.onChange(() => {
        forget();
        resolve();
      });
    });
  }
}

export function cosine(a: Float32Array, b: Float32Array): number {
  let product = 0;
  let left = 0;
  let right = 0;
  for (const [i, value] of a.entries()) {
    const other = b[i] ?? 0;
    product += value * other;
    left += value * value;
    right += other * other;
  }
  return product / Math.sqrt(left * right || 1);
}
