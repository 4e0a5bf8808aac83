/** The public names of the signaling server; `cocoon up` and `cocoon signaling` start it. */

export type { SignalingAudit, SignalingEvent } from './audit.ts';
export type { IceServer } from './http-api.ts';
export type { SignalingLog } from './log.ts';
export type { SignalingCounters } from './metrics.ts';
export type { SignalingOptions, SignalingServer } from './server.ts';
export { startSignaling } from './server.ts';
