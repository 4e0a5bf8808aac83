/**
 * The proof between two peers on a fresh carrier: Noise XX, bound to the carrier and to the introduction,
 * then one HELLO each way under Noise. It ends with a carrier for the session: the plain one where its own
 * encryption is enough, otherwise one that Noise keeps encrypting. What HELLO says, and whether that peer is
 * welcome, is judged by the caller before it starts a session.
 */

import type { Bytes, Clock, SigningKey, Timer } from '@cocoon-mesh/protocol';
import {
  concat,
  FrameType,
  frameHeadBytes,
  lengthPrefixed,
  limits,
  MeshError,
  readFrameHead,
  toMeshError,
  utf8,
  writeFrameHead,
} from '@cocoon-mesh/protocol';
import type { Carrier } from './carrier.ts';
import { HeldCarrier } from './held-carrier.ts';
import type { AeadFactory } from './noise-cipher.ts';
import { maxNoiseMessageBytes, NoiseCipher, noiseTagBytes, portableAead } from './noise-cipher.ts';
import type { NoiseOutcome, ProofRole } from './noise.ts';
import { dropKeys, NoiseHandshake } from './noise.ts';
import { SealedCarrier } from './sealed-carrier.ts';

/** What ties the proof to this one carrier, so that it cannot be passed on to another. */
export type ChannelBinding =
  | {
      readonly kind: 'webrtc';
      /** SHA-256 of the certificate of the ticket's offerer, 32 bytes. */
      readonly offererFingerprint: Uint8Array;
      readonly answererFingerprint: Uint8Array;
    }
  | { readonly kind: 'memory'; readonly value: Uint8Array };

export interface ProofOptions {
  readonly role: ProofRole;
  readonly key: SigningKey;
  /** PeerId that the other side must prove. */
  readonly expectedPeer: string;
  readonly binding: ChannelBinding;
  /** 32 bytes both sides know: SHA-256 of the ticket, or of what stands in its place. */
  readonly introduction: Bytes;
  /** Our encoded HELLO, at most `limits.maxHelloBytes`. */
  readonly hello: Bytes;
  /** Noise keeps encrypting, whatever the other side says: our own engine is not trusted alone. */
  readonly seal: boolean;
  readonly clock: Clock;
  readonly signal?: AbortSignal;
  /** Default: the portable one. Node passes `nodeAead`. */
  readonly aead?: AeadFactory;
}

export interface Proven {
  /** In place of the carrier passed in, which belongs to this one now. */
  readonly carrier: Carrier;
  readonly remoteHello: Uint8Array;
  /** True where Noise keeps encrypting, because one side or both demand it. */
  readonly sealed: boolean;
}

const proofLabel = 'cocoon/proof/1';
const introductionBytes = 32;
/** First byte of a HELLO's payload. The other bits are zero. */
const HelloFlag = { none: 0, sealed: 1 } as const;
const helloOverhead = frameHeadBytes + 1;
/** A peer that is done may send its whole first credit before our caller has judged its HELLO. */
const maxHeldBytes = 2 * limits.sessionWindowBytes;
/** A carrier is proven once: whoever asks again has lost track of who owns it. */
const proven = new WeakSet<Carrier>();

/**
 * Takes at most `limits.proofTimeoutMs`. On any failure the carrier is aborted and nothing is left running.
 * @throws MeshError proof_failed (cause: why, for logs) | proof_timeout | self_connect | cancelled |
 * message_too_large when our own HELLO does not fit
 */
export async function prove(carrier: Carrier, options: ProofOptions): Promise<Proven> {
  try {
    checkOptions(carrier, options);
  } catch (error) {
    carrier.abort('the proof cannot start');
    throw error;
  }
  proven.add(carrier);
  return new Proof(carrier, options).outcome;
}

/** The bytes that both sides must agree on before Noise yields a key. */
export function proofPrologue(
  options: Pick<ProofOptions, 'role' | 'key' | 'expectedPeer' | 'binding'>,
  introduction: Uint8Array,
): Bytes {
  const { role, key, expectedPeer, binding } = options;
  const [dialler, listener] = role === 'dialler' ? [key.peerId, expectedPeer] : [expectedPeer, key.peerId];
  return lengthPrefixed(
    utf8(proofLabel),
    utf8(binding.kind),
    utf8(dialler),
    utf8(listener),
    bindingBytes(binding),
    introduction,
  );
}

