/** A capability request as whoever asks puts it. */

import type { ErrorCode } from '@cocoon-mesh/protocol';
import type { Content } from './provider.ts';

export interface CapabilityRequest extends Content {
  readonly protocol: string;
  /** Semver range. */
  readonly version: string;
  /** Name or PeerId; another one serves when it is off or full, and the answer says so. */
  readonly preferDevice?: string;
  /** Only this device or none: `model@device`. */
  readonly onlyDevice?: string;
  readonly features?: readonly string[];
  readonly session?: string;
  /** For the whole answer. Default `limits.capabilityTimeoutMs`. */
  readonly timeoutMs?: number;
  /** A device that has not begun its answer by then is given up for the next one. Default: as long as there is time. */
  readonly firstAnswerMs?: number;
  readonly signal?: AbortSignal;
}

/** Which device answered, and what it took. */
export interface AnswerSource {
  readonly device: string;
  readonly deviceId: string;
  /** Of the provider. */
  readonly version: string;
  /** Devices that were asked, this one included. */
  readonly attempts: number;
  readonly queueMs: number;
  readonly totalMs: number;
  /** Why the preferred device did not serve; null when it did, or none was preferred. */
  readonly insteadOf: InsteadOf | null;
}

export interface InsteadOf {
  readonly device: string;
  readonly code: ErrorCode;
  /** A sentence. */
  readonly reason: string;
}

/**
 * An answer under way. Read `chunks` to their end, once, or leave them early, which cancels the request at the
 * provider: an answer that nobody reads waits for its reader until its time is over (`collect` reads them all).
 */
export interface CapabilityAnswer {
  /** Resolves with the first chunk or the end: from then on no other device is tried. Rejects as `chunks` throws. */
  readonly device: Promise<Pick<AnswerSource, 'device' | 'deviceId' | 'attempts'>>;
  /** @throws MeshError as it ends */
  readonly chunks: AsyncIterable<Content>;
  /** The content of the end, and where it came from. Rejects as `chunks` throws. */
  readonly end: Promise<Content & { readonly source: AnswerSource }>;
}

/** @throws nothing: errors are those of the answer (capability_not_found, overloaded, provider_failed, device_offline, …) */
export type RequestCapability = (request: CapabilityRequest) => CapabilityAnswer;
