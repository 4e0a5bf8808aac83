/**
 * A carrier in a carrier: every message is a Noise transport message. Used where the encryption below is not
 * trusted on its own. The last byte under the seal says what a message is, so renewals travel among the data:
 *
 *   Noise( message ‖ kind )   kind: 0 data, 1 renewal handshake, 2 switch
 *
 * Every `limits.sealRenewMs`, or earlier after many messages, the dialler starts a new Noise XX bound to the
 * old keys. After its last message each side says `switch` under the old key and sends under the new one from
 * there; the listener first, so that the dialler's switch never arrives before the listener can use it.
 * Traffic goes on meanwhile. Who the peer is was proven before; the handshake itself is passed in.
 */

import type { Bytes, Clock, Timer } from '@cocoon-mesh/protocol';
import { lengthPrefixed, limits, MeshError, utf8 } from '@cocoon-mesh/protocol';
import type { Carrier, CarrierEvents } from './carrier.ts';
import type { AeadFactory } from './noise-cipher.ts';
import { maxNoiseMessageBytes, NoiseCipher, noiseTagBytes } from './noise-cipher.ts';
import type { NoiseHandshake, NoiseOutcome, ProofRole } from './noise.ts';

export interface SealOptions {
  readonly role: ProofRole;
  readonly send: NoiseCipher;
  readonly receive: NoiseCipher;
  readonly exporter: Bytes;
  readonly aead: AeadFactory;
  readonly clock: Clock;
  /** Starts a handshake between the same two peers on the same carrier. */
  readonly handshake: (
    introduction: Uint8Array,
    signal: AbortSignal,
    send: (message: Uint8Array) => void,
  ) => NoiseHandshake;
  /** For tests. Default: `limits.sealRenewMessages`. */
  readonly renewAfterMessages?: number;
}

/** On the wire; never reused. */
const SealKind = { data: 0, renew: 1, switch: 2 } as const;
type SealKind = (typeof SealKind)[keyof typeof SealKind];

const kindBytes = 1;
const renewalLabel = 'session';

interface NextKeys {
  readonly send: NoiseCipher;
  readonly receive: NoiseCipher;
  readonly exporter: Bytes;
}

type Renewal =
  | { readonly name: 'idle' }
  | { readonly name: 'handshake'; readonly handshake: NoiseHandshake }
  /** The new keys are there; the other side's switch is awaited. */
  | { readonly name: 'switch'; readonly next: NextKeys }
  | { readonly name: 'closed' };

export class SealedCarrier implements Carrier {
  readonly #inner: Carrier;
  readonly #options: SealOptions;
  readonly #renewAfterMessages: number;
  readonly #abort = new AbortController();
  #events: CarrierEvents | null = null;
  #closed: string | null = null;
  #send: NoiseCipher;
  #receive: NoiseCipher;
  #exporter: Bytes;
  #renewal: Renewal = { name: 'idle' };
  /** From the start on. Idle: until the next renewal. Otherwise: how long this one may take. */
  #timer: Timer = { cancel: () => {} };
  #renewals = 0;
  #keysSince: number;

  constructor(inner: Carrier, options: SealOptions) {
    this.#inner = inner;
    this.#options = options;
    this.#renewAfterMessages = options.renewAfterMessages ?? limits.sealRenewMessages;
    this.#send = options.send;
    this.#receive = options.receive;
    this.#exporter = options.exporter;
    this.#keysSince = options.clock.monotonic();
  }

  get kind(): Carrier['kind'] {
    return this.#inner.kind;
  }

  get maxMessageBytes(): number {
    return Math.min(this.#inner.maxMessageBytes, maxNoiseMessageBytes) - noiseTagBytes - kindBytes;
  }

  get writable(): boolean {
    return this.#inner.writable;
  }

  get bufferedBytes(): number {
    return this.#inner.bufferedBytes;
  }

  /** How often the keys were renewed. */
  get renewals(): number {
    return this.#renewals;
  }

  send(message: Uint8Array): void {
    if (this.#renewal.name === 'closed') return;
    if (message.length === 0 || message.length > this.maxMessageBytes) {
      throw new RangeError(`a message has 1 to ${this.maxMessageBytes} bytes, not ${message.length}`);
    }
    this.#guard(() => {
      this.#sendSealed(SealKind.data, message);
      this.#renewWhenUsedUp();
    });
  }