function bindingBytes(binding: ChannelBinding): Uint8Array {
  if (binding.kind === 'memory') return binding.value;
  return lengthPrefixed(binding.offererFingerprint, binding.answererFingerprint);
}

function checkOptions(carrier: Carrier, options: ProofOptions): void {
  const { key, expectedPeer, binding, introduction, hello } = options;
  if (options.signal?.aborted) throw toMeshError(options.signal.reason, 'cancelled');
  if (expectedPeer === key.peerId) throw new MeshError('self_connect');
  if (proven.has(carrier)) throw new MeshError('proof_failed', 'The carrier was proven before');
  if (binding.kind !== carrier.kind) throw new MeshError('proof_failed', 'The binding is of another carrier');
  if (binding.kind === 'webrtc') checkFingerprints(binding.offererFingerprint, binding.answererFingerprint);
  if (introduction.length !== introductionBytes) {
    throw new MeshError('proof_failed', 'An introduction has 32 bytes');
  }
  if (hello.length > maxHello(carrier)) throw new MeshError('message_too_large', 'Our HELLO is too large');
}

function checkFingerprints(...fingerprints: readonly Uint8Array[]): void {
  for (const fingerprint of fingerprints) {
    if (fingerprint.length !== 32) throw new MeshError('proof_failed', 'A SHA-256 fingerprint has 32 bytes');
  }
}

/** A HELLO is one frame in one Noise message in one carrier message. */
function maxHello(carrier: Carrier): number {
  const room = Math.min(carrier.maxMessageBytes, maxNoiseMessageBytes) - noiseTagBytes - helloOverhead;
  return Math.min(limits.maxHelloBytes, room);
}

type State =
  /** The dialler's HELLO may follow its last handshake message before we have checked that one. */
  | { readonly name: 'handshake'; readonly handshake: NoiseHandshake; early: Uint8Array | null }
  /** Our HELLO is sent, theirs awaited. */
  | { readonly name: 'hello'; readonly send: NoiseCipher; readonly receive: NoiseCipher; exporter: Bytes }
  | { readonly name: 'over' };

class Proof {
  readonly outcome: Promise<Proven>;
  readonly #options: ProofOptions;
  readonly #carrier: HeldCarrier;
  readonly #abort = new AbortController();
  readonly #timer: Timer;
  readonly #resolve: (proven: Proven) => void;
  readonly #reject: (error: MeshError) => void;
  #state: State;

