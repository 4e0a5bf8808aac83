/**
 * The challenge with which a peer proves its device key: over the WebSocket (`conversation.ts`) and for the HTTP
 * routes. What the key belongs to is `ownership.ts`'s matter.
 */

import type { Clock, Timer } from '@cocoon-mesh/protocol';
import {
  MeshError,
  SignatureLabel,
  fromBase64Url,
  publicKeyOf,
  randomBytes,
  signInParts,
  toBase64Url,
  verifyLabelled,
} from '@cocoon-mesh/protocol';

export interface Challenge {
  readonly peerId: string;
  readonly clientNonce: string;
  readonly serverNonce: string;
  /** Seconds since 1970, ours. */
  readonly time: number;
}

export function newChallenge(peerId: string, clientNonce: string, clock: Clock): Challenge {
  const serverNonce = toBase64Url(randomBytes(16));
  return { peerId, clientNonce, serverNonce, time: Math.floor(clock.now() / 1000) };
}

/** @throws MeshError sign_in_failed | bad_message when the PeerId is none */
export async function verifyChallenge(
  challenge: Challenge,
  publicUrl: string,
  signature: string,
): Promise<void> {
  const { peerId, clientNonce, serverNonce, time } = challenge;
  const publicKey = publicKeyOf(peerId);
  const parts = signInParts({ publicUrl, clientNonce, serverNonce, time });
  try {
    await verifyLabelled(publicKey, fromBase64Url(signature), SignatureLabel.signIn, parts);
  } catch (cause) {
    throw new MeshError('sign_in_failed', `The sign-in was not signed for ${publicUrl} by this device`, {
      hint: 'Dial exactly that address, or set SIGNALING_PUBLIC_URL to the one that devices dial.',
      cause,
    });
  }
}

interface Waiting {
  readonly challenge: Challenge;
  readonly end: Timer;
}

/** The challenges of `POST /auth/challenge`: each answered once, and soon. */
export class OpenChallenges {
  readonly #waiting = new Map<string, Waiting>();
  readonly #clock: Clock;
  readonly #lifetimeMs: number;
  readonly #max: number;

  constructor(clock: Clock, lifetimeMs: number, max: number) {
    this.#clock = clock;
    this.#lifetimeMs = lifetimeMs;
    this.#max = max;
  }

  open(peerId: string, clientNonce: string): Challenge {
    const challenge = newChallenge(peerId, clientNonce, this.#clock);
    const { serverNonce } = challenge;
    // The oldest give way: a flood costs a few honest peers a second try.
    for (const oldest of this.#waiting.keys()) {
      if (this.#waiting.size < this.#max) break;
      this.#forget(oldest);
    }
    const end = this.#clock.after(this.#lifetimeMs, () => void this.#waiting.delete(serverNonce));
    this.#waiting.set(serverNonce, { challenge, end });
    return challenge;
  }

  /** Takes a challenge out. @throws MeshError sign_in_failed unless exactly this one is open */
  take(answer: Challenge): Challenge {
    const waiting = this.#waiting.get(answer.serverNonce);
    this.#forget(answer.serverNonce);
    const { peerId, clientNonce, time } = waiting?.challenge ?? {};
    if (!waiting || peerId !== answer.peerId || clientNonce !== answer.clientNonce || time !== answer.time)
      throw new MeshError('sign_in_failed', 'The challenge is unknown, answered or too old');
    return waiting.challenge;
  }

  close(): void {
    for (const serverNonce of this.#waiting.keys()) this.#forget(serverNonce);
  }

  #forget(serverNonce: string): void {
    this.#waiting.get(serverNonce)?.end.cancel();
    this.#waiting.delete(serverNonce);
  }
}
