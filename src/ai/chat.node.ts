/** The chat provider that a configuration asks for. */

import type { Provider } from '@cocoon-mesh/capabilities';
import type { Clock } from '@cocoon-mesh/protocol';
import { MeshError } from '@cocoon-mesh/protocol';
import type { ChatBackend } from './chat-backend.ts';
import { BackendChatProvider } from './chat-provider.ts';
import { LlmChat } from './llm-chat.node.ts';
import { ModelServer } from './llm-server.ts';
import { isUrl, ollamaUrl, openAiUrl } from './model-address.ts';
import { OllamaChat } from './ollama-chat.ts';
import { OpenAiChat } from './openai-chat.ts';

export interface ChatProviderOptions {
  /** COCOON_LLM_PROVIDER: `ollama`, the base URL of a server with OpenAI's API, or a folder with a model; null: none. */
  readonly provider: string | null;
  /** COCOON_LLM_MODEL. It must be there, and serves whoever names none; null: the first there is. */
  readonly model: string | null;
  /** COCOON_LLM_API_KEY, for a base URL. Goes nowhere else. */
  readonly apiKey: string | null;
  /** OLLAMA_HOST as Ollama itself reads it: `host`, `host:port` or a URL. */
  readonly ollamaHost?: string | null;
  readonly clock: Clock;
}

/**
 * @returns null: no provider is configured, and nothing is to be advertised. One whose models are not there says so
 * in its state, and serves as soon as they are.
 */
export function chatProvider(options: ChatProviderOptions): Provider | null {
  const { provider, model, clock } = options;
  if (provider === null || provider.trim() === '') return null;
  return new BackendChatProvider({ backend: backendOf(provider.trim(), options), model, clock });
}

function backendOf(provider: string, { model, apiKey, ollamaHost, clock }: ChatProviderOptions): ChatBackend {
  if (provider === 'ollama') {
    const server = new ModelServer({ kind: 'Ollama', baseUrl: ollamaUrl(ollamaHost ?? ''), apiKey: null });
    return new OllamaChat({ server, clock });
  }
  if (isUrl(provider)) {
    const baseUrl = openAiUrl(provider);
    if (baseUrl === null)
      return new NoBackend(
        'COCOON_LLM_PROVIDER is no URL that can be asked: there may be no user name in it',
      );
    return new OpenAiChat({
      server: new ModelServer({ kind: 'The model server', baseUrl, apiKey }),
      clock,
      model,
    });
  }
  return new LlmChat({ folder: provider, model, clock });
}

/** Of a configuration that cannot be: it says why, wherever it is asked. */
class NoBackend implements ChatBackend {
  readonly name = 'The chat provider';
  readonly limit = 1;
  readonly #problem: string;

  constructor(problem: string) {
    this.#problem = problem;
  }

  async models(): Promise<never> {
    throw this.#error();
  }

  // eslint-disable-next-line require-yield
  async *stream(): AsyncGenerator<never> {
    throw this.#error();
  }

  async complete(): Promise<never> {
    throw this.#error();
  }

  async close(): Promise<void> {
    // It holds nothing.
  }

  #error(): MeshError {
    return new MeshError('model_unavailable', this.#problem);
  }
}
