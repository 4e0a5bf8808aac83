/**
 * What features see of a session: a stream of bytes both ways, opened with a header, half-closed by `end`,
 * cut by `reset`. Reading is a pull: credit goes back to the sender only for what was read, so a slow reader
 * stops the sender and nothing piles up. So whoever takes a stream reads it to its end or resets it: bytes that
 * nobody reads keep the stream open, and its place among `limits.maxStreams`, until the session ends.
 */

import type { ResetCode } from '@cocoon-mesh/protocol';

export interface Stream {
  readonly id: number;
  /** `/cocoon/<name>/<major>`. */
  readonly protocol: string;
  /** The opener's header bytes, at most `limits.maxOpenHeaderBytes`; its schema is the protocol's matter. */
  readonly header: Uint8Array;

  /**
   * Queues bytes; they belong to the session from here on. Returns false when the caller should wait for
   * `drained` first (writing anyway is allowed and grows memory). Empty chunks are ignored.
   * @throws MeshError stream_reset | session_closed when the stream is over
   */
  write(bytes: Uint8Array): boolean;
  /** Resolves when the queue is short again; rejects when the stream ends by reset or with the session. */
  drained(): Promise<void>;
  /** No more bytes from us. Idempotent. */
  end(): void;
  /**
   * Ends both directions at once; the other side's reads and writes fail with this code. Idempotent.
   * What the other side had ended before its own reset came whole and stays readable.
   */
  reset(code: ResetCode): void;

  /**
   * The next bytes, or null after the other side's `end`. One reader at a time.
   * @throws MeshError stream_reset (cause: code) | session_closed | carrier_lost
   */
  read(): Promise<Uint8Array | null>;

  /** Aborted when the stream was reset by either side or its session ended; not by a clean finish. */
  readonly signal: AbortSignal;
  /** Resolves when both directions are over, in whatever way. Never rejects. */
  readonly closed: Promise<void>;
}
