/** Whom a query asks. How a device is reached is the target's matter; in-memory ones serve tests and benchmarks. */

import type { QueryPart, QueryRequest } from '@cocoon-mesh/protocol';

/**
 * Parts as they come, checked against their schema. Returning from it, or the signal, cancels the query at the
 * device.
 * @throws MeshError
 */
export type Ask = (request: QueryRequest, signal: AbortSignal) => AsyncIterable<QueryPart>;

export interface QueryTarget {
  readonly peerId: string;
  readonly name: string;
  /** Null: known to be offline, so nobody waits for it. */
  readonly ask: Ask | null;
}
