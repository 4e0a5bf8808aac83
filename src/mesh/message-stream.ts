/**
 * Messages on a stream: a length (u32, big-endian) and as many bytes of MessagePack, one after the other until the
 * end. Nothing is held but the message that is coming, and no more of it than has come: an announced length
 * reserves no memory. Reading pulls, so a slow reader stops the writer. Whoever uses these still owns the stream:
 * except when its own time is over, nothing here resets it.
 */

import type { Clock, Schema } from '@cocoon-mesh/protocol';
import { MeshError, ResetCode, concat, decode, encode } from '@cocoon-mesh/protocol';
import type { Stream } from './stream.ts';

const lengthBytes = 4;
/** What is kept between messages; a large message's buffer is not. */
const idleBufferBytes = 4 * 1024;

/** How long one message may take; then the stream is reset with `timeout`. */
export interface MessagePatience {
  readonly clock: Clock;
  readonly ms: number;
}

export interface MessageLimits {
  /** Of one message. */
  readonly each: number;
  /** Of all of them, lengths included. */
  readonly all?: number;
  /** Of all lists and maps of one message. */
  readonly items?: number;
}

/**
 * Resolves when the stream takes more, so that whoever waits for it never queues more than one message too many.
 * @throws MeshError message_too_large | bad_message before anything was written, timeout, and as `Stream.write`
 */
export async function writeMessage<T>(
  stream: Stream,
  schema: Schema<T>,
  value: T,
  maxBytes: number,
  patience?: MessagePatience,
): Promise<void> {
  const message = encode(schema, value);
  assertLength(message.length, maxBytes);
  const length = new Uint8Array(lengthBytes);
  new DataView(length.buffer).setUint32(0, message.length);
  if (!stream.write(concat(length, message))) await within(stream, patience, () => stream.drained());
}

/**
 * Every message until the other side's end.
 * @param maxBytes of one message, or limits of one and of all
 * @throws MeshError message_too_large | bad_message | unsupported, timeout, and as `Stream.read`; after the first
 * error there are no more
 */
export async function* readMessages<T>(
  stream: Stream,
  schema: Schema<T>,
  maxBytes: number | MessageLimits,
  patience?: MessagePatience,
): AsyncGenerator<T, void, undefined> {
  const { each, all = Infinity, items } = typeof maxBytes === 'number' ? { each: maxBytes } : maxBytes;
  const cutter = new MessageCutter(each);
  let left = all;
  for (;;) {
    const message = await within(stream, patience, () => nextMessage(stream, cutter));
    if (message === null) return;
    left -= lengthBytes + message.length;
    if (left < 0)
      throw new MeshError('message_too_large', `Messages are together over their limit of ${all} bytes`);
    yield decode(schema, message, each, items);
  }
}

/**
 * The only message before the other side's end.
 * @throws MeshError bad_message also when there is none, or another; and as `readMessages`
 */
export async function readSingleMessage<T>(
  stream: Stream,
  schema: Schema<T>,
  maxBytes: number | MessageLimits,
  patience?: MessagePatience,
): Promise<T> {
  const messages = readMessages(stream, schema, maxBytes, patience);
  const first = await messages.next();
  if (first.done === true) throw new MeshError('bad_message', 'A stream ended without its message');
  const second = await messages.next();
  if (second.done !== true) throw new MeshError('bad_message', 'A stream has more messages than one');
  return first.value;
}

async function nextMessage(stream: Stream, cutter: MessageCutter): Promise<Uint8Array | null> {
  for (;;) {
    const message = cutter.next();
    if (message) return message;
    const bytes = await stream.read();
    if (bytes) cutter.push(bytes);
    else if (cutter.empty) return null;
    else throw new MeshError('bad_message', 'A stream ended within a message');
  }
}

async function within<T>(
  stream: Stream,
  patience: MessagePatience | undefined,
  wait: () => Promise<T>,
): Promise<T> {
  if (!patience) return wait();
  let late = false;
  const timer = patience.clock.after(patience.ms, () => {
    late = true;
    stream.reset(ResetCode.timeout);
  });
  try {
    return await wait();
  } catch (thrown) {
    throw late ? new MeshError('timeout', undefined, { cause: thrown }) : thrown;
  } finally {
    timer.cancel();
  }
}

function assertLength(length: number, maxBytes: number): void {
  if (length > maxBytes)
    throw new MeshError('message_too_large', `A message of ${length} bytes is over its limit of ${maxBytes}`);
}

/** Cuts what comes into messages. Its buffer grows with what has come, never with what was announced. */
class MessageCutter {
  readonly #maxBytes: number;
  #buffer = new Uint8Array(idleBufferBytes);
  #start = 0;
  #end = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  get empty(): boolean {
    return this.#start === this.#end;
  }

  push(bytes: Uint8Array): void {
    if (this.#end + bytes.length > this.#buffer.length) this.#makeRoom(bytes.length);
    this.#buffer.set(bytes, this.#end);
    this.#end += bytes.length;
  }

  /** A copy of its own: what is decoded may point into it. @throws MeshError message_too_large */
  next(): Uint8Array | null {
    const held = this.#end - this.#start;
    if (held < lengthBytes) return null;
    const length = new DataView(this.#buffer.buffer).getUint32(this.#start);
    assertLength(length, this.#maxBytes);
    if (held < lengthBytes + length) return null;
    const from = this.#start + lengthBytes;
    const message = this.#buffer.slice(from, from + length);
    this.#start = from + length;
    if (this.empty) this.#reuse();
    return message;
  }

  #reuse(): void {
    this.#start = 0;
    this.#end = 0;
    if (this.#buffer.length > idleBufferBytes) this.#buffer = new Uint8Array(idleBufferBytes);
  }

  #makeRoom(bytes: number): void {
    const held = this.#end - this.#start;
    const needed = held + bytes;
    const target =
      needed > this.#buffer.length / 2 ? new Uint8Array(Math.max(needed, 2 * held)) : this.#buffer;
    target.set(this.#buffer.subarray(this.#start, this.#end));
    this.#buffer = target;
    this.#start = 0;
    this.#end = held;
  }
}
