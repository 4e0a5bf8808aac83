/**
 * Reads what the other side sends, frame by frame, and checks each against its shape, the ids, the credit and
 * the rates. A MeshError thrown here ends the session (protocol_violation, credit_overflow); what only breaks
 * a stream resets that stream.
 */

import {
  FrameFlag,
  frameHeadBytes,
  FrameType,
  MeshError,
  readFrameHead,
  readU64,
  ResetCode,
  toResetCode,
} from '@cocoon-mesh/protocol';
import type { FrameHead } from '@cocoon-mesh/protocol';
import type { Acknowledger } from './acknowledger.ts';
import type { ReceiveCredit, SendCredit } from './credit.ts';
import type { ProtocolNames } from './open-frame.ts';
import type { Outbox } from './outbox.ts';
import type { Pings } from './pings.ts';
import { RateLimit } from './rate-limit.ts';
import type { Replay } from './replay.ts';
import type { SessionLimits } from './session-limits.ts';
import type { StreamTable } from './stream-table.ts';

export interface IncomingParts {
  readonly limits: SessionLimits;
  readonly table: StreamTable;
  readonly names: ProtocolNames;
  readonly outbox: Outbox;
  readonly replay: Replay;
  readonly pings: Pings;
  readonly acknowledger: Acknowledger;
  readonly sendCredit: SendCredit;
  readonly receiveCredit: ReceiveCredit;
  /** False when the session ended: the rest of a message is not read. */
  readonly isAlive: () => boolean;
  readonly isDraining: () => boolean;
  readonly opened: (id: number, protocol: string, header: Uint8Array) => void;
  /** Bytes charged to the session were dropped. */
  readonly dropped: (bytes: number) => void;
  readonly goaway: (code: ResetCode) => void;
  /** There is something to send. */
  readonly wake: () => void;
}

interface Shape {
  /** Flags that may be set. */
  readonly flags: number;
  /** Payload bytes; null where they vary. */
  readonly length: number | null;
  /** On stream 0, on others, or both. */
  readonly stream: 'none' | 'some' | 'any';
}

const shapes: Record<FrameType, Shape | null> = {
  [FrameType.hello]: null,
  [FrameType.open]: { flags: 0, length: null, stream: 'some' },
  [FrameType.data]: { flags: FrameFlag.fin | FrameFlag.minimum, length: null, stream: 'some' },
  [FrameType.credit]: { flags: 0, length: 8, stream: 'any' },
  [FrameType.reset]: { flags: 0, length: 2, stream: 'some' },
  [FrameType.ping]: { flags: FrameFlag.pong, length: 8, stream: 'none' },
  [FrameType.ack]: { flags: 0, length: 8, stream: 'none' },
  [FrameType.goaway]: { flags: 0, length: 2, stream: 'none' },
};

export class Incoming {
  readonly #parts: IncomingParts;
  readonly #opens: RateLimit;
  readonly #resets: RateLimit;
  readonly #controls: RateLimit;
  #frames = 0;
  #wasTight = false;

  constructor(parts: IncomingParts) {
    this.#parts = parts;
    this.#opens = new RateLimit(parts.limits.maxOpensPerSecond);
    this.#resets = new RateLimit(parts.limits.maxResetsPerSecond);
    this.#controls = new RateLimit(parts.limits.maxControlFramesPerSecond);
  }

  get frames(): number {
    return this.#frames;
  }

  /**
   * One carrier message that came at `nowMs` (monotonic).
   * @throws MeshError protocol_violation | credit_overflow: the session cannot go on
   */
  message(message: Uint8Array, nowMs: number): void {
    for (let offset = 0; offset < message.length && this.#parts.isAlive();) {
      const head = readFrameHead(message, offset);
      this.#frames++;
      this.#frame(head, message, offset + frameHeadBytes, nowMs);
      offset += frameHeadBytes + head.length;
    }
  }

