/**
 * Keeps this peer's membership alive: a claimed chain, or a membership in the second half of its life, is renewed
 * by a device that signs, as soon as there is one. Quietly: whoever finds none has time until the next one.
 */

import type { Clock, ProvenMembership, Timer } from '@cocoon-mesh/protocol';
import { every, limits, toMeshError } from '@cocoon-mesh/protocol';
import type { Mesh, MeshOptions } from './mesh.ts';
import { askSigner } from './owner-client.ts';

/** A chain lives for days, so an hour more or less does not count. */
const lookEveryMs = 3600_000;

export interface RenewalOptions {
  readonly mesh: Mesh;
  readonly clock: Clock;
  readonly log: MeshOptions['log'];
  /** A device that signs for itself asks nobody. */
  readonly signsItself?: () => boolean;
}

export class MembershipRenewal {
  readonly #options: RenewalOptions;
  readonly #timer: Timer;
  readonly #forget: () => void;
  #asking = false;

  constructor(options: RenewalOptions) {
    this.#options = options;
    this.#timer = every(options.clock, lookEveryMs, () => void this.look());
    this.#forget = options.mesh.on('session', (_peerId, up) => {
      if (up) void this.look();
    });
  }

  /** Asks for a new membership if one is needed and somebody is there to sign it. Never rejects. */
  async look(): Promise<void> {
    const { mesh, clock, log, signsItself } = this.#options;
    if (this.#asking || signsItself?.() || !isDue(mesh.membership, Math.floor(clock.now() / 1000))) return;
    this.#asking = true;
    try {
      for (const { peerId, online, path } of mesh.signers()) {
        if (!online && path === null) continue;
        try {
          const { membership } = await askSigner(mesh, clock, peerId, { op: 'renew' });
          if (!membership) continue;
          await mesh.issueMembership(mesh.peerId, membership);
          // An older one of my owner's is as genuine, and changes nothing.
          if (!isDue(mesh.membership, Math.floor(clock.now() / 1000))) return;
        } catch (thrown) {
          log('debug', 'The membership was not renewed', { peer: peerId, code: toMeshError(thrown).code });
        }
      }
    } finally {
      this.#asking = false;
    }
  }

  /** Idempotent. */
  close(): void {
    this.#timer.cancel();
    this.#forget();
  }
}

/** @param now seconds since 1970 */
export function isDue(membership: ProvenMembership | null, now: number): boolean {
  if (!membership) return false;
  if (membership.provisional) return true;
  const { expires, until } = membership;
  // The end of the right itself is moved by nobody.
  if (expires === null || expires === until) return false;
  return expires - now < limits.browserMembershipMs / 2000;
}
