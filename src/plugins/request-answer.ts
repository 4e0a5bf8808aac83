/** One request that a plugin's process works on, as the daemon sees it. */

import type { Content } from '@cocoon-mesh/capabilities';
import type { AnswerReader } from './answer-reader.ts';
import type { RequestTarget } from './plugin-messages.ts';

export interface PluginRequest extends Content {
  readonly target: RequestTarget;
  readonly from: { readonly id: string; readonly name: string };
  readonly session: string | null;
  readonly features: readonly string[];
  readonly signal: AbortSignal;
}

export interface PluginAnswer {
  readonly reader: AnswerReader;
  /** The plugin has ended with it, which may be after the answer did; or nobody waits for that any more. */
  readonly settled: Promise<void>;
}

/** What a plugin's process is to whoever keeps it running. */
export interface PluginProcess {
  readonly pid: number;
  /** Names of its queries. @throws MeshError plugin_failed: it ended before it was ready */
  readonly ready: Promise<readonly string[]>;
  /** Why, in a sentence. Never rejects. */
  readonly ended: Promise<string>;
  request(request: PluginRequest): PluginAnswer;
  /** Asks it to end, then makes it. Idempotent. */
  stop(): Promise<void>;
}
