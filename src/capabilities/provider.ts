/** What serves a capability on this device: built in, of a plugin, or of another program. */

import type { ErrorCode, Json, ProviderLoad } from '@cocoon-mesh/protocol';

/** A request or an answer: JSON, and beside it what is not text. */
export interface Content {
  readonly payload: Json;
  readonly parts: readonly Uint8Array[];
}

export interface ProviderCall extends Content {
  /** The asker went away, or its time is over. */
  readonly signal: AbortSignal;
  /** Requests of one session go to the same provider while it can take them. */
  readonly session: string | null;
  readonly features: readonly string[];
  /** Who asks: this device or another one. */
  readonly from: { readonly id: string; readonly name: string };
}

export interface ProviderState {
  /** Null: it serves. Else why not, in a sentence; it is not advertised meanwhile. */
  readonly problem: string | null;
  /** What an asker is told with `problem`, such as `model_unavailable`; without it `capability_not_found`. */
  readonly problemCode?: ErrorCode;
  /** Loaded: the next request need not wait for that. */
  readonly warm: boolean;
  /** Better than nothing: serves whoever names it or its features, and else only where there is no other provider. */
  readonly isStandIn?: boolean;
  /** `model:NAME`, `space:ID`, `tools`. */
  readonly features: readonly string[];
}

export interface Provider {
  readonly protocol: string;
  /** Semver. */
  readonly version: string;
  /** Requests at once; more wait in its queue. */
  readonly limit: number;
  /** Of the queue; one more is refused as `overloaded`. */
  readonly maxQueued: number;
  readonly state: ProviderState;
  /** Called when `state` changed. @returns forgets the listener */
  onChange(listener: () => void): () => void;
  /**
   * A promise is an answer in one piece, an iterable a stream of chunks; what it returns at its end, if anything,
   * follows the last chunk. Must end soon after `signal`.
   * @throws MeshError with a code of its own; anything else is `provider_failed`
   */
  handle(call: ProviderCall): Promise<Content> | AsyncIterable<Content>;
  /** Idempotent. */
  close(): Promise<void>;
}

export type { ProviderLoad };
