/**
 * Versions of the wire. Each side offers a list, best first, and the best common one is used; being offered a
 * better common one than was used means that somebody in between removed it.
 */

import { MeshError } from './errors.ts';

/** 1: the first. */
export const sessionVersions = ['cocoon/session/1'] as const;

/** WebSocket subprotocols of signaling: the same messages as MessagePack or JSON. */
export const signalingSubprotocols = ['cocoon.v1.msgpack', 'cocoon.v1.json'] as const;
export type SignalingSubprotocol = (typeof signalingSubprotocols)[number];

/** Protocols on streams, `/cocoon/<name>/<major>`. */
export const streamProtocols = {
  http: '/cocoon/http/1',
  tcp: '/cocoon/tcp/1',
  owner: '/cocoon/owner/1',
  describe: '/cocoon/describe/1',
  revocations: '/cocoon/revocations/1',
  query: '/cocoon/query/1',
  capability: '/cocoon/capability/1',
  tasks: '/cocoon/tasks/1',
} as const;

/** The first of ours that they know too. @throws MeshError version_mismatch */
export function negotiate(ours: readonly string[], theirs: readonly string[]): string {
  const common = ours.find((version) => theirs.includes(version));
  if (common === undefined) throw new MeshError('version_mismatch');
  return common;
}
