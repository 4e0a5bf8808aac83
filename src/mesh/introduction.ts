/**
 * One introduction, from ticket to proven link: SDP and candidates through signaling, the carrier, the proof,
 * HELLO. Both sides check the ticket before a peer connection is made; who may stay, the proofs in HELLO
 * decide. Everything ends within `limits.connectTimeoutMs`, and whatever was begun is closed on failure.
 */

import type { Clock, DeviceRecord, Hello, SignalPayload, SigningKey } from '@cocoon-mesh/protocol';
import {
  MeshError,
  deadline,
  decode,
  encodeHello,
  hashObject,
  helloSchema,
  isErrorCode,
  limits,
  negotiate,
  sessionVersions,
  toMeshError,
} from '@cocoon-mesh/protocol';
import type { Carrier } from './carrier.ts';
import type { Engine, IceServer, PeerConnection } from './engine.ts';
import type { AeadFactory } from './noise-cipher.ts';
import { prove } from './proof.ts';
import type { Standing } from './trust.ts';

/** A proven way to a peer, ready for a session. */
export interface ProvenLink {
  readonly carrier: Carrier;
  readonly connection: PeerConnection;
  readonly hello: Hello;
  readonly record: DeviceRecord;
  readonly standing: Standing;
  /** PeerId of the side that made the offer. */
  readonly dialler: string;
}

export interface IntroductionOptions {
  readonly key: SigningKey;
  readonly engine: Engine;
  readonly iceServers: readonly IceServer[];
  readonly clock: Clock;
  readonly aead?: AeadFactory;
  /** The other side. */
  readonly peerId: string;
  readonly role: 'dialler' | 'listener';
  /** Compact JWS; already verified. */
  readonly ticket: string;
  readonly sendSignal: (payload: SignalPayload) => void;
  readonly hello: () => Promise<Hello>;
  /** Is this peer, with what its HELLO says, welcome? Throws if not. */
  readonly judge: (hello: Hello) => Promise<{ record: DeviceRecord; standing: Standing }>;
  readonly signal?: AbortSignal;
}

export class Introduction {
  readonly #options: IntroductionOptions;
  readonly #connection: PeerConnection;
  readonly #abort = new AbortController();
  readonly #remoteSdp = Promise.withResolvers<string>();

  constructor(options: IntroductionOptions) {
    this.#options = options;
    this.#remoteSdp.promise.catch(() => undefined);
    this.#connection = options.engine.connect({
      iceServers: options.iceServers,
      onCandidate: (candidate) => options.sendSignal({ kind: 'candidate', candidate }),
    });
  }

  get peerId(): string {
    return this.#options.peerId;
  }

  /** A signal of the other side. */
  receive(payload: SignalPayload): void {
    const { role } = this.#options;
    switch (payload.kind) {
      case 'offer':
        if (role === 'listener') this.#remoteSdp.resolve(payload.sdp);
        return;
      case 'answer':
        if (role === 'dialler') this.#remoteSdp.resolve(payload.sdp);
        return;
      case 'candidate':
        this.#connection.addCandidate(payload.candidate);
        return;
      case 'failed':
        this.cancel(
          new MeshError(
            isErrorCode(payload.code) ? payload.code : 'carrier_lost',
            'The other side could not connect',
          ),
        );
    }
  }

  cancel(reason: MeshError): void {
    this.#abort.abort(reason);
  }

  /** @throws MeshError connect_timeout | carrier_lost | bad_sdp | proof_failed | denied | … */
  async run(): Promise<ProvenLink> {
    const { clock, signal } = this.#options;
    const limit = deadline(clock, limits.connectTimeoutMs);
    const ended = AbortSignal.any([limit.signal, this.#abort.signal, ...(signal ? [signal] : [])]);
    try {
      return await this.#establish(ended);
    } catch (thrown) {
      const error = ended.aborted ? abortError(ended) : toMeshError(thrown, 'carrier_lost');
      await this.#connection.close();
      // Silence would leave the other side waiting; it learns the code and nothing else.
      if (!this.#abort.signal.aborted) this.#options.sendSignal({ kind: 'failed', code: error.code });
      throw error;
    } finally {
      limit.cancel();
    }
  }

  async #establish(ended: AbortSignal): Promise<ProvenLink> {
    const { key, peerId, role, ticket, engine, clock, aead, hello, judge } = this.#options;
    await this.#exchangeSdp(ended);
    const carrier = await this.#connection.opened(ended);
    const { localFingerprint, remoteFingerprint } = this.#connection;
    const ours = await hello();
    const proven = await prove(carrier, {
      role,
      key,
      expectedPeer: peerId,
      binding: {
        kind: 'webrtc',
        offererFingerprint: role === 'dialler' ? localFingerprint : remoteFingerprint,
        answererFingerprint: role === 'dialler' ? remoteFingerprint : localFingerprint,
      },
      introduction: await hashObject(ticket),
      hello: encodeHello(ours),
      seal: engine.sealed,
      clock,
      signal: ended,
      ...(aead ? { aead } : {}),
    });
    try {
      const theirs = decode(helloSchema, proven.remoteHello, limits.maxHelloBytes);
      negotiate(sessionVersions, theirs.versions);
      const verdict = await judge(theirs);
      return {
        carrier: proven.carrier,
        connection: this.#connection,
        hello: theirs,
        ...verdict,
        dialler: role === 'dialler' ? key.peerId : peerId,
      };
    } catch (thrown) {
      proven.carrier.abort('the other side is not welcome');
      throw thrown;
    }
  }

  async #exchangeSdp(ended: AbortSignal): Promise<void> {
    const { role, sendSignal } = this.#options;
    if (role === 'dialler') {
      sendSignal({ kind: 'offer', sdp: await this.#connection.createOffer() });
      await this.#connection.acceptAnswer(await this.#sdpFromThem(ended));
    } else {
      const answer = await this.#connection.acceptOffer(await this.#sdpFromThem(ended));
      sendSignal({ kind: 'answer', sdp: answer });
    }
  }

  async #sdpFromThem(ended: AbortSignal): Promise<string> {
    const stop = (): void => this.#remoteSdp.reject(abortError(ended));
    ended.addEventListener('abort', stop, { once: true });
    if (ended.aborted) stop();
    try {
      return await this.#remoteSdp.promise;
    } finally {
      ended.removeEventListener('abort', stop);
    }
  }
}

function abortError(ended: AbortSignal): MeshError {
  const error = toMeshError(ended.reason, 'cancelled');
  return error.code === 'timeout' ? new MeshError('connect_timeout', undefined, { cause: error }) : error;
}
