/** A language model in its process (a `ModelModule`): one generation after the other. */

import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import { Tokenizer } from '@huggingface/tokenizers';
import type { LocalModel, RunContext } from './inference-messages.ts';
import { LlmDecoder } from './llm-decoder.node.ts';
import type { LlmFolder } from './llm-folder.node.ts';
import { readLlmFolder } from './llm-folder.node.ts';
import type { Generation, LlmEnd, LlmPiece, LlmRequest } from './llm-messages.ts';
import { samplerOf } from './llm-sampler.ts';
import { ChatTemplate } from './llm-template.ts';
import { StopText, TokenText } from './llm-text.ts';
import { loadRuntime, openSession } from './onnx-runtime.node.ts';

/** @throws MeshError model_unavailable */
export async function openModel(source: { readonly folder: string }): Promise<LocalModel> {
  const folder = await readLlmFolder(source.folder);
  const template = new ChatTemplate(folder.template, folder.specialTokens);
  const runtime = await loadRuntime();
  const session = await openSession(runtime, folder.modelFile);
  const model = new LlmModel(folder, template, new LlmDecoder(runtime, session, folder));
  return { description: null, run: (request, context) => model.run(request as LlmRequest, context) };
}

class LlmModel {
  readonly #folder: LlmFolder;
  readonly #template: ChatTemplate;
  readonly #decoder: LlmDecoder;
  readonly #tokenizer: Tokenizer;
  readonly #eos: ReadonlySet<number>;
  readonly #credits = new Map<string, Credit>();
  #last: Promise<unknown> = Promise.resolve();

  constructor(folder: LlmFolder, template: ChatTemplate, decoder: LlmDecoder) {
    this.#folder = folder;
    this.#template = template;
    this.#decoder = decoder;
    this.#tokenizer = new Tokenizer(folder.tokenizer, folder.tokenizerConfig);
    this.#eos = new Set(folder.eosIds);
  }

  async run(request: LlmRequest, context: RunContext): Promise<LlmEnd | null> {
    if (request.kind === 'more') {
      this.#credits.get(request.key)?.add(request.credit);
      return null;
    }
    // Two at once would each take as long as both, and twice the memory.
    const before = this.#last;
    const done = Promise.withResolvers<void>();
    this.#last = done.promise;
    await before;
    const credit = new Credit(request.credit, context.signal);
    this.#credits.set(request.key, credit);
    try {
      return await this.#generate(request, context, credit);
    } finally {
      this.#credits.delete(request.key);
      done.resolve();
    }
  }

  async #generate(request: Generation, context: RunContext, credit: Credit): Promise<LlmEnd> {
    const prompt = this.#prompt(request);
    const most = Math.min(request.maxTokens ?? Infinity, this.#folder.contextLength - prompt.length);
    const text = new TokenText((ids) => this.#tokenizer.decode(ids, { skip_special_tokens: true }));
    const stop = new StopText(request.stop);
    let count = 0;
    const end = (reason: LlmEnd['reason']): LlmEnd => ({
      reason,
      promptTokens: prompt.length,
      completionTokens: count,
    });
    const say = async (said: string): Promise<void> => {
      if (said === '') return;
      await credit.take();
      context.chunk({ text: said } satisfies LlmPiece);
    };
    for await (const id of this.#decoder.generate(prompt, this.#sampler(request), context)) {
      count++;
      const isEnd = this.#eos.has(id);
      const { text: said, stopped } = stop.push(isEnd ? text.rest() : text.push(id));
      await say(said);
      if (stopped) return end('stop');
      if (!isEnd && count < most) continue;
      const last = stop.push(text.rest());
      await say(last.stopped ? last.text : last.text + stop.rest());
      return end(isEnd || last.stopped ? 'stop' : 'length');
    }
    throw new MeshError('internal');
  }

  /** @throws MeshError text_too_long | bad_payload */
  #prompt({ messages, tools }: Generation): number[] {
    const text = this.#template.render(messages, tools);
    const { ids } = this.#tokenizer.encode(text, { add_special_tokens: false });
    const { contextLength } = this.#folder;
    if (ids.length >= contextLength)
      throw new MeshError(
        'text_too_long',
        `The chat has ${ids.length} tokens, and the model takes ${contextLength} with the answer`,
      );
    if (ids.length === 0)
      throw new MeshError('bad_payload', 'The chat template of the model makes nothing of this chat');
    return ids;
  }

  #sampler({ temperature, topP, topK, seed }: Generation): (logits: Float32Array) => number {
    const { do_sample: samples, ...defaults } = this.#folder.defaults;
    const [chance = 0] = crypto.getRandomValues(new Uint32Array(1));
    return samplerOf({
      temperature: temperature ?? (samples === true ? (defaults.temperature ?? 1) : 0),
      topP: topP ?? defaults.top_p ?? 1,
      topK: topK ?? defaults.top_k ?? 0,
      seed: seed ?? chance,
    });
  }
}

/** How many pieces may still be sent before somebody has read some. */
class Credit {
  readonly #signal: AbortSignal;
  #left: number;
  #waiting: PromiseWithResolvers<void> | null = null;

  constructor(left: number, signal: AbortSignal) {
    this.#left = left;
    this.#signal = signal;
    signal.addEventListener('abort', () => this.#waiting?.resolve(), { once: true });
  }

  add(count: number): void {
    this.#left += count;
    this.#waiting?.resolve();
  }

  /** @throws the signal's reason */
  async take(): Promise<void> {
    this.#signal.throwIfAborted();
    if (this.#left <= 0) {
      this.#waiting = Promise.withResolvers();
      await this.#waiting.promise;
      this.#waiting = null;
      this.#signal.throwIfAborted();
    }
    this.#left--;
  }
}
