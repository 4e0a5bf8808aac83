/** The provider of embeddings that a configuration asks for, or the lexical one; never one in place of another. */

import type { Provider } from '@cocoon-mesh/capabilities';
import type { Clock } from '@cocoon-mesh/protocol';
import type { EmbeddingsBackend } from './embeddings-backend.ts';
import { LexicalEmbeddings } from './embeddings-lexical.node.ts';
import { LocalEmbeddings } from './embeddings-local.node.ts';
import { OllamaEmbeddings } from './embeddings-ollama.ts';
import { OpenAiEmbeddings } from './embeddings-openai.ts';
import { BackendEmbeddingsProvider } from './embeddings-provider.ts';
import { RemoteEmbeddings } from './embeddings-remote.ts';
import { ModelServer } from './llm-server.ts';
import { isUrl, ollamaUrl, openAiUrl } from './model-address.ts';

export interface EmbeddingsOptions {
  /**
   * COCOON_EMBEDDING_MODEL: `ollama:NAME`, the base URL of a server with OpenAI's API (`#NAME` behind it chooses the
   * model), or a folder with a model; null or empty: the lexical space.
   */
  readonly setting: string | null;
  /** For a base URL. Goes nowhere else. */
  readonly apiKey: string | null;
  /** OLLAMA_HOST as Ollama itself reads it. */
  readonly ollamaHost?: string | null;
  /** PeerId: a model of a server on this machine is of this device only. */
  readonly device: string;
  readonly clock: Clock;
}

/** One whose model is not there says so in its state, and serves as soon as it is. */
export function embeddingsProvider(options: EmbeddingsOptions): Provider {
  return new BackendEmbeddingsProvider(backendOf((options.setting ?? '').trim(), options));
}

function backendOf(setting: string, options: EmbeddingsOptions): EmbeddingsBackend {
  const { apiKey, ollamaHost, device, clock } = options;
  if (setting === '') return new LexicalEmbeddings(clock);
  if (setting.startsWith('ollama:')) {
    const server = new ModelServer({ kind: 'Ollama', baseUrl: ollamaUrl(ollamaHost ?? ''), apiKey: null });
    return new RemoteEmbeddings(new OllamaEmbeddings(server, setting.slice('ollama:'.length)), clock);
  }
  if (!isUrl(setting)) return new LocalEmbeddings({ folder: setting, clock });
  const [address = '', model = ''] = setting.split('#', 2);
  const baseUrl = openAiUrl(address)?.replace(/\/embeddings$/, '') ?? null;
  if (baseUrl === null)
    return new NoBackend(
      'COCOON_EMBEDDING_MODEL is no URL that can be asked: there may be no user name in it',
    );
  const server = new ModelServer({ kind: 'The model server', baseUrl, apiKey });
  const home = isThisMachine(baseUrl) ? `${device} ${baseUrl}` : baseUrl;
  return new RemoteEmbeddings(
    new OpenAiEmbeddings({ server, model: model === '' ? null : model, home }),
    clock,
  );
}

/** There the same name on two devices may be two models. */
function isThisMachine(url: string): boolean {
  const { hostname } = new URL(url);
  return hostname === 'localhost' || hostname.endsWith('.localhost') || /^127\.|^\[::1\]$/.test(hostname);
}

/** Of a configuration that cannot be. */
class NoBackend implements EmbeddingsBackend {
  readonly limit = 1;
  readonly state: { readonly problem: string };

  constructor(problem: string) {
    this.state = { problem };
  }

  onChange(): () => void {
    return () => undefined;
  }

  async embed(): Promise<never> {
    throw new Error(this.state.problem);
  }

  async close(): Promise<void> {
    // It holds nothing.
  }
}
