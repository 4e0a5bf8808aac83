/**
 * `/cocoon/capability/1`, the answering end. Whether the peer may ask was judged when its stream opened; here are the
 * limits of what it can make this device hold and do. Who serves is the registry's matter.
 */

import type { ProvenPeer, Stream } from '@cocoon-mesh/mesh';
import { readSingleMessage, writeMessage } from '@cocoon-mesh/mesh';
import type { CapabilityAnswerMessage, CapabilityRequestMessage, Clock } from '@cocoon-mesh/protocol';
import {
  MeshError,
  ResetCode,
  capabilityAnswerSchema,
  capabilityRequestOpenSchema,
  capabilityRequestSchema,
  decode,
  limits,
  toMeshError,
} from '@cocoon-mesh/protocol';
import { validRange } from 'semver';
import type { LocalCapabilities } from './local-capabilities.ts';
import { failureMessage } from './provider-answer.ts';

export interface CapabilityServerOptions {
  readonly local: Pick<LocalCapabilities, 'answer'>;
  readonly clock: Clock;
  readonly log: (level: 'debug' | 'info' | 'warn', message: string, fields?: Record<string, unknown>) => void;
}

/** A request of 16 MiB over a slow line. */
const requestPatienceMs = 60_000;
/** After the deadline, for the last message to leave. */
const lingerMs = 5_000;
/** Of one peer; what the others send stays in its session's window. */
const readAtOnce = 4;

interface Guest {
  /** Streams. A provider that was left and goes on takes its own place, not the peer's. */
  running: number;
  reading: number;
  readonly waiting: (() => void)[];
}

type Opened = ReturnType<typeof opened>;

export class CapabilityServer {
  readonly #options: CapabilityServerOptions;
  readonly #guests = new Map<string, Guest>();
  readonly #streams = new Set<Stream>();
  #closed = false;

  constructor(options: CapabilityServerOptions) {
    this.#options = options;
  }

  /** For `Mesh.handle`. */
  readonly handle = (stream: Stream, peer: ProvenPeer): void => {
    void this.#serve(stream, peer);
  };

  /** Requests under way end. Idempotent. */
  close(): void {
    this.#closed = true;
    for (const stream of this.#streams) stream.reset(ResetCode.shuttingDown);
  }

  async #serve(stream: Stream, peer: ProvenPeer): Promise<void> {
    const wanted = opened(stream);
    if (this.#closed) return stream.reset(ResetCode.shuttingDown);
    if (wanted === null) return stream.reset(ResetCode.badHeader);
    const { peerId } = peer;
    const guest = this.#guests.get(peerId) ?? { running: 0, reading: 0, waiting: [] };
    if (guest.running >= limits.maxCapabilityRequestsPerPeer) return stream.reset(ResetCode.tooManyStreams);
    guest.running++;
    this.#guests.set(peerId, guest);
    this.#streams.add(stream);
    try {
      await this.#answer(stream, wanted, peer, guest);
    } catch (thrown) {
      // Reset by the asker, gone, or too slow: nobody is there to be told.
      const { code } = toMeshError(thrown);
      this.#options.log('debug', 'A capability request was not answered to its end', { peer: peerId, code });
      stream.reset(code === 'timeout' ? ResetCode.timeout : ResetCode.internal);
    } finally {
      this.#streams.delete(stream);
      if (--guest.running === 0) this.#guests.delete(peerId);
    }
  }

  async #answer(
    stream: Stream,
    wanted: NonNullable<Opened>,
    { peerId, name }: ProvenPeer,
    guest: Guest,
  ): Promise<void> {
    const { local, clock } = this.#options;
    let request: CapabilityRequestMessage;
    try {
      request = await this.#read(stream, guest);
    } catch (thrown) {
      stream.signal.throwIfAborted();
      await write(stream, failureMessage(thrown));
      return stream.end();
    }
    const { timeout_ms: timeoutMs, ...content } = request;
    const limit = clock.after(timeoutMs + lingerMs, () => stream.reset(ResetCode.timeout));
    try {
      const call = { ...content, timeoutMs, from: { id: peerId, name } };
      const messages = local.answer({ ...wanted, features: content.features }, call, stream.signal);
      await sendMessages(stream, messages);
      stream.signal.throwIfAborted();
      stream.end();
      await stream.closed;
    } finally {
      limit.cancel();
    }
  }

  /** @throws MeshError bad_message | message_too_large | timeout, and as `Stream.read` */
  async #read(stream: Stream, guest: Guest): Promise<CapabilityRequestMessage> {
    if (guest.reading < readAtOnce) guest.reading++;
    else await new Promise<void>((resolve) => guest.waiting.push(resolve));
    try {
      stream.signal.throwIfAborted();
      const patience = { clock: this.#options.clock, ms: requestPatienceMs };
      return await readSingleMessage(
        stream,
        capabilityRequestSchema,
        { each: limits.maxCapabilityMessageBytes, items: limits.maxCapabilityMessageItems },
        patience,
      );
    } finally {
      const next = guest.waiting.shift();
      if (next) next();
      else guest.reading--;
    }
  }
}

/** @throws MeshError as `Stream.write` */
async function sendMessages(stream: Stream, messages: AsyncIterable<CapabilityAnswerMessage>): Promise<void> {
  try {
    for await (const message of messages) await write(stream, message);
  } catch (thrown) {
    // Larger than a message may be; what cannot be sent at all was seen before.
    if (toMeshError(thrown).code !== 'message_too_large') throw thrown;
    const error = new MeshError('bad_answer', toMeshError(thrown).message, { cause: thrown });
    await write(stream, failureMessage(error));
  }
}

function write(stream: Stream, message: CapabilityAnswerMessage): Promise<void> {
  return writeMessage(stream, capabilityAnswerSchema, message, limits.maxCapabilityMessageBytes);
}

function opened(stream: Stream): { readonly protocol: string; readonly version: string } | null {
  try {
    const wanted = decode(capabilityRequestOpenSchema, stream.header, limits.maxOpenHeaderBytes);
    return validRange(wanted.version) === null ? null : wanted;
  } catch {
    return null;
  }
}
