/**
 * A carrier is a pipe of messages to one peer: reliable, in order, nothing else. Who the peer is, is the
 * proof's matter; what the messages mean, the session's. Implementations: data channels of each WebRTC
 * engine, the Noise seal that wraps another carrier, and an in-memory pair for tests.
 */

export interface CarrierEvents {
  /** One whole message. The bytes belong to the receiver. Never empty. */
  message(bytes: Uint8Array): void;
  /** `writable` became true again. */
  writable(): void;
  /** Called exactly once, whoever closed; nothing follows it. `reason` is for logs. */
  closed(reason: string): void;
}

export interface Carrier {
  readonly kind: 'webrtc' | 'tcp' | 'relay' | 'memory';
  /** Largest message `send` takes, in bytes. */
  readonly maxMessageBytes: number;
  /** False above the high-water mark: wait for `writable`. Sending anyway is allowed for control frames. */
  readonly writable: boolean;
  /** Bytes accepted by `send` and not yet handed to the network, as far as the carrier knows. */
  readonly bufferedBytes: number;
  /**
   * Queues one message of 1 to `maxMessageBytes` bytes. The carrier keeps the bytes by reference: the caller
   * never touches them again. After the close it does nothing.
   */
  send(message: Uint8Array): void;
  /**
   * Takes over delivery. Messages that came before are delivered first, in order. May be called again to
   * hand the carrier on (proof → session); a close that happened before is reported to the new handlers.
   */
  start(events: CarrierEvents): void;
  /**
   * Sends what is queued (at most `closeDrainMs`), then closes. Until `closed`, messages may still come.
   * Idempotent.
   */
  close(reason?: string): Promise<void>;
  /** Closes at once; queued messages may be lost. */
  abort(reason: string): void;
}
