/**
 * The connection to signaling: signs in, keeps the socket alive, comes back with back-off and jitter when it is
 * lost. It hands messages up and knows nothing of what they mean for devices and sessions. Losing it touches no
 * live session.
 */

import type {
  ClientMessage,
  Clock,
  ErrorCode,
  MembershipProof,
  Redemption,
  ServerMessage,
  SigningKey,
  Timer,
} from '@cocoon-mesh/protocol';
import {
  MeshError,
  SignatureLabel,
  clientMessageSchema,
  decode,
  decodeJson,
  encode,
  encodeJson,
  every,
  fromBase64Url,
  isErrorCode,
  limits,
  randomBytes,
  serverMessageSchema,
  signInParts,
  signLabelled,
  signalingSubprotocols,
  toBase64Url,
  toMeshError,
} from '@cocoon-mesh/protocol';
import { backoffMs } from './backoff.ts';
import type { SignalingSocket, SignalingSocketFactory } from './signaling-socket.ts';

/** Who signs in: a member, or the holder of a token that makes it one. */
export type Credentials = ({ readonly membership: MembershipProof } | { readonly redemption: Redemption }) & {
  readonly record: string;
  /** For a server that asks for one. */
  readonly oidc_token?: string;
};

export type Welcome = ServerMessage & { type: 'welcome' };

export type SignalingState =
  | { readonly state: 'connecting' }
  | {
      readonly state: 'connected';
      readonly receiptKey: Uint8Array;
      readonly ticketKey: Uint8Array;
      readonly accessToken: string;
      /** Signaling's clock minus ours, milliseconds. */
      readonly clockOffsetMs: number;
    }
  | {
      readonly state: 'waiting';
      readonly code: ErrorCode;
      readonly message: string;
      readonly retryAtMs: number;
    }
  /** Signaling refuses this peer for good: trying again with the same credentials will not help. */
  | { readonly state: 'refused'; readonly code: ErrorCode; readonly message: string }
  | { readonly state: 'closed' };

export interface SignalingClientOptions {
  readonly url: string;
  readonly openSocket: SignalingSocketFactory;
  readonly key: SigningKey;
  readonly clock: Clock;
  /** In [0, 1). */
  readonly random: () => number;
  /** Asked anew at each sign-in. */
  readonly credentials: () => Promise<Credentials>;
  /** Awaited before the state becomes `connected`; a throw counts as a refusal by us. */
  readonly welcomed: (welcome: Welcome) => Promise<void>;
  readonly message: (message: ServerMessage) => void;
  readonly changed: (state: SignalingState) => void;
}

/** Codes after which the same credentials can never succeed. */
const finalCodes = new Set([
  'token_invalid',
  'token_expired',
  'token_not_yet_valid',
  'token_used',
  'token_wrong_signaling',
  'membership_expired',
  'revoked',
  'unknown_constraint',
]);

/**
 * The owner has rotated its secret: a new membership comes from somewhere, mostly soon, as part of the same rotation,
 * or in its own time.
 */
const slowCodes = new Set(['membership_invalid']);
const firstSlowRetriesMs = [2_000, 5_000, 15_000];
const slowRetryMs = 60_000;

/** The life of one socket; messages of an older socket are ignored by identity. */
interface Attempt {
  readonly socket: SignalingSocket;
  readonly nonce: string;
  readonly deadline: Timer;
  json: boolean;
  phase: 'opening' | 'challenged' | 'proving' | 'welcomed';
  lastMessageMs: number;
  /** Why the server says it closes. */
  error: MeshError | null;
  retryAfterMs: number | null;
}

type Pending = { resolve(message: ServerMessage): void; reject(error: MeshError): void; timer: Timer };

export class SignalingClient {
  readonly #options: SignalingClientOptions;
  readonly #pending = new Map<number, Pending>();
  #state: SignalingState = { state: 'closed' };
  #attempt: Attempt | null = null;
  #failures = 0;
  #slowRetries = 0;
  /** What the last attempt failed with, if that was more than the line. */
  #refusal: MeshError | null = null;
  #nextId = 1;
  #retry: Timer | null = null;
  #heartbeat: Timer | null = null;

  constructor(options: SignalingClientOptions) {
    this.#options = options;
  }

  get state(): SignalingState {
    return this.#state;
  }

