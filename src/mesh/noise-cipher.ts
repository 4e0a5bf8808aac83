/**
 * Noise transport messages: one key and one counter per direction (Noise rev. 34, sections 5.1 and 11.4).
 * The cipher itself comes in from outside, because the fast one of Node cannot run in a browser.
 */

import { concat, MeshError } from '@cocoon-mesh/protocol';
import { pureJsCrypto } from '@libp2p/noise';

/** ChaCha20-Poly1305 (RFC 8439) under one key, without associated data; the tag stands last. */
export interface Aead {
  /** Encrypts the parts as if they were one. The result is new memory. */
  seal(nonce: Uint8Array, parts: readonly Uint8Array[]): Uint8Array;
  /** @throws when the tag does not fit */
  open(nonce: Uint8Array, sealed: Uint8Array): Uint8Array;
  /** Overwrites or lets go of the key. Nothing can be sealed or opened afterwards. */
  drop(): void;
}

/** Takes the key over and overwrites it, at the latest in `drop`. */
export type AeadFactory = (key: Uint8Array) => Aead;

export const noiseTagBytes = 16;
/** Noise rev. 34, section 3. */
export const maxNoiseMessageBytes = 65_535;

/**
 * Noise would count to 2^64. Four bytes are what @libp2p/noise counts to, and keys are renewed long before
 * (`limits.sealRenewMessages`); whoever gets here has a peer that refuses to renew.
 */
const maxMessages = 2 ** 32 - 1;
const noAssociatedData = new Uint8Array(0);

/** Runs everywhere; about 250 MB/s. */
export const portableAead: AeadFactory = (key) => {
  let secret: Uint8Array | null = key;
  return {
    seal(nonce, parts) {
      const [only, ...more] = parts;
      const message = only && more.length === 0 ? only : concat(...parts);
      return pureJsCrypto.chaCha20Poly1305Encrypt(message, nonce, noAssociatedData, held(secret)).subarray();
    },
    open(nonce, sealed) {
      return pureJsCrypto.chaCha20Poly1305Decrypt(sealed, nonce, noAssociatedData, held(secret)).subarray();
    },
    drop() {
      secret?.fill(0);
      secret = null;
    },
  };
};

export class NoiseCipher {
  readonly #aead: Aead;
  readonly #nonce = new Uint8Array(12);
  readonly #counter = new DataView(this.#nonce.buffer);
  #messages = 0;

  constructor(aead: Aead) {
    this.#aead = aead;
  }

  /** Messages so far. */
  get messages(): number {
    return this.#messages;
  }

  /** @throws MeshError protocol_violation when the counter is used up */
  seal(...parts: readonly Uint8Array[]): Uint8Array {
    const sealed = this.#aead.seal(this.#nonce, parts);
    this.#advance();
    return sealed;
  }

  /** @throws MeshError protocol_violation when the message was changed, repeated, left out or reordered */
  open(sealed: Uint8Array): Uint8Array {
    let message: Uint8Array;
    try {
      if (sealed.length < noiseTagBytes) throw new RangeError('shorter than its tag');
      message = this.#aead.open(this.#nonce, sealed);
    } catch (error) {
      throw new MeshError('protocol_violation', 'A sealed message does not verify', { cause: error });
    }
    this.#advance();
    return message;
  }

  drop(): void {
    this.#aead.drop();
  }

  #advance(): void {
    if (this.#messages >= maxMessages) throw new MeshError('protocol_violation', 'The keys are used up');
    this.#messages++;
    this.#counter.setUint32(4, this.#messages, true);
  }
}

/** @throws when the key was dropped */
export function held<Key>(key: Key | null): Key {
  if (key === null) throw new MeshError('internal', 'The key was dropped');
  return key;
}
