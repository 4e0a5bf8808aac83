/**
 * The devices of my owner, as far as they have proved it. Signaling hands in entries; each is believed only
 * when its membership chain leads to my owner and its record is signed by the device. Names are pinned to
 * devices on first use, so that nobody can take over a name.
 */

import type {
  Clock,
  DeviceEntry,
  DeviceRecord,
  MembershipProof,
  ProvenMembership,
} from '@cocoon-mesh/protocol';
import { MeshError, verifyDeviceRecord, verifyMembership } from '@cocoon-mesh/protocol';

export interface KnownDevice {
  readonly record: DeviceRecord;
  readonly membership: ProvenMembership;
  readonly online: boolean;
  readonly load: number;
}

/** Name → PeerId. */
export type Pins = Readonly<Record<string, string>>;

export interface DirectoryOptions {
  readonly clock: Clock;
  /** My own PeerId: listed like the others, but never pinned, for I may have to take another name. */
  readonly self: string;
  /** My owner, or null before there is one: then nobody is believed. */
  readonly owner: () => string | null;
  readonly pins: Pins;
  readonly pinned: (pins: Pins) => void;
  readonly rejected: (peerId: string, error: unknown) => void;
}

export class Directory {
  readonly #options: DirectoryOptions;
  readonly #devices = new Map<string, KnownDevice>();
  readonly #pins: Map<string, string>;

  constructor(options: DirectoryOptions) {
    this.#options = options;
    this.#pins = new Map(Object.entries(options.pins).filter(([, peerId]) => peerId !== options.self));
  }

  get(peerId: string): KnownDevice | undefined {
    return this.#devices.get(peerId);
  }

  all(): readonly KnownDevice[] {
    return [...this.#devices.values()];
  }

  /**
   * Takes an entry in after checking it; an older record does not replace a newer one.
   * @returns whether it was believed
   */
  async apply(entry: DeviceEntry): Promise<boolean> {
    try {
      const { record, membership } = await this.verify(entry.peer_id, entry.record, entry.membership);
      const known = this.#devices.get(entry.peer_id);
      const newest = known && known.record.seq > record.seq ? known.record : record;
      this.#devices.set(entry.peer_id, {
        record: newest,
        membership,
        online: entry.online,
        load: entry.load,
      });
      this.#pin(newest);
      return true;
    } catch (thrown) {
      this.#options.rejected(entry.peer_id, thrown);
      return false;
    }
  }

  /** @throws MeshError denied when the peer is of another owner, or those of the two verifications */
  async verify(
    peerId: string,
    recordJws: string,
    proof: MembershipProof,
  ): Promise<{ record: DeviceRecord; membership: ProvenMembership }> {
    const now = Math.floor(this.#options.clock.now() / 1000);
    const membership = await verifyMembership(proof, peerId, now);
    if (membership.owner !== this.#options.owner())
      throw new MeshError('denied', 'The device belongs to another owner');
    return { record: await verifyDeviceRecord(recordJws, peerId), membership };
  }

  /** Signaling is gone or tells the whole list anew: whoever it does not name is not known to be online. */
  allOffline(): void {
    for (const [peerId, device] of this.#devices) this.#devices.set(peerId, { ...device, online: false });
  }

  /** The device to which the name of this one is pinned, when that is another. */
  pinnedElsewhere(record: DeviceRecord): string | null {
    const pin = this.#pins.get(record.name);
    return pin === undefined || pin === record.peer_id ? null : pin;
  }

  /**
   * By PeerId, or by the device to which the name is pinned.
   * @throws MeshError device_not_found | name_changed
   */
  resolve(nameOrPeerId: string): KnownDevice {
    const byId = this.#devices.get(nameOrPeerId);
    if (byId) return byId;
    const named = this.all().filter(({ record }) => record.name === nameOrPeerId);
    const pin = this.#pins.get(nameOrPeerId);
    const owner = named.find(({ record }) => record.peer_id === pin);
    if (owner) return owner;
    const other = named[0];
    if (!other) throw new MeshError('device_not_found', `No device called ${nameOrPeerId} is known`);
    throw new MeshError(
      'name_changed',
      `The name ${nameOrPeerId} belonged to ${pin ?? 'nobody'} and is now used by ${other.record.peer_id}`,
    );
  }

  /** Pins a name to whoever uses it now, after the user has agreed. */
  acceptName(name: string): void {
    const holder = this.all().find(({ record }) => record.name === name);
    if (!holder) throw new MeshError('device_not_found', `No device called ${name} is known`);
    this.#pins.set(name, holder.record.peer_id);
    this.#savePins();
  }

  /** The first of `name`, `name-2`, `name-3` … that no other device has. */
  freeName(name: string, self: string): string {
    const taken = new Set(
      this.all()
        .filter(({ record }) => record.peer_id !== self)
        .map(({ record }) => record.name),
    );
    if (!taken.has(name)) return name;
    for (let n = 2; ; n++) {
      const candidate = `${name.slice(0, 31 - 1 - String(n).length).replace(/-$/, '')}-${n}`;
      if (!taken.has(candidate)) return candidate;
    }
  }

  #pin(record: DeviceRecord): void {
    if (record.peer_id === this.#options.self || this.#pins.has(record.name)) return;
    // A device that took another name gives its old one free.
    for (const [name, peerId] of this.#pins) if (peerId === record.peer_id) this.#pins.delete(name);
    this.#pins.set(record.name, record.peer_id);
    this.#savePins();
  }

  #savePins(): void {
    this.#options.pinned(Object.fromEntries(this.#pins));
  }
}