  constructor(carrier: Carrier, options: ProofOptions) {
    const { promise, resolve, reject } = Promise.withResolvers<Proven>();
    this.outcome = promise;
    this.#resolve = resolve;
    this.#reject = reject;
    this.#options = options;
    this.#carrier = new HeldCarrier(carrier, maxHeldBytes);
    proven.add(this.#carrier);
    this.#timer = options.clock.after(limits.proofTimeoutMs, () =>
      this.#fail(new MeshError('proof_timeout')),
    );
    options.signal?.addEventListener('abort', this.#cancel);
    const handshake = this.#newHandshake(options.introduction, this.#abort.signal, (message) =>
      this.#carrier.send(message),
    );
    this.#state = { name: 'handshake', handshake, early: null };
    handshake.finished.then(
      (outcome) => this.#guard(() => this.#noiseFinished(outcome)),
      (error: unknown) => this.#broken(error),
    );
    this.#carrier.start({
      message: (bytes) => this.#guard(() => this.#message(bytes)),
      writable: () => {},
      closed: (reason) => this.#broken(new Error(`the carrier closed: ${reason}`)),
    });
  }

  #newHandshake(
    introduction: Uint8Array,
    signal: AbortSignal,
    send: (message: Uint8Array) => void,
  ): NoiseHandshake {
    const { role, key, expectedPeer } = this.#options;
    const prologue = proofPrologue(this.#options, introduction);
    return new NoiseHandshake({ role, key, expectedPeer, prologue, send, signal });
  }

  #message(bytes: Uint8Array): void {
    const state = this.#state;
    if (state.name === 'over') return;
    if (state.name === 'hello') this.#helloCame(state, bytes);
    else if (state.handshake.wantsMessage) state.handshake.receive(bytes);
    // Nobody has a reason to send more than a HELLO before our own HELLO is out.
    else if (state.early === null) state.early = bytes;
    else throw new Error('a second message before HELLO');
  }

  #noiseFinished({ keys, lastMessage }: NoiseOutcome): void {
    const state = this.#state;
    if (state.name !== 'handshake') return dropKeys(keys);
    const aead = this.#options.aead ?? portableAead;
    const next: State = {
      name: 'hello',
      send: new NoiseCipher(aead(keys.send)),
      receive: new NoiseCipher(aead(keys.receive)),
      exporter: keys.exporter,
    };
    this.#state = next;
    if (lastMessage) this.#carrier.send(lastMessage);
    this.#carrier.send(next.send.seal(encodeHello(this.#options)));
    if (state.early && this.#state === next) this.#helloCame(next, state.early);
  }

  /** From here on the next message is the session's, however soon it comes. */
  #helloCame(state: State & { name: 'hello' }, bytes: Uint8Array): void {
    if (bytes.length > maxHello(this.#carrier) + helloOverhead + noiseTagBytes) {
      throw new MeshError('message_too_large', 'The HELLO is too large');
    }
    const { hello, flags } = decodeHello(state.receive.open(bytes));
    const sealed = this.#options.seal || flags === HelloFlag.sealed;
    this.#finish();
    this.#carrier.hold();
    this.#resolve({ carrier: sealed ? this.#seal(state) : this.#plain(state), remoteHello: hello, sealed });
  }

  #seal({ send, receive, exporter }: State & { name: 'hello' }): Carrier {
    const { role, clock, aead = portableAead } = this.#options;
    const carrier = new SealedCarrier(this.#carrier, {
      role,
      send,
      receive,
      exporter,
      aead,
      clock,
      handshake: (introduction, signal, sendMessage) => this.#newHandshake(introduction, signal, sendMessage),
    });
    proven.add(carrier);
    return carrier;
  }

  #plain({ send, receive, exporter }: State & { name: 'hello' }): Carrier {
    send.drop();
    receive.drop();
    exporter.fill(0);
    return this.#carrier;
  }

  readonly #cancel = (): void => {
    this.#fail(toMeshError(this.#options.signal?.reason, 'cancelled'));
  };

  /** What another side's bytes can throw ends in one place. */
  #guard(step: () => void): void {
    try {
      step();
    } catch (error) {
      this.#broken(error);
    }
  }

  /** Whatever the other side did is one error; what it was stands in the cause, for logs. */
  #broken(thrown: unknown): void {
    const ours = thrown instanceof MeshError && thrown.code === 'proof_failed';
    this.#fail(ours ? thrown : new MeshError('proof_failed', undefined, { cause: thrown }));
  }

  #fail(error: MeshError): void {
    const state = this.#state;
    if (state.name === 'over') return;
    this.#finish();
    if (state.name === 'hello') this.#plain(state);
    this.#abort.abort(error);
    this.#reject(error);
    this.#carrier.abort(error.message);
  }

  #finish(): void {
    this.#state = { name: 'over' };
    this.#timer.cancel();
    this.#options.signal?.removeEventListener('abort', this.#cancel);
  }
}

function encodeHello({ hello, seal }: ProofOptions): Bytes {
  const head = new Uint8Array(helloOverhead);
  writeFrameHead(head, 0, FrameType.hello, 0, 1 + hello.length, 0);
  head[frameHeadBytes] = seal ? HelloFlag.sealed : HelloFlag.none;
  return concat(head, hello);
}

/** @throws MeshError protocol_violation unless it is exactly one HELLO frame */
function decodeHello(message: Uint8Array): { hello: Uint8Array; flags: number } {
  const head = readFrameHead(message, 0);
  const flags = message[frameHeadBytes];
  const alone = head.length === message.length - frameHeadBytes && head.streamId === 0 && head.flags === 0;
  if (head.type !== FrameType.hello || !alone || flags === undefined || flags > HelloFlag.sealed) {
    throw new MeshError('protocol_violation', 'Exactly one HELLO must follow the handshake');
  }
  return { hello: message.slice(helloOverhead), flags };
}
