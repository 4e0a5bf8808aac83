/** The models of this device: embeddings always, at least lexical ones; chat where a provider is configured. */

import { chatProvider, embeddingsProvider } from '@cocoon-mesh/ai';
import { isUrl } from '@cocoon-mesh/ai/model-address.ts';
import type { LocalCapabilities, Provider } from '@cocoon-mesh/capabilities';
import type { Clock } from '@cocoon-mesh/protocol';

export interface ModelSettings {
  /** COCOON_EMBEDDING_MODEL; null: lexical. */
  readonly embeddingModel: string | null;
  /** COCOON_LLM_PROVIDER; null: no chat. */
  readonly llmProvider: string | null;
  readonly llmModel: string | null;
  /** For the server of chats, and what embeds there, too; goes nowhere else. */
  readonly llmApiKey: string | null;
  /** As Ollama itself reads it. */
  readonly ollamaHost: string | null;
}

export interface ModelsOptions {
  readonly local: LocalCapabilities;
  readonly settings: ModelSettings & { readonly disabledCapabilities: readonly string[] };
  /** PeerId. */
  readonly device: string;
  readonly clock: Clock;
}

/** For the files of a model to be read, or a model server to answer. */
const patienceMs = 2_000;

export class Models {
  /** Null: switched off. */
  readonly embeddings: Provider | null;
  readonly #providers: readonly Provider[];
  readonly #clock: Clock;

  constructor({ local, settings, device, clock }: ModelsOptions) {
    this.#clock = clock;
    const { llmApiKey: apiKey, ollamaHost, disabledCapabilities: disabled } = settings;
    this.embeddings = disabled.includes('embeddings')
      ? null
      : embeddingsProvider({
          setting: settings.embeddingModel,
          apiKey: mayHaveKey(settings) ? apiKey : null,
          ollamaHost,
          device,
          clock,
        });
    const chat = disabled.includes('llm.chat')
      ? null
      : chatProvider({
          provider: settings.llmProvider,
          model: settings.llmModel,
          apiKey,
          ollamaHost,
          clock,
        });
    this.#providers = [this.embeddings, chat].filter((provider) => provider !== null);
    for (const provider of this.#providers) local.add(provider);
  }

  /** The first request after the start is to find what there is. Takes at most two seconds. */
  async known(): Promise<void> {
    if (this.embeddings === null || this.embeddings.state.problem === null) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const forget = this.embeddings.onChange(resolve);
    const limit = this.#clock.after(patienceMs, resolve);
    await promise;
    forget();
    limit.cancel();
  }

  /** Processes of models end. Idempotent. */
  async close(): Promise<void> {
    await Promise.all(this.#providers.map((provider) => provider.close()));
  }
}

/** The key is that of the server of chats; another server learns it only where no chat has a server with a key. */
export function mayHaveKey({
  embeddingModel,
  llmProvider,
}: Pick<ModelSettings, 'embeddingModel' | 'llmProvider'>): boolean {
  if (llmProvider === null || !isUrl(llmProvider)) return true;
  const embeddings = embeddingModel?.trim() ?? '';
  return (
    URL.canParse(embeddings) &&
    URL.canParse(llmProvider) &&
    new URL(embeddings).origin === new URL(llmProvider.trim()).origin
  );
}
