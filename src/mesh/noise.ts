/**
 * The Noise XX handshake of @libp2p/noise, used on its own: messages in, messages out, and at the end the two
 * transport keys. No libp2p node, no stream of theirs on our carrier: each handshake message is one carrier
 * message, so nothing can be left over in a buffer. What it is bound to (prologue), how long it may take and
 * what happens on failure are the proof's matter.
 */

import type { Bytes, SigningKey } from '@cocoon-mesh/protocol';
import { concat, fromUtf8, limits, MeshError } from '@cocoon-mesh/protocol';
import { publicKeyFromRaw } from '@libp2p/crypto/keys';
import type {
  ComponentLogger,
  Ed25519PrivateKey,
  Ed25519PublicKey,
  Logger,
  PeerId,
  Upgrader,
} from '@libp2p/interface';
import type { ICryptoInterface } from '@libp2p/noise';
import { noise } from '@libp2p/noise';
import { defaultCrypto } from '@libp2p/noise/crypto';
import { peerIdFromPublicKey, peerIdFromString } from '@libp2p/peer-id';
import type { SendResult } from '@libp2p/utils';
import { AbstractMessageStream } from '@libp2p/utils';

/** The ticket's offerer is the dialler and speaks first (Noise: initiator). */
export type ProofRole = 'dialler' | 'listener';

/** ChaCha20-Poly1305 keys of 32 bytes, one per direction. */
export interface NoiseKeys {
  readonly send: Bytes;
  readonly receive: Bytes;
  /** A third secret only these two ends know, equal on both: binds later handshakes to this one. */
  readonly exporter: Bytes;
}

export interface NoiseOutcome {
  readonly keys: NoiseKeys;
  /**
   * The dialler's third message, which its owner sends when it is ready for what comes back: an answer could
   * otherwise arrive before the keys do. Null for the listener.
   */
  readonly lastMessage: Uint8Array | null;
}

export interface NoiseOptions {
  readonly role: ProofRole;
  readonly key: SigningKey;
  /** PeerId that the other side must prove. */
  readonly expectedPeer: string;
  /** What both sides must agree on; any difference fails the handshake. */
  readonly prologue: Uint8Array;
  readonly send: (message: Uint8Array) => void;
  /** Ends the handshake; `finished` then rejects. */
  readonly signal: AbortSignal;
}

/** The label that libp2p puts before a static Noise key, the only thing a device key signs here. */
const staticKeyLabel = 'noise-libp2p-static-key:';
/** libp2p writes each message behind its length, which a carrier with message boundaries does not need. */
const lengthBytes = 2;

export class NoiseHandshake {
  /** Rejects with MeshError proof_failed and the library's error as cause. */
  readonly finished: Promise<NoiseOutcome>;
  readonly #pipe: HandshakePipe;
  /** Messages still to come: the listener reads the first and the third, the dialler the second. */
  #expected: number;
  #bytes = 0;

