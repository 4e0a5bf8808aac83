/**
 * Everything of the running device that is about its owner, put together: the desk that signs, what peers may ask
 * of it, what this device's user may ask, and what happens by itself when something changes.
 */

import type { Mesh } from '@cocoon-mesh/mesh';
import { MembershipRenewal } from '@cocoon-mesh/mesh/membership-renewal.ts';
import type { Clock } from '@cocoon-mesh/protocol';
import type { DeviceAudit } from './audit-events.ts';
import type { Home } from './home.ts';
import type { Log } from './logs.ts';
import type { OwnersFile } from './mesh-store.ts';
import { OwnerCommands } from './owner-commands.ts';
import { OwnerDesk } from './owner-desk.ts';
import type { OwnerKeyring } from './owner-keyring.ts';
import { OwnerServer } from './owner-server.ts';
import { outdatedSecretNote, retireSecret } from './ownership.ts';
import { Rotation } from './rotation.ts';

export interface OwnerPartsOptions {
  readonly mesh: Mesh;
  readonly keyring: OwnerKeyring;
  readonly owners: OwnersFile;
  readonly home: Home;
  readonly clock: Clock;
  readonly audit: DeviceAudit;
  readonly log: Log;
  readonly signalingUrl: string;
  /** As others reach it; stands in tokens. */
  readonly publicSignalingUrl: string;
}

export class OwnerParts {
  readonly commands: OwnerCommands;
  readonly #options: OwnerPartsOptions;
  readonly #desk: OwnerDesk;
  readonly #rotation: Rotation;
  readonly #renewal: MembershipRenewal;
  readonly #stops: readonly (() => void)[];
  /** That the secret is outdated was said. */
  #isRetired = false;

  constructor(options: OwnerPartsOptions) {
    const { mesh, keyring, owners, clock, audit, log, publicSignalingUrl } = options;
    this.#options = options;
    this.#desk = new OwnerDesk({
      mesh,
      keyring,
      clock,
      audit,
      log,
      signalingUrl: publicSignalingUrl,
      noteToken: (made) => owners.noteMade(made, Math.floor(clock.now() / 1000)),
      madeTokens: () => owners.owners.made,
    });
    this.#rotation = new Rotation({ ...options, desk: this.#desk });
    this.commands = new OwnerCommands({ ...options, desk: this.#desk, rotation: this.#rotation });
    // It answers as long as the mesh does.
    void new OwnerServer({ mesh, desk: this.#desk, clock, audit });
    this.#renewal = new MembershipRenewal({ mesh, clock, log, signsItself: () => this.#desk.holdsKey });
    this.#stops = [
      mesh.on('provisional', () => void this.#desk.confirm()),
      mesh.on('signaling', ({ state }) => {
        if (state === 'connected') this.#goOn();
      }),
      mesh.on('session', (_peerId, up) => {
        if (up) this.#goOn();
      }),
      mesh.on('trust', ({ kind }) => {
        if (kind === 'rotation') void this.#retireOutdated();
      }),
    ];
  }

  /** Idempotent. */
  close(): void {
    this.#renewal.close();
    for (const stop of this.#stops) stop();
  }

  /** What could not be handed out before may be now. */
  #goOn(): void {
    void this.#rotation.resume();
    void this.#desk.confirm();
  }

  /** The secret was rotated elsewhere: the one here signs nothing that counts any more. */
  async #retireOutdated(): Promise<void> {
    const { keyring, home, log } = this.#options;
    if (this.#isRetired || !keyring.isOutdated) return;
    this.#isRetired = true;
    log('warn', outdatedSecretNote);
    try {
      await retireSecret(home);
    } catch (thrown) {
      log('error', 'The old secret could not be put away', { error: String(thrown) });
    }
  }
}