  start(events: CarrierEvents): void {
    const first = this.#events === null;
    this.#events = events;
    if (first) {
      this.#timer = this.#untilRenewal();
      this.#inner.start({
        message: (bytes) => this.#message(bytes),
        writable: () => this.#events?.writable(),
        closed: (reason) => this.#onClosed(reason),
      });
    } else if (this.#closed !== null) events.closed(this.#closed);
  }

  close(reason?: string): Promise<void> {
    return this.#inner.close(reason);
  }

  abort(reason: string): void {
    this.#stop();
    this.#inner.abort(reason);
  }

  #message(sealed: Uint8Array): void {
    if (this.#renewal.name === 'closed') return;
    let data: Uint8Array | null = null;
    this.#guard(() => {
      data = this.#open(sealed);
      this.#renewWhenUsedUp();
    });
    // Outside the guard: what our owner throws is not the other side's fault.
    if (data) this.#events?.message(data);
  }

  /** Data for our owner, or null when the message was ours. */
  #open(sealed: Uint8Array): Uint8Array | null {
    const message = this.#receive.open(sealed);
    const kind = message[message.length - 1];
    const body = message.subarray(0, message.length - kindBytes);
    if (kind === SealKind.data && body.length > 0) return body;
    if (kind === SealKind.renew) this.#renewMessage(body);
    else if (kind === SealKind.switch && body.length === 0) this.#switchCame();
    else throw violation(`a sealed message of kind ${kind} and ${body.length} bytes`);
    return null;
  }

  #sendSealed(kind: SealKind, message: Uint8Array): void {
    this.#inner.send(this.#send.seal(message, Uint8Array.of(kind)));
  }

  #renewWhenUsedUp(): void {
    const used = Math.max(this.#send.messages, this.#receive.messages);
    if (used >= this.#renewAfterMessages) this.#renew();
  }

  /** The dialler's part only: two renewals can so never meet. */
  #renew(): void {
    if (this.#options.role === 'dialler' && this.#renewal.name === 'idle') this.#startHandshake();
  }

  #startHandshake(): NoiseHandshake {
    const counter = new Uint8Array(4);
    new DataView(counter.buffer).setUint32(0, this.#renewals + 1);
    const introduction = lengthPrefixed(utf8(renewalLabel), this.#exporter, counter);
    const handshake = this.#options.handshake(introduction, this.#abort.signal, (message) =>
      this.#guard(() => this.#sendSealed(SealKind.renew, message)),
    );
    this.#renewal = { name: 'handshake', handshake };
    this.#timer.cancel();
    this.#timer = this.#options.clock.after(limits.sealRenewTimeoutMs, () =>
      this.abort('the keys were not renewed in time'),
    );
    handshake.finished.then(
      (outcome) => this.#guard(() => this.#handshakeFinished(outcome)),
      (error: unknown) => this.#fail(error),
    );
    return handshake;
  }

  #renewMessage(body: Uint8Array): void {
    const renewal = this.#renewal;
    if (renewal.name === 'handshake') renewal.handshake.receive(body);
    else if (renewal.name === 'idle' && this.#mayBeRenewed()) this.#startHandshake().receive(body);
    else throw violation('a renewal that nobody waits for');
  }

  /** A handshake costs a signature, so a peer may not ask for one after the other. */
  #mayBeRenewed(): boolean {
    const age = this.#options.clock.monotonic() - this.#keysSince;
    const used = Math.max(this.#send.messages, this.#receive.messages);
    const due = age >= limits.sealRenewMs / 2 || used >= this.#renewAfterMessages / 2;
    return this.#options.role === 'listener' && due;
  }

  #handshakeFinished({ keys, lastMessage }: NoiseOutcome): void {
    if (this.#renewal.name !== 'handshake') return;
    const { aead, role } = this.#options;
    const next: NextKeys = {
      send: new NoiseCipher(aead(keys.send)),
      receive: new NoiseCipher(aead(keys.receive)),
      exporter: keys.exporter,
    };
    this.#renewal = { name: 'switch', next };
    if (lastMessage) this.#sendSealed(SealKind.renew, lastMessage);
    if (role === 'listener') this.#switchSending(next);
  }

  #switchCame(): void {
    if (this.#renewal.name !== 'switch') throw violation('a switch without new keys');
    const { next } = this.#renewal;
    if (this.#options.role === 'dialler') this.#switchSending(next);
    this.#receive.drop();
    this.#receive = next.receive;
    this.#exporter.fill(0);
    this.#exporter = next.exporter;
    this.#renewals++;
    this.#keysSince = this.#options.clock.monotonic();
    this.#renewal = { name: 'idle' };
    this.#timer.cancel();
    this.#timer = this.#untilRenewal();
  }

  #switchSending(next: NextKeys): void {
    this.#sendSealed(SealKind.switch, new Uint8Array(0));
    this.#send.drop();
    this.#send = next.send;
  }

  /** The listener cannot start a renewal, but it does not go on with old keys for ever either. */
  #untilRenewal(): Timer {
    const { clock, role } = this.#options;
    return role === 'dialler'
      ? clock.after(limits.sealRenewMs, () => this.#guard(() => this.#renew()))
      : clock.after(2 * limits.sealRenewMs, () => this.abort('the keys are too old'));
  }

  #guard(step: () => void): void {
    try {
      step();
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(thrown: unknown): void {
    if (this.#renewal.name === 'closed') return;
    this.abort(thrown instanceof Error ? thrown.message : String(thrown));
  }

  #stop(): void {
    if (this.#renewal.name === 'switch') dropAll(this.#renewal.next);
    this.#renewal = { name: 'closed' };
    this.#timer.cancel();
    this.#abort.abort();
    dropAll({ send: this.#send, receive: this.#receive, exporter: this.#exporter });
  }

  #onClosed(reason: string): void {
    if (this.#closed !== null) return;
    this.#closed = reason;
    this.#stop();
    this.#events?.closed(reason);
  }
}

function dropAll({ send, receive, exporter }: NextKeys): void {
  send.drop();
  receive.drop();
  exporter.fill(0);
}

function violation(message: string): MeshError {
  return new MeshError('protocol_violation', message);
}