  constructor(options: NoiseOptions) {
    this.#expected = options.role === 'dialler' ? 1 : 2;
    this.#pipe = new HandshakePipe(options);
    this.finished = run(options, this.#pipe);
  }

  /** True while a message of the handshake is still to come from the other side. */
  get wantsMessage(): boolean {
    return this.#expected > 0;
  }

  /** @throws MeshError proof_failed over `maxProofBytes` or when no message was expected */
  receive(message: Uint8Array): void {
    this.#bytes += message.length;
    if (this.#bytes > limits.maxProofBytes) throw new MeshError('proof_failed', 'The handshake is too large');
    if (this.#expected-- <= 0) throw new MeshError('proof_failed', 'The handshake has too many messages');
    this.#pipe.receive(message);
  }
}

export function dropKeys({ send, receive, exporter }: NoiseKeys): void {
  for (const key of [send, receive, exporter]) key.fill(0);
}

async function run(options: NoiseOptions, pipe: HandshakePipe): Promise<NoiseOutcome> {
  const { role, key, prologue, signal } = options;
  try {
    const expected = ed25519PeerId(options.expectedPeer);
    const capture = new SplitCapture(role);
    const privateKey = new NoiseIdentity(key);
    const encrypter = noise({ prologueBytes: prologue, crypto: capture.crypto })({
      privateKey,
      peerId: peerIdFromPublicKey(privateKey.publicKey),
      logger: silentLogger,
      upgrader: noUpgrader,
    });
    const settings = { remotePeer: expected, signal, skipStreamMuxerNegotiation: true };
    const secured =
      role === 'dialler'
        ? await encrypter.secureOutbound(pipe, settings)
        : await encrypter.secureInbound(pipe, settings);
    signal.throwIfAborted();
    // The library compares the keys only when the expected id carries one; this holds in any case.
    if (secured.remotePeer?.toString() !== options.expectedPeer) throw new Error('another peer was proven');
    return { keys: capture.keys(), lastMessage: pipe.lastMessage };
  } catch (error) {
    throw error instanceof MeshError ? error : new MeshError('proof_failed', undefined, { cause: error });
  }
}

function ed25519PeerId(text: string): PeerId {
  const id = peerIdFromString(text);
  // Other kinds may be named by a hash alone, against which the library would check nothing.
  if (id.type !== 'Ed25519') throw new Error('the expected peer is not an Ed25519 key');
  return id;
}

/**
 * Noise ends with Split(): HKDF over the chaining key with no input. It is the only HKDF of an XX handshake
 * with no input (the others mix in a shared secret), so the injected HKDF sees the transport keys there. That
 * is how we get them without the library's stream, which knows no message boundaries.
 * Noise rev. 34, sections 5.2 and 7.5.
 */
class SplitCapture {
  readonly crypto: ICryptoInterface;
  readonly #role: ProofRole;
  #split: readonly [Uint8Array, Uint8Array, Uint8Array][] = [];

  constructor(role: ProofRole) {
    this.#role = role;
    this.crypto = {
      ...defaultCrypto,
      getHKDF: (chainingKey, input) => {
        const derived = defaultCrypto.getHKDF(chainingKey, input);
        if (input.length === 0) this.#split = [...this.#split, derived];
        return derived;
      },
    };
  }

  /** Copies, and overwrites the library's own: from here on, dropping the keys is in our hands. */
  keys(): NoiseKeys {
    const [split, ...more] = this.#split;
    if (!split || more.length > 0) throw new Error('the Noise library did not split exactly once');
    const [first, second, exporter] = split.map((key) => new Uint8Array(key)) as [Bytes, Bytes, Bytes];
    for (const key of split) key.fill(0);
    this.#split = [];
    return this.#role === 'dialler'
      ? { send: first, receive: second, exporter }
      : { send: second, receive: first, exporter };
  }
}

/** The library's idea of a connection, ending in our two functions. */
class HandshakePipe extends AbstractMessageStream {
  lastMessage: Uint8Array | null = null;
  readonly #send: (message: Uint8Array) => void;
  readonly #role: ProofRole;
  #sent = 0;

  constructor({ role, send }: NoiseOptions) {
    super({ log: silentLog, direction: role === 'dialler' ? 'outbound' : 'inbound' });
    this.#send = send;
    this.#role = role;
  }

  receive(message: Uint8Array): void {
    this.onData(concat(Uint8Array.of(message.length >>> 8, message.length), message));
  }

  sendData(data: Parameters<AbstractMessageStream['sendData']>[0]): SendResult {
    const message = data.subarray(lengthBytes);
    this.#sent++;
    if (this.#role === 'dialler' && this.#sent === 2) this.lastMessage = message;
    else this.#send(message);
    return { sentBytes: data.byteLength, canSendMore: true };
  }

  // The carrier belongs to the proof: nothing that the library does to this stream reaches it.
  sendReset(): void {}
  sendPause(): void {}
  sendResume(): void {}
  async close(): Promise<void> {}
}

/** A device key in the shape the library asks for; works with keys that cannot be exported. */
class NoiseIdentity implements Ed25519PrivateKey {
  readonly type = 'Ed25519';
  readonly publicKey: Ed25519PublicKey;
  readonly #key: SigningKey;

  constructor(key: SigningKey) {
    this.#key = key;
    this.publicKey = publicKeyFromRaw(key.publicKey) as Ed25519PublicKey;
  }

  get raw(): Uint8Array {
    throw new Error('the private key cannot be read');
  }

  equals(other?: unknown): boolean {
    return other === this;
  }

  async sign(data: Parameters<Ed25519PrivateKey['sign']>[0]): Promise<Uint8Array> {
    const bytes = data.subarray();
    // Every signature has one purpose: this door signs a labelled 32-byte key and nothing else.
    const labelled = bytes.length === staticKeyLabel.length + 32;
    if (!labelled || fromUtf8(bytes.subarray(0, staticKeyLabel.length)) !== staticKeyLabel) {
      throw new Error('asked to sign something other than a static Noise key');
    }
    return this.#key.sign(bytes);
  }
}

/** The library can log its secret keys when told to by the environment; this logger is never enabled. */
const silentLog: Logger = Object.assign((): void => {}, {
  error: (): void => {},
  trace: (): void => {},
  newScope: (): Logger => silentLog,
  enabled: false,
});
const silentLogger: ComponentLogger = { forComponent: () => silentLog };

/** Only asked for stream multiplexers, of which we have our own. */
const noUpgrader = { getStreamMuxers: () => new Map() } as unknown as Upgrader;