  /** Why nothing can be asked here now: what this peer was refused with, else `signaling_unreachable`. */
  get problem(): MeshError {
    const { code, message } = this.#refusal ?? new MeshError('signaling_unreachable');
    return new MeshError(code, message);
  }

  start(): void {
    if (this.#state.state !== 'closed') return;
    this.#heartbeat = every(this.#options.clock, limits.signalingPingMs, () => this.#checkAlive());
    this.#connect();
  }

  /** Tries once more after a refusal. */
  again(): void {
    if (this.#state.state === 'refused') this.#connect();
  }

  /** Idempotent; pending requests fail. */
  close(): void {
    this.#retry?.cancel();
    this.#heartbeat?.cancel();
    const attempt = this.#attempt;
    this.#attempt = null;
    attempt?.deadline.cancel();
    attempt?.socket.close(1000, 'closing');
    this.#failPending(new MeshError('signaling_unreachable', 'The connection to signaling was closed'));
    this.#become({ state: 'closed' });
  }

  /** Sends when connected; says whether it did. */
  send(message: ClientMessage): boolean {
    if (this.#state.state !== 'connected' || !this.#attempt) return false;
    this.#write(this.#attempt, message);
    return true;
  }

  /**
   * Sends a message with a fresh id and waits for its answer.
   * @throws MeshError as `problem` | timeout | whatever the server answers
   */
  async request(build: (id: number) => ClientMessage, timeoutMs: number): Promise<ServerMessage> {
    const id = this.#nextId++;
    if (!this.send(build(id))) throw this.problem;
    return new Promise((resolve, reject) => {
      const timer = this.#options.clock.after(timeoutMs, () => {
        this.#pending.delete(id);
        reject(new MeshError('timeout', 'Signaling did not answer in time'));
      });
      this.#pending.set(id, { resolve, reject, timer });
    });
  }

  #become(state: SignalingState): void {
    this.#state = state;
    this.#options.changed(state);
  }

