/** The limits a session obeys, so that tests can make them small. What each is for stands in `limits.ts`. */

import { limits } from '@cocoon-mesh/protocol';

export interface SessionLimits {
  readonly streamWindowBytes: number;
  readonly sessionWindowBytes: number;
  readonly streamMinimumBytes: number;
  readonly streamQueueBytes: number;
  readonly smallWriteBytes: number;
  readonly replayBytes: number;
  readonly ackEveryBytes: number;
  readonly ackDelayMs: number;
  readonly maxStreams: number;
  readonly maxStreamId: number;
  readonly maxOpensPerSecond: number;
  readonly maxResetsPerSecond: number;
  readonly maxControlFramesPerSecond: number;
  readonly pingAfterMs: number;
  readonly deadAfterMs: number;
  readonly closeDrainMs: number;
}

export function sessionLimits(overrides: Partial<SessionLimits> = {}): SessionLimits {
  return { ...limits, maxStreamId: 0xffff_ffff, ...overrides };
}

/** What the sender must know of the receiver. */
export type PeerLimits = Pick<
  SessionLimits,
  'streamWindowBytes' | 'sessionWindowBytes' | 'streamMinimumBytes' | 'maxStreams'
>;
