/** What the embeddings of a device are, tried out: for people who ask why something does not work. */

import type { Provider } from '@cocoon-mesh/capabilities';
import type { Clock } from '@cocoon-mesh/protocol';
import { deadline, toMeshError } from '@cocoon-mesh/protocol';
import type { EmbeddingsSpace } from './embeddings-payload.ts';
import { readEmbeddingsAnswer } from './embeddings-payload.ts';

/** A model of some GB is loaded in that time. */
const checkTimeoutMs = 60_000;

/** Embeds a word. @returns what computed it, or why nothing did, in a sentence */
export async function checkEmbeddings(
  provider: Provider,
  clock: Clock,
): Promise<EmbeddingsSpace | { readonly problem: string }> {
  const { problem } = provider.state;
  if (problem !== null) return { problem };
  const limit = deadline(clock, checkTimeoutMs);
  try {
    const content = await provider.handle({
      payload: { input: 'cocoon' },
      parts: [],
      signal: limit.signal,
      session: null,
      features: [],
      from: { id: '', name: 'doctor' },
    });
    if (Symbol.asyncIterator in content) return { problem: 'The embeddings come as a stream' };
    const { model, space, semantic, dimensions } = readEmbeddingsAnswer(content, 1);
    return { model, space, semantic, dimensions };
  } catch (thrown) {
    return { problem: toMeshError(thrown).message };
  } finally {
    limit.cancel();
  }
}
