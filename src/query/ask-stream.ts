/** `/cocoon/query/1`, the asking end: one request on a stream of its own, parts until the last one. */

import type { Mesh, Stream } from '@cocoon-mesh/mesh';
import { readMessages, writeMessage } from '@cocoon-mesh/mesh';
import type { Clock, QueryPart, QueryRequest } from '@cocoon-mesh/protocol';
import {
  ResetCode,
  encode,
  limits,
  queryOpenSchema,
  queryPartSchema,
  queryRequestSchema,
  streamProtocols,
} from '@cocoon-mesh/protocol';

/** What JSON grows to as MessagePack, at worst: `0.5,` takes nine bytes. */
const packedPerJson = 9 / 4;
export const maxQueryRequestBytes = 4 * limits.maxQueryParamsBytes;
/** What stands around rows, in all. */
const maxEnvelopeBytes = 64 * 1024;
/** How long the other side may take to end its direction after its last part. */
const lingerMs = 5_000;

/**
 * Leaving the loop, or the signal, resets the stream, which cancels the query at the device.
 * @throws MeshError bad_message | message_too_large when the device breaks the protocol, as `Mesh.openStream`, and
 * as `Stream.read`
 */
export async function* askStream(
  mesh: Pick<Mesh, 'openStream'>,
  clock: Clock,
  peerId: string,
  request: QueryRequest,
  signal: AbortSignal,
): AsyncGenerator<QueryPart, void, undefined> {
  const header = encode(queryOpenSchema, { type: request.type });
  const stream = await mesh.openStream(peerId, streamProtocols.query, header, signal);
  const cancel = (): void => stream.reset(ResetCode.cancel);
  signal.addEventListener('abort', cancel, { once: true });
  let whole = false;
  try {
    signal.throwIfAborted();
    await writeMessage(stream, queryRequestSchema, request, maxQueryRequestBytes);
    stream.end();
    const all = request.max_bytes * packedPerJson + maxEnvelopeBytes;
    for await (const part of readMessages(stream, queryPartSchema, { each: limits.maxQueryPartBytes, all })) {
      whole = part.kind === 'error' || part.is_final;
      yield part;
      if (whole) return;
    }
  } finally {
    signal.removeEventListener('abort', cancel);
    if (whole) void settle(stream, clock);
    else cancel();
  }
}

/** Reads the end, which comes with the last part or soon after, so that no reset is needed. Never rejects. */
async function settle(stream: Stream, clock: Clock): Promise<void> {
  const limit = clock.after(lingerMs, () => stream.reset(ResetCode.timeout));
  try {
    if ((await stream.read()) !== null) stream.reset(ResetCode.protocolViolation);
  } catch {
    // Reset or gone: over, which is all that was wanted.
  } finally {
    limit.cancel();
  }
}
