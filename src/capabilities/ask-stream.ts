/** `/cocoon/capability/1`, the asking end: one request to one device on a stream of its own, messages until the last. */

import type { Mesh, Stream } from '@cocoon-mesh/mesh';
import { readMessages, writeMessage } from '@cocoon-mesh/mesh';
import type { CapabilityAnswerMessage, CapabilityRequestMessage, Clock } from '@cocoon-mesh/protocol';
import {
  MeshError,
  ResetCode,
  capabilityAnswerSchema,
  capabilityRequestOpenSchema,
  capabilityRequestSchema,
  deadline,
  encode,
  limits,
  streamProtocols,
  toMeshError,
} from '@cocoon-mesh/protocol';

/** How long the other side may take to end its direction after its last message. */
const lingerMs = 5_000;

/**
 * Leaving the loop, or the signal, resets the stream, which cancels the request at the device.
 * @param openMs for a connection, where there is none yet
 * @throws MeshError bad_message | message_too_large for a request that cannot be sent, bad_answer when the device
 * breaks the protocol, as `Mesh.openStream`, and as `Stream.read`
 */
export async function* askStream(
  mesh: Pick<Mesh, 'openStream'>,
  clock: Clock,
  peerId: string,
  { protocol, version }: { readonly protocol: string; readonly version: string },
  request: CapabilityRequestMessage,
  signal: AbortSignal,
  openMs: number = limits.connectTimeoutMs,
): AsyncGenerator<CapabilityAnswerMessage, void, undefined> {
  const header = encode(capabilityRequestOpenSchema, { protocol, version });
  const stream = await opened(mesh, clock, peerId, header, signal, openMs);
  const cancel = (): void => stream.reset(ResetCode.cancel);
  signal.addEventListener('abort', cancel, { once: true });
  let whole = false;
  try {
    signal.throwIfAborted();
    await writeMessage(stream, capabilityRequestSchema, request, limits.maxCapabilityMessageBytes);
    stream.end();
    for await (const message of answerOn(stream)) {
      whole = message.kind !== 'chunk';
      yield message;
      if (whole) return;
    }
    throw new MeshError('bad_answer', 'The device ended its answer in the middle');
  } finally {
    signal.removeEventListener('abort', cancel);
    if (whole) void settle(stream, clock);
    else cancel();
  }
}

/** @throws MeshError connect_timeout, and as `Mesh.openStream` */
async function opened(
  mesh: Pick<Mesh, 'openStream'>,
  clock: Clock,
  peerId: string,
  header: Uint8Array,
  signal: AbortSignal,
  limitMs: number,
): Promise<Stream> {
  const limit = deadline(clock, limitMs);
  try {
    const patience = AbortSignal.any([signal, limit.signal]);
    return await mesh.openStream(peerId, streamProtocols.capability, header, patience);
  } catch (thrown) {
    if (!limit.signal.aborted || signal.aborted) throw thrown;
    throw new MeshError('connect_timeout', undefined, { cause: thrown });
  } finally {
    limit.cancel();
  }
}

async function* answerOn(stream: Stream): AsyncGenerator<CapabilityAnswerMessage, void, undefined> {
  try {
    yield* readMessages(stream, capabilityAnswerSchema, {
      each: limits.maxCapabilityMessageBytes,
      items: limits.maxCapabilityMessageItems,
    });
  } catch (thrown) {
    const { code } = toMeshError(thrown);
    if (code === 'bad_message' || code === 'message_too_large' || code === 'unsupported')
      throw new MeshError('bad_answer', 'The device answered what is no answer', { cause: thrown });
    throw thrown;
  }
}

/** Reads the end, which comes with the last message or soon after, so that no reset is needed. Never rejects. */
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
