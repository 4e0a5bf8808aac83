/**
 * The two pumps of a body between node:http and a stream, used at both ends. Neither holds more than one piece:
 * the source is paused while the other side is slow. How a body ended (whole, broken off) is always told.
 */

import type { IncomingMessage, OutgoingMessage } from 'node:http';
import { type HttpRecord, MeshError, type RawHeaders } from '@cocoon-mesh/protocol';
import type { BodyLength } from './body-length.ts';
import { fieldPairs, safeTrailers } from './raw-headers.ts';
import type { RecordReceiver, RecordSender } from './record-stream.ts';

/** Called around every wait for the other end, so that a limit can run only while that end is awaited. */
export interface PumpProgress {
  /** A piece was passed on. */
  moved(): void;
  /** The reader of the pieces is slow. */
  blocked(): void;
}

/**
 * From a message of node:http into records, ended by `end` with its trailers.
 * @throws MeshError bad_gateway when the message broke off; as `Stream.drained` when the stream did
 */
export async function sendBody(
  source: IncomingMessage,
  sender: RecordSender,
  progress?: PumpProgress,
): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const broken = (cause?: unknown) => reject(new MeshError('bad_gateway', undefined, { cause }));
  const resume = () => {
    progress?.moved();
    source.resume();
  };
  const onData = (bytes: Uint8Array) => {
    try {
      if (sender.body(bytes)) return progress?.moved();
      source.pause();
      progress?.blocked();
      sender.drained().then(resume, reject);
    } catch (thrown) {
      reject(thrown);
    }
  };
  // A message that broke off can still emit `end`; only `complete` tells.
  const onEnd = () => (source.complete ? resolve() : broken());
  source.on('data', onData);
  source.on('end', onEnd);
  source.on('error', broken);
  source.on('close', broken);
  // A source that is silent would not notice that nobody takes its bytes any more.
  const onAbort = () => reject(streamOver());
  sender.signal.addEventListener('abort', onAbort, { once: true });
  try {
    if (source.destroyed && !source.readableEnded) broken();
    if (sender.signal.aborted) onAbort();
    await promise;
    sender.end(safeTrailers(source.rawTrailers));
  } finally {
    source.off('data', onData);
    source.off('end', onEnd);
    source.off('close', broken);
    sender.signal.removeEventListener('abort', onAbort);
    // The handler of `error` stays: an error after the end must not become an uncaught one.
  }
}

/**
 * From records (`first`, when it was read already) into a message of node:http, until `end`. The message is ended, its trailers included; on any
 * throw it is left as it is, for the owner to break.
 * @throws MeshError as `RecordReceiver.next`; the error of an error record; bad_gateway when `target` closed
 */
export async function receiveBody<Head extends { readonly upgrade?: string | undefined }>(
  receiver: RecordReceiver<Head>,
  target: OutgoingMessage,
  length: BodyLength,
  progress?: PumpProgress,
  first?: HttpRecord<Head>,
): Promise<void> {
  for (let record = first ?? (await receiver.next()); ; record = await receiver.next()) {
    if (record?.kind === 'body') {
      length.add(record.bytes.length);
      if (!target.write(record.bytes)) {
        progress?.blocked();
        await writable(target, receiver.signal);
      }
      progress?.moved();
    } else if (record?.kind === 'end') {
      length.finish();
      addTrailers(target, record.trailers);
      target.end();
      return;
    } else if (record?.kind === 'error') {
      throw record.error;
    } else {
      throw new MeshError('protocol_violation', 'A body was expected');
    }
  }
}

function addTrailers(target: OutgoingMessage, trailers: RawHeaders): void {
  // node:http sends them on chunked bodies only, and drops them silently elsewhere.
  if (trailers.length > 0) target.addTrailers(fieldPairs(safeTrailers(trailers)));
}

/** Resolves on `drain`. @throws MeshError when the message closes or the stream is cut first */
function writable(target: OutgoingMessage, signal: AbortSignal): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const onClose = () => reject(new MeshError('bad_gateway', 'The connection was closed'));
  const onAbort = () => reject(streamOver());
  const onDrain = () => resolve();
  target.once('drain', onDrain);
  target.once('close', onClose);
  signal.addEventListener('abort', onAbort, { once: true });
  if (target.destroyed) onClose();
  if (signal.aborted) onAbort();
  return promise.finally(() => {
    target.off('drain', onDrain);
    target.off('close', onClose);
    signal.removeEventListener('abort', onAbort);
  });
}

function streamOver(): MeshError {
  return new MeshError('stream_reset', 'The stream was cut');
}
