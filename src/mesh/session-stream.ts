/**
 * A stream of a session: the two halves behind the `Stream` interface. It holds no timers and knows no
 * frames; its session frames what it queues, feeds it what came and forgets it when it is over.
 */

import { MeshError, resetCodeName } from '@cocoon-mesh/protocol';
import type { ResetCode } from '@cocoon-mesh/protocol';
import type { Chunk } from './inbox.ts';
import { ReceiveHalf } from './receive-half.ts';
import type { HalfEnd } from './receive-half.ts';
import { SendHalf } from './send-half.ts';
import { isOver } from './stream-state.ts';
import type { Stream } from './stream.ts';

/** What a stream asks of its session. */
export interface StreamHost {
  /** The stream has something to send: bytes or its FIN. */
  ready(stream: SessionStream): void;
  /** The program read a chunk, or gave up `charged` bytes that it will not read. */
  consumed(stream: SessionStream, charged: number): void;
  /** Tell the other side that the stream was reset. */
  resetByUs(stream: SessionStream, code: ResetCode): void;
  /** Both halves are over: forget it. */
  over(stream: SessionStream): void;
}

export interface StreamLimits {
  /** Bytes the other side may be ahead of its reader: its window for us. */
  readonly sendWindowBytes: number;
  readonly receiveWindowBytes: number;
  readonly queueBytes: number;
}

/** Where the outbox keeps a stream; a stream is in one queue at most. */
export type Place = 'nowhere' | 'small' | 'bulk' | 'blocked';

export class SessionStream implements Stream {
  readonly id: number;
  readonly protocol: string;
  readonly header: Uint8Array;
  readonly send: SendHalf;
  readonly receive: ReceiveHalf;
  /** The outbox's own notes. */
  place: Place = 'nowhere';
  creditDue = false;

  readonly #host: StreamHost;
  #failure: MeshError | null = null;
  #abort: AbortController | null = null;
  #closed: PromiseWithResolvers<void> | null = null;

  constructor(host: StreamHost, id: number, protocol: string, header: Uint8Array, limits: StreamLimits) {
    this.#host = host;
    this.id = id;
    this.protocol = protocol;
    this.header = header;
    this.send = new SendHalf(limits.sendWindowBytes, limits.queueBytes);
    this.receive = new ReceiveHalf(limits.receiveWindowBytes, (chunk) => this.#consumed(chunk));
  }

  write(bytes: Uint8Array): boolean {
    const { send } = this;
    if (send.error) throw send.error;
    if (send.state !== 'open') throw new MeshError('internal', 'A stream was written to after its end');
    if (bytes.length === 0) return true;
    const more = send.push(bytes);
    this.#host.ready(this);
    return more;
  }

  drained(): Promise<void> {
    return this.send.drained();
  }

  end(): void {
    if (this.send.state !== 'open') return;
    this.send.end();
    this.#host.ready(this);
  }

  reset(code: ResetCode): void {
    const error = resetError('The stream was reset', code);
    this.#resetByUs(code, error, () => this.receive.discard(error));
  }

  read(): Promise<Uint8Array | null> {
    return this.receive.read();
  }

  get signal(): AbortSignal {
    if (!this.#abort) {
      this.#abort = new AbortController();
      if (this.#failure) this.#abort.abort(this.#failure);
    }
    return this.#abort.signal;
  }

  get closed(): Promise<void> {
    if (!this.#closed) {
      this.#closed = Promise.withResolvers<void>();
      if (this.#isOver) this.#closed.resolve();
    }
    return this.#closed.promise;
  }

  /** For the session that closes: a reset which leaves readable what came whole. */
  cut(code: ResetCode): void {
    const error = resetError('The session closes and the stream was reset', code);
    this.#resetByUs(code, error, () => this.receive.fail(error));
  }

  /** For the session: the other side's RESET came. */
  resetByPeer(code: ResetCode): void {
    const error = resetError('The other side reset the stream', code);
    this.#fail(error, this.receive.fail(error));
  }

  /** For the session: it has ended. */
  sessionEnded(error: MeshError): void {
    this.#fail(error, this.receive.fail(error));
  }

  /** For the session: bytes that credit allowed. */
  received(bytes: Uint8Array, messageBytes: number, charged: number): void {
    this.receive.push(bytes, messageBytes, charged);
  }

  /** For the session: the other side's FIN came. */
  finReceived(): void {
    this.receive.fin();
    this.#checkOver();
  }

  /** For the outbox: our FIN was framed. */
  finSent(): void {
    this.send.finSent();
    this.#checkOver();
  }

  get #isOver(): boolean {
    return isOver(this.send.state, this.receive.state);
  }

  #resetByUs(code: ResetCode, error: MeshError, endReceive: () => HalfEnd): void {
    if (this.#isOver) return;
    // When both FINs are through, the other side knows nothing of the stream any more.
    const tell =
      this.send.state !== 'failed' && (this.send.state !== 'ended' || this.receive.state === 'open');
    this.#fail(error, endReceive());
    if (tell) this.#host.resetByUs(this, code);
  }

  #consumed(chunk: Chunk): void {
    this.#host.consumed(this, chunk.charged);
    this.#checkOver();
  }

  #fail(error: MeshError, receive: HalfEnd): void {
    const sendFailed = this.send.fail(error);
    if (receive.charged > 0) this.#host.consumed(this, receive.charged);
    if (sendFailed || receive.failed) {
      this.#failure ??= error;
      this.#abort?.abort(error);
    }
    this.#checkOver();
  }

  #checkOver(): void {
    if (!this.#isOver) return;
    this.#closed?.resolve();
    this.#host.over(this);
  }
}

/** The code of a reset, from the error that reads and writes got; null for any other error. */
export function resetCodeOf(error: unknown): ResetCode | null {
  if (!(error instanceof MeshError) || error.code !== 'stream_reset') return null;
  return error.cause as ResetCode;
}

function resetError(what: string, code: ResetCode): MeshError {
  return new MeshError('stream_reset', `${what} (${resetCodeName(code)})`, { cause: code });
}