  #frame(head: FrameHead, message: Uint8Array, at: number, nowMs: number): void {
    checkShape(head);
    const { type, length } = head;
    if (type !== FrameType.ping && type !== FrameType.ack) {
      this.#parts.acknowledger.received(frameHeadBytes + length);
    }
    if (type !== FrameType.data || length === 0) allow(this.#controls, nowMs, 'control frames');
    switch (type) {
      case FrameType.data:
        return this.#data(head, message, at, nowMs);
      case FrameType.open:
        return this.#open(head, message, at, nowMs);
      case FrameType.credit:
        return this.#credit(head.streamId, readU64(message, at));
      case FrameType.reset:
        allow(this.#resets, nowMs, 'resets');
        return this.#reset(head.streamId, readCode(message, at));
      case FrameType.ping:
        return this.#ping(head.flags, message.slice(at, at + length));
      case FrameType.ack:
        this.#parts.replay.acknowledge(readU64(message, at));
        return this.#parts.wake();
      case FrameType.goaway:
        return this.#parts.goaway(readCode(message, at));
    }
  }

  #open(head: FrameHead, message: Uint8Array, at: number, nowMs: number): void {
    const { table, names, limits, outbox, wake } = this.#parts;
    const id = head.streamId;
    allow(this.#opens, nowMs, 'opens');
    const protocol = names.decode(message, at, at + head.length);
    const headerAt = at + 1 + (message[at] ?? 0);
    table.claim(id);
    const refusal = this.#parts.isDraining()
      ? ResetCode.shuttingDown
      : table.remote >= limits.maxStreams
        ? ResetCode.tooManyStreams
        : null;
    if (refusal === null) return this.#parts.opened(id, protocol, message.slice(headerAt, at + head.length));
    outbox.reset(id, refusal);
    wake();
  }

  #data(head: FrameHead, message: Uint8Array, at: number, nowMs: number): void {
    const { table, receiveCredit, dropped } = this.#parts;
    const { flags, length, streamId } = head;
    const stream = table.get(streamId);
    if (!stream && !table.wasOpened(streamId)) throw violation(`data of stream ${streamId} before its OPEN`);
    const charged = (flags & FrameFlag.minimum) === 0 ? length : 0;
    if (!receiveCredit.accept(charged)) {
      throw new MeshError('credit_overflow', 'the credit of the session was exceeded');
    }
    if (!stream) {
      // Sent before our RESET arrived there. Without a charge only its rate bounds it.
      if (charged === 0) allow(this.#controls, nowMs, 'frames of closed streams');
      return dropped(charged);
    }
    if (stream.receive.state !== 'open') throw violation(`data of stream ${streamId} after its FIN`);
    if (length > 0 && !this.#accept(stream.receive.credit, length, charged)) {
      dropped(charged);
      return stream.reset(ResetCode.creditOverflow);
    }
    if (length > 0) stream.received(message.subarray(at, at + length), message.length, charged);
    if ((flags & FrameFlag.fin) !== 0) stream.finReceived();
    if (charged > 0) this.#checkTight();
  }

  #accept(credit: ReceiveCredit, length: number, charged: number): boolean {
    const { streamMinimumBytes } = this.#parts.limits;
    return (charged > 0 || credit.withinMinimum(length, streamMinimumBytes)) && credit.accept(length);
  }

  /** When the session's credit begins to run short, streams that owe a CREDIT tell it now: see `credit.ts`. */
  #checkTight(): void {
    const { table, receiveCredit, outbox, limits, wake } = this.#parts;
    const { tight } = receiveCredit;
    if (tight && !this.#wasTight) {
      for (const stream of table) {
        const { receive } = stream;
        if (receive.state === 'open' && receive.credit.due(true, limits.streamMinimumBytes / 2)) {
          outbox.credit(stream);
        }
      }
      wake();
    }
    this.#wasTight = tight;
  }

  #credit(streamId: number, limit: number): void {
    const { table, sendCredit, outbox, wake } = this.#parts;
    if (streamId === 0) {
      if (sendCredit.raise(limit)) outbox.unblock();
      return wake();
    }
    const stream = table.get(streamId);
    if (!stream) {
      if (!table.wasOpened(streamId)) throw violation(`credit for stream ${streamId} before its OPEN`);
      return;
    }
    if (stream.send.credit.raise(limit)) outbox.unblock(stream);
    wake();
  }

  #reset(streamId: number, code: ResetCode): void {
    const { table } = this.#parts;
    if (!table.wasOpened(streamId)) throw violation(`reset of stream ${streamId} before its OPEN`);
    table.get(streamId)?.resetByPeer(code);
  }

  #ping(flags: number, token: Uint8Array): void {
    if ((flags & FrameFlag.pong) !== 0) return this.#parts.pings.pong(token);
    this.#parts.outbox.pong(token);
    this.#parts.wake();
  }
}

function checkShape(head: FrameHead): void {
  const shape = shapes[head.type];
  if (!shape) throw violation('HELLO after the session began');
  if ((head.flags & ~shape.flags) !== 0) throw violation(`unknown flags on frame type ${head.type}`);
  if (shape.length !== null && head.length !== shape.length) {
    throw violation(`frame type ${head.type} with ${head.length} bytes`);
  }
  if (shape.stream !== 'any' && (head.streamId === 0) !== (shape.stream === 'none')) {
    throw violation(`frame type ${head.type} on stream ${head.streamId}`);
  }
}

function allow(rate: RateLimit, nowMs: number, what: string): void {
  if (!rate.allow(nowMs)) throw violation(`too many ${what} per second`);
}

function readCode(message: Uint8Array, at: number): ResetCode {
  return toResetCode(((message[at] ?? 0) << 8) | (message[at + 1] ?? 0));
}

function violation(message: string): MeshError {
  return new MeshError('protocol_violation', message);
}