  #connect(): void {
    this.#become({ state: 'connecting' });
    const { clock, url, openSocket } = this.#options;
    const mine = (): boolean => this.#attempt === attempt;
    const socket = openSocket(url, signalingSubprotocols, {
      open: (protocol) => {
        if (mine()) this.#opened(attempt, protocol);
      },
      message: (data) => {
        if (mine()) this.#received(attempt, data);
      },
      closed: (code, reason) => {
        if (mine()) this.#lost(attempt, code, reason);
      },
    });
    const attempt: Attempt = {
      socket,
      nonce: toBase64Url(randomBytes(16)),
      deadline: clock.after(limits.signInTimeoutMs, () => socket.abort()),
      json: false,
      phase: 'opening',
      lastMessageMs: clock.monotonic(),
      error: null,
      retryAfterMs: null,
    };
    this.#attempt = attempt;
  }

  #opened(attempt: Attempt, protocol: string): void {
    if (!signalingSubprotocols.some((known) => known === protocol)) {
      attempt.error = new MeshError(
        'version_mismatch',
        'The signaling server speaks no version that we know',
      );
      attempt.socket.abort();
      return;
    }
    attempt.json = protocol === 'cocoon.v1.json';
    attempt.phase = 'challenged';
    this.#write(attempt, { type: 'sign_in', peer_id: this.#options.key.peerId, nonce: attempt.nonce });
  }

  #write(attempt: Attempt, message: ClientMessage): void {
    attempt.socket.send(
      attempt.json ? encodeJson(clientMessageSchema, message) : encode(clientMessageSchema, message),
    );
  }

  #received(attempt: Attempt, data: Uint8Array | string): void {
    attempt.lastMessageMs = this.#options.clock.monotonic();
    let message: ServerMessage;
    try {
      message =
        typeof data === 'string'
          ? decodeJson(serverMessageSchema, data, limits.maxServerMessageBytes)
          : decode(serverMessageSchema, data, limits.maxServerMessageBytes);
    } catch {
      // A newer server may send kinds we do not know; they are none of our business.
      return;
    }
    switch (message.type) {
      case 'challenge':
        if (attempt.phase === 'challenged') void this.#prove(attempt, message);
        return;
      case 'welcome':
        if (attempt.phase === 'proving') void this.#welcome(attempt, message);
        return;
      case 'error':
        return this.#refusedBy(attempt, message);
      case 'goodbye':
        attempt.retryAfterMs = message.retry_after_ms;
        return;
      case 'pong':
        return;
      default:
        if (attempt.phase !== 'welcomed') return;
        if ('id' in message && message.id !== undefined) this.#settle(message.id, message);
        this.#options.message(message);
    }
  }

  async #prove(attempt: Attempt, challenge: ServerMessage & { type: 'challenge' }): Promise<void> {
    attempt.phase = 'proving';
    const { key, url, credentials } = this.#options;
    try {
      const parts = signInParts({
        publicUrl: url,
        clientNonce: attempt.nonce,
        serverNonce: challenge.nonce,
        time: challenge.time,
      });
      const signature = toBase64Url(await signLabelled(key, SignatureLabel.signIn, parts));
      const proof = await credentials();
      if (this.#attempt === attempt) this.#write(attempt, { type: 'sign_in_proof', signature, ...proof });
    } catch (thrown) {
      attempt.error = toMeshError(thrown);
      attempt.socket.abort();
    }
  }

  async #welcome(attempt: Attempt, welcome: Welcome): Promise<void> {
    attempt.phase = 'welcomed';
    attempt.deadline.cancel();
    try {
      await this.#options.welcomed(welcome);
    } catch (thrown) {
      attempt.error = toMeshError(thrown);
      attempt.socket.abort();
      return;
    }
    if (this.#attempt !== attempt) return;
    this.#failures = 0;
    this.#slowRetries = 0;
    this.#refusal = null;
    this.#become({
      state: 'connected',
      receiptKey: fromBase64Url(welcome.receipt_key),
      ticketKey: fromBase64Url(welcome.ticket_key),
      accessToken: welcome.access_token,
      clockOffsetMs: welcome.time_ms - this.#options.clock.now(),
    });
  }

  #refusedBy(attempt: Attempt, message: ServerMessage & { type: 'error' }): void {
    const error = new MeshError(isErrorCode(message.code) ? message.code : 'internal', message.message);
    if (message.id !== undefined) {
      this.#settle(message.id, error);
      return;
    }
    attempt.error = error;
    attempt.retryAfterMs = message.retry_after_ms ?? null;
  }

  #settle(id: number, outcome: ServerMessage | MeshError): void {
    const pending = this.#pending.get(id);
    if (!pending) return;
    this.#pending.delete(id);
    pending.timer.cancel();
    if (outcome instanceof MeshError) pending.reject(outcome);
    else pending.resolve(outcome);
  }

  #failPending(error: MeshError): void {
    for (const id of this.#pending.keys()) this.#settle(id, error);
  }

  #lost(attempt: Attempt, code: number, reason: string): void {
    this.#attempt = null;
    attempt.deadline.cancel();
    this.#failPending(new MeshError('signaling_unreachable', 'The connection to signaling was lost'));
    const error = attempt.error;
    this.#refusal = error;
    if (error && finalCodes.has(error.code)) {
      this.#become({ state: 'refused', code: error.code, message: error.message });
      return;
    }
    const asked = Math.min(attempt.retryAfterMs ?? 0, longestRetryAfterMs);
    const least = error && slowCodes.has(error.code) ? this.#slowRetryMs() : asked;
    const delayMs = Math.max(asked, least, backoffMs(this.#failures++, this.#options.random()));
    this.#become({
      state: 'waiting',
      code: error?.code ?? 'signaling_unreachable',
      message: error?.message ?? `The connection to signaling was closed (${code}${reason && ` ${reason}`})`,
      retryAtMs: this.#options.clock.now() + delayMs,
    });
    this.#retry = this.#options.clock.after(delayMs, () => this.#connect());
  }

  #slowRetryMs(): number {
    return firstSlowRetriesMs[this.#slowRetries++] ?? slowRetryMs;
  }

  #checkAlive(): void {
    const attempt = this.#attempt;
    if (attempt?.phase !== 'welcomed') return;
    if (this.#options.clock.monotonic() - attempt.lastMessageMs > limits.signalingDeadMs) {
      attempt.socket.abort();
      return;
    }
    this.send({ type: 'ping', id: 0 });
  }
}

/** Whoever answered once for signaling does not keep us away from it for good. */
const longestRetryAfterMs = 5 * 60_000;
