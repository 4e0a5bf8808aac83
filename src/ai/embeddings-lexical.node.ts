/** Embeddings of a device without any model: `cocoon-lexical-v1`, computed in the daemon a little at a time. */

import type { Clock } from '@cocoon-mesh/protocol';
import { MeshError } from '@cocoon-mesh/protocol';
import {
  lexicalSpace,
  lexicalVectorOf,
  lexicalWords,
  maxLexicalWords,
  packVector,
} from '@cocoon-mesh/vectors';
import type { BackendState, EmbeddingsBackend } from './embeddings-backend.ts';
import type { EmbeddingsSpace, EmbeddingsTask } from './embeddings-payload.ts';

const requestsAtOnce = 4;
/** Then everything else of the daemon has its turn. */
const turnMs = 4;
/** One text cannot be interrupted. Hardly any 4,096 words are longer. */
const maxCharacters = 16 * maxLexicalWords;

export class LexicalEmbeddings implements EmbeddingsBackend {
  readonly limit = requestsAtOnce;
  readonly state: BackendState & { readonly space: EmbeddingsSpace };
  readonly #clock: Clock;

  constructor(clock: Clock) {
    const { name, fingerprint, dimensions, semantic } = lexicalSpace;
    this.state = { space: { model: name, space: fingerprint, semantic, dimensions }, warm: true };
    this.#clock = clock;
  }

  /** It never does. */
  onChange(): () => void {
    return () => undefined;
  }

  async embed({ texts, truncate }: EmbeddingsTask, signal: AbortSignal) {
    const { space } = this.state;
    const vectors = new Uint8Array(texts.length * space.dimensions * 4);
    let tokens = 0;
    let began = this.#clock.monotonic();
    for (const [i, text] of texts.entries()) {
      const words = readWords(text, truncate, i);
      tokens += words.length;
      vectors.set(packVector(lexicalVectorOf(words)), i * space.dimensions * 4);
      if (this.#clock.monotonic() - began < turnMs) continue;
      await new Promise<void>((resolve) => void setImmediate(resolve));
      signal.throwIfAborted();
      began = this.#clock.monotonic();
    }
    return { vectors, tokens, space };
  }

  async close(): Promise<void> {
    // Nothing is kept.
  }
}

/** @throws MeshError text_too_long */
function readWords(text: string, truncate: boolean, index: number): readonly string[] {
  const isFarTooLong = text.length > maxCharacters;
  if (truncate) return lexicalWords(text.slice(0, maxCharacters));
  const words = isFarTooLong ? [] : lexicalWords(text, maxLexicalWords + 1);
  if (!isFarTooLong && words.length <= maxLexicalWords) return words;
  const hint = 'Send shorter texts, or `truncate: true` to have them cut off.';
  throw new MeshError(
    'text_too_long',
    `input[${index}] has more than ${maxLexicalWords} words or ${maxCharacters} characters`,
    { hint },
  );
}
