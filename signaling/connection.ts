/**
 * One WebSocket: messages in order and one at a time, pings, and an end that is told. What messages mean is the
 * conversation's matter. Nothing that arrives here throws out of it.
 */

import type { ClientMessage, Clock, ServerMessage, SignalingSubprotocol, Timer } from '@cocoon-mesh/protocol';
import { MeshError, every, limits, toMeshError } from '@cocoon-mesh/protocol';
import { WebSocket } from 'ws';
import type { SignalingLog } from './log.ts';
import { UnknownMessage, readMessage, writeMessage } from './message-format.ts';
import type { Metrics } from './metrics.ts';
import { RateLimited } from './rate-limits.ts';

/** RFC 6455 section 7.4.1. */
export const CloseCode = { goingAway: 1001, policyViolation: 1008 } as const;

export interface ConnectionEvents {
  /** The next message waits for this one. A throw ends the connection with an error. */
  message(message: ClientMessage, bytes: number): Promise<void>;
  /** Exactly once, after the last message was dealt with. */
  closed(): Promise<void>;
}

interface ConnectionOptions {
  readonly socket: WebSocket;
  readonly format: SignalingSubprotocol;
  readonly address: string;
  readonly clock: Clock;
  readonly log: SignalingLog;
  readonly metrics: Metrics;
  readonly maxUnsentBytes: number;
}

export class Connection {
  readonly #options: ConnectionOptions;
  readonly #waiting: { readonly data: Uint8Array; readonly isBinary: boolean }[] = [];
  readonly #pings: Timer;
  readonly #ended = Promise.withResolvers<void>();
  #events: ConnectionEvents | null = null;
  #working: Promise<void> | null = null;
  #heardAt: number;
  /** Nothing more is read once the end was told. */
  #open = true;

  constructor(options: ConnectionOptions) {
    this.#options = options;
    this.#heardAt = options.clock.monotonic();
    this.#pings = every(options.clock, limits.signalingPingMs, () => this.#checkAlive());
    const { socket } = options;
    socket.on('message', (data, isBinary) => this.#received(data as Buffer, isBinary));
    socket.on('pong', () => this.#heard());
    socket.on('ping', () => this.#heard());
    // ws closes the socket itself, with the code that fits what it met.
    socket.on('error', (error) =>
      options.log.debug({ address: options.address, error: error.message }, 'A socket failed'),
    );
    socket.on('close', () => void this.#closed());
  }

  get address(): string {
    return this.#options.address;
  }

  get open(): boolean {
    return this.#open && this.#options.socket.readyState === WebSocket.OPEN;
  }

  get format(): SignalingSubprotocol {
    return this.#options.format;
  }

  /** Resolves when the socket is closed and the last message is dealt with. */
  get ended(): Promise<void> {
    return this.#ended.promise;
  }

  start(events: ConnectionEvents): void {
    this.#events = events;
  }

  /** @returns the bytes that were sent */
  send(message: ServerMessage): number {
    return this.open ? this.sendWritten(writeMessage(this.format, message)) : 0;
  }

  /** For one message to many: it is written once for each format. */
  sendWritten(written: Uint8Array | string): number {
    const { socket, maxUnsentBytes, metrics, log, address } = this.#options;
    if (!this.open) return 0;
    if (socket.bufferedAmount > maxUnsentBytes) {
      log.warn({ address }, 'A peer does not read; its connection is cut');
      socket.terminate();
      return 0;
    }
    socket.send(written);
    metrics.sent(written.length);
    return written.length;
  }

  /** Answers a request. */
  sendError(error: MeshError, id?: number): void {
    this.send({
      type: 'error',
      ...(id === undefined ? {} : { id }),
      code: error.code,
      message: errorText(error),
      ...(error instanceof RateLimited ? { retry_after_ms: Math.ceil(error.retryAfterMs) } : {}),
    });
  }

  /** Tells why and closes. */
  fail(error: MeshError): void {
    if (!this.#open) return;
    this.sendError(error);
    this.close(CloseCode.policyViolation, error.code);
  }

  close(code: number, reason: string): void {
    this.#open = false;
    this.#waiting.length = 0;
    this.#options.socket.close(code, reason);
  }

  terminate(): void {
    this.#options.socket.terminate();
  }

  #received(data: Uint8Array, isBinary: boolean): void {
    this.#heard();
    if (!this.#open) return;
    this.#options.metrics.received(data.length);
    this.#waiting.push({ data, isBinary });
    // A peer that sends faster than we answer waits in its own buffers.
    this.#options.socket.pause();
    this.#working ??= this.#work();
  }

  async #work(): Promise<void> {
    for (let next = this.#waiting.shift(); next && this.#open; next = this.#waiting.shift())
      await this.#deal(next.data, next.isBinary);
    this.#working = null;
    this.#options.socket.resume();
  }

  async #deal(data: Uint8Array, isBinary: boolean): Promise<void> {
    try {
      const message = readMessage(this.format, data, isBinary);
      await this.#events?.message(message, data.length);
    } catch (thrown) {
      const error = toMeshError(thrown);
      if (error instanceof UnknownMessage && error.id !== null) this.sendError(error, error.id);
      else this.fail(error);
      if (error.code === 'internal' || error.code === 'storage_failed')
        this.#options.log.error({ address: this.address, error: String(thrown) }, error.message);
    }
  }

  #heard(): void {
    this.#heardAt = this.#options.clock.monotonic();
  }

  #checkAlive(): void {
    const { socket, clock } = this.#options;
    if (clock.monotonic() - this.#heardAt > limits.signalingDeadMs) socket.terminate();
    else if (socket.readyState === WebSocket.OPEN) socket.ping();
  }

  async #closed(): Promise<void> {
    this.#open = false;
    this.#waiting.length = 0;
    this.#pings.cancel();
    await this.#working;
    await this.#events?.closed();
    this.#ended.resolve();
  }
}

/** Clients know the hints of the table; the hint of a failed sign-in is the server's own. */
function errorText({ code, message, hint }: MeshError): string {
  return (code === 'sign_in_failed' && hint ? `${message}. ${hint}` : message).slice(0, 512);
}
