/** A provider for tests that does what its script says. */

import type { Content, Provider, ProviderCall, ProviderState } from './provider.ts';

export interface ScriptedProvider extends Provider {
  /** Tells the listeners. */
  change(state: Partial<ProviderState>): void;
  readonly calls: ProviderCall[];
  isClosed: boolean;
}

type Script = (call: ProviderCall) => Promise<Content> | AsyncIterable<Content>;

interface ScriptedOptions extends Partial<Pick<Provider, 'protocol' | 'version' | 'limit' | 'maxQueued'>> {
  readonly state?: Partial<ProviderState>;
  /** Default: the payload comes back. */
  readonly handle?: Script;
}

export function scriptedProvider(options: ScriptedOptions = {}): ScriptedProvider {
  const { protocol = 'demo.echo', version = '1.0.0', limit = 2, maxQueued = 2 } = options;
  const handle: Script = options.handle ?? (async ({ payload, parts }) => ({ payload, parts }));
  const listeners = new Set<() => void>();
  const provider: ScriptedProvider = {
    protocol,
    version,
    limit,
    maxQueued,
    state: { problem: null, warm: true, features: [], ...options.state },
    calls: [],
    isClosed: false,
    onChange(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    change(state) {
      Object.assign(provider, { state: { ...provider.state, ...state } });
      for (const listener of listeners) listener();
    },
    handle(call) {
      provider.calls.push(call);
      return handle(call);
    },
    async close() {
      provider.isClosed = true;
    },
  };
  return provider;
}

export function content(payload: Content['payload'], ...parts: readonly Uint8Array[]): Content {
  return { payload, parts };
}

/** Rejects with the reason of the signal. */
export function untilAborted(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    if (signal.aborted) reject(signal.reason as Error);
    signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
  });
}
