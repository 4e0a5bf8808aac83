/**
 * The payload of an OPEN frame: length of the protocol name (u8), the name in UTF-8, the header. Names repeat
 * with every request, so both directions remember the few that are in use.
 */

import { concat, fromUtf8, MeshError, utf8 } from '@cocoon-mesh/protocol';

interface KnownName {
  readonly text: string;
  /** Length byte and name, as on the wire. */
  readonly encoded: Uint8Array;
}

/** A session speaks about ten protocols; more names than this are simply encoded again. */
const maxKnownNames = 16;

export class ProtocolNames {
  readonly #known: KnownName[] = [];

  /** @throws MeshError usage when the name has no or more than 255 bytes */
  encode(text: string): Uint8Array {
    for (const known of this.#known) if (known.text === text) return known.encoded;
    const name = utf8(text);
    if (name.length === 0 || name.length > 255) {
      throw new MeshError('usage', 'A protocol name has 1 to 255 bytes');
    }
    return this.#remember({ text, encoded: concat(Uint8Array.of(name.length), name) }).encoded;
  }

  /**
   * The name at the start of an OPEN payload; the header follows at 1 + its length in bytes.
   * @throws MeshError protocol_violation when it is empty, cut off or not UTF-8
   */
  decode(message: Uint8Array, at: number, end: number): string {
    const nameEnd = at + 1 + (message[at] ?? 0);
    if (at >= end || nameEnd === at + 1 || nameEnd > end) {
      throw new MeshError('protocol_violation', 'the protocol name of an OPEN is cut off');
    }
    for (const known of this.#known) {
      if (isAt(known.encoded, message, at)) return known.text;
    }
    const encoded = message.slice(at, nameEnd);
    try {
      return this.#remember({ text: fromUtf8(encoded.subarray(1)), encoded }).text;
    } catch (cause) {
      throw new MeshError('protocol_violation', 'the protocol name of an OPEN is not UTF-8', { cause });
    }
  }

  #remember(name: KnownName): KnownName {
    if (this.#known.length < maxKnownNames) this.#known.push(name);
    return name;
  }
}

function isAt(expected: Uint8Array, message: Uint8Array, at: number): boolean {
  for (let i = 0; i < expected.length; i++) if (expected[i] !== message[at + i]) return false;
  return true;
}
