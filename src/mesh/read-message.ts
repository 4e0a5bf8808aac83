/** A stream that carries one message: read to its end, within a limit. */

import { MeshError, concat } from '@cocoon-mesh/protocol';
import type { Stream } from './stream.ts';

/** @throws MeshError message_too_large, and as `Stream.read` */
export async function readMessage(stream: Stream, maxBytes: number): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for (let chunk = await stream.read(); chunk !== null; chunk = await stream.read()) {
    length += chunk.length;
    if (length > maxBytes) throw new MeshError('message_too_large');
    // A chunk may be a view into a larger buffer, which would be kept.
    chunks.push(chunk.slice());
  }
  return concat(...chunks);
}
