/** The devices as users and features see them: me, my own by name, then cocoons that are shared with my owner. */

import { MeshError } from '@cocoon-mesh/protocol';
import type { Directory, KnownDevice } from './directory.ts';
import type { Links } from './links.ts';
import type { Device, SelfDescription } from './mesh.ts';

export interface DeviceListOptions {
  readonly self: string;
  readonly owner: () => string | null;
  readonly description: () => SelfDescription;
  readonly load: () => number;
  /** Is this device let in nowhere any more, by its owner or as signaling says? */
  readonly revoked: () => boolean;
  readonly directory: Directory;
  readonly links: Pick<Links, 'get'>;
}

export class DeviceList {
  readonly #options: DeviceListOptions;

  constructor(options: DeviceListOptions) {
    this.#options = options;
  }

  all(): readonly Device[] {
    const others = this.#options.directory
      .all()
      .filter((known) => this.#isShown(known))
      .map((known) => this.#view(known))
      .toSorted((a, b) => Number(a.foreign) - Number(b.foreign) || (a.name < b.name ? -1 : 1));
    return [this.#mine(), ...others];
  }

  /** @throws MeshError device_not_found | name_changed | revoked */
  resolve(nameOrPeerId: string): Device {
    const mine = this.#mine();
    if (nameOrPeerId === mine.name || nameOrPeerId === mine.peerId) return mine;
    const known = this.#options.directory.resolve(nameOrPeerId);
    if (!this.#isShown(known)) throw new MeshError('revoked');
    return this.#view(known);
  }

  /** Whoever still holds a session decides by itself: signaling alone can take nobody from the list who is there. */
  #isShown({ record }: KnownDevice): boolean {
    return !this.#options.revoked() || this.#options.links.get(record.peer_id) !== undefined;
  }

  #mine(): Device {
    const { self, owner, description, load } = this.#options;
    const { kind, name, services, capabilities, location } = description();
    return {
      peerId: self,
      kind,
      name,
      owner: owner() ?? '',
      foreign: false,
      online: true,
      self: true,
      services,
      capabilities,
      location: location ?? null,
      load: load(),
      path: null,
      engine: null,
      rttMs: null,
      problem: null,
    };
  }

  #view({ record, standing, name, online, load }: KnownDevice): Device {
    const { directory, links } = this.#options;
    const { services, capabilities, location, peer_id: peerId } = record;
    const link = links.get(peerId);
    const pinned = directory.pinnedElsewhere(name, peerId);
    return {
      peerId,
      kind: standing.membership.kind ?? record.kind,
      name,
      owner: standing.membership.owner,
      foreign: standing.relation !== 'own',
      online: online || link !== undefined,
      self: false,
      services,
      capabilities,
      location: location ?? null,
      load,
      path: link?.path ?? null,
      engine: link?.engine ?? null,
      rttMs: link?.session.stats.rttMs ?? null,
      problem: pinned === null ? null : `the name ${name} is pinned to ${pinned}`,
    };
  }
}
