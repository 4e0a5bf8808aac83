/**
 * Puts handshake fragments back together and in order (RFC 6347 section 4.2.2), so that datagrams may come
 * late, twice or in any order. Bounded: a few messages ahead, none larger than any real one.
 */

/** Certificates and hellos are below 2 KiB; sixteen leaves room for long chains. */
const maxMessageBytes = 16 * 1024;
/** A flight has at most six messages. */
const maxMessagesAhead = 8;

export interface HandshakeMessage {
  readonly type: number;
  readonly sequence: number;
  readonly epoch: number;
  readonly body: Buffer;
}

interface Partial {
  readonly type: number;
  readonly epoch: number;
  readonly body: Buffer;
  readonly have: Uint8Array;
  missing: number;
}

export class HandshakeReassembly {
  readonly #partials = new Map<number, Partial>();
  #next = 0;

  /**
   * Takes the payload of one handshake record. `onMessage` gets each message once, in order; `onRepeated` gets
   * whole messages of numbers that have passed.
   */
  add(
    payload: Buffer,
    epoch: number,
    onMessage: (message: HandshakeMessage) => void,
    onRepeated: (message: HandshakeMessage) => void = () => {},
  ): void {
    for (let offset = 0; offset + 12 <= payload.length;) {
      const type = payload.readUInt8(offset);
      const length = payload.readUIntBE(offset + 1, 3);
      const sequence = payload.readUInt16BE(offset + 4);
      const at = payload.readUIntBE(offset + 6, 3);
      const end = offset + 12 + payload.readUIntBE(offset + 9, 3);
      const fragment = payload.subarray(offset + 12, end);
      if (end > payload.length) return;
      offset = end;
      if (length > maxMessageBytes || at + fragment.length > length) continue;
      if (sequence < this.#next) {
        if (fragment.length === length) onRepeated({ type, sequence, epoch, body: fragment });
        continue;
      }
      if (sequence > this.#next + maxMessagesAhead) continue;
      this.#place(sequence, type, epoch, length, at, fragment);
      this.#release(onMessage);
    }
  }

  #place(sequence: number, type: number, epoch: number, length: number, at: number, fragment: Buffer): void {
    let partial = this.#partials.get(sequence);
    if (!partial) {
      partial = { type, epoch, body: Buffer.alloc(length), have: new Uint8Array(length), missing: length };
      this.#partials.set(sequence, partial);
    }
    // The first writer wins; whether what it wrote is true is checked on the whole message.
    if (partial.type !== type || partial.epoch !== epoch || partial.body.length !== length) return;
    for (let i = 0; i < fragment.length; i++) {
      if (partial.have[at + i] === 1) continue;
      partial.have[at + i] = 1;
      partial.body[at + i] = fragment[i] ?? 0;
      partial.missing--;
    }
  }

  #release(onMessage: (message: HandshakeMessage) => void): void {
    for (;;) {
      const partial = this.#partials.get(this.#next);
      if (!partial || partial.missing > 0) return;
      const sequence = this.#next++;
      this.#partials.delete(sequence);
      onMessage({ type: partial.type, sequence, epoch: partial.epoch, body: partial.body });
    }
  }
}
