/**
 * The devices of my owner and the cocoons that are shared with it, as far as they have proved it. Signaling hands in
 * entries; each is believed only when its proofs stand before `Trust` and its record is signed by the device, for
 * me to read. Names are pinned to devices on first use, so that nobody can take over a name: not that of another
 * device, nor mine, nor one that a device had before.
 */

import type { DeviceEntry, DeviceRecord, MembershipProof, ShareProof } from '@cocoon-mesh/protocol';
import { MeshError, limits, verifyDeviceRecord } from '@cocoon-mesh/protocol';
import { namesForeign, shownName } from './foreign-name.ts';
import { supersedes } from './supersedes.ts';
import type { Standing, Trust } from './trust.ts';

/** A device with what it has proved. */
export interface ProvenDevice {
  readonly record: DeviceRecord;
  readonly standing: Standing;
}

export interface KnownDevice extends ProvenDevice {
  /** As it is shown: of another owner's, `name@owner`. */
  readonly name: string;
  readonly online: boolean;
  readonly load: number;
}

/** Shown name → PeerId. */
export type Pins = Readonly<Record<string, string>>;

export interface DirectoryOptions {
  readonly trust: Pick<Trust, 'owner' | 'judge' | 'objection'>;
  /** My own PeerId: I know myself, and may have to take another name. */
  readonly self: string;
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
    this.#pins = new Map(Object.entries(options.pins));
  }

  /** As long as it stands: who was revoked is not known any more. */
  get(peerId: string): KnownDevice | undefined {
    const device = this.#devices.get(peerId);
    return device && this.#options.trust.objection(device.standing) === null ? device : undefined;
  }

  all(): readonly KnownDevice[] {
    return [...this.#devices.values()].filter(
      ({ standing }) => this.#options.trust.objection(standing) === null,
    );
  }

  /**
   * Takes an entry in after checking it; an older record does not replace a newer one.
   * @returns whether it was believed
   */
  async apply(entry: DeviceEntry): Promise<boolean> {
    if (entry.peer_id === this.#options.self) return false;
    try {
      const proven = await this.verify(entry.peer_id, entry.record, entry.membership, entry.share);
      this.#keep(proven, entry);
      return true;
    } catch (thrown) {
      this.#options.rejected(entry.peer_id, thrown);
      return false;
    }
  }

  /** What a device has shown by itself: it is there, and this is the newest it says. */
  met(proven: ProvenDevice): void {
    const known = this.#devices.get(proven.record.peer_id);
    this.#keep(proven, { online: true, load: known?.load ?? 0 });
  }

  /** A newer membership of a device that is known. @throws MeshError as `Trust.judge` */
  async renew(peerId: string, proof: MembershipProof): Promise<void> {
    const standing = await this.#options.trust.judge(peerId, proof);
    const known = this.#devices.get(peerId);
    if (known) this.#devices.set(peerId, { ...known, standing: this.#newer(known.standing, standing) });
  }

  /**
   * Who is it to me, and is this its record, written for me?
   * @throws MeshError denied when we have nothing in common or it says that it is something else, and as `Trust.judge` and `verifyDeviceRecord`
   */
  async verify(
    peerId: string,
    recordJws: string,
    membership: MembershipProof,
    share?: ShareProof,
  ): Promise<ProvenDevice> {
    const { trust } = this.#options;
    const standing = await trust.judge(peerId, membership, share);
    const record = await verifyDeviceRecord(recordJws, peerId);
    if (!isForMe(record, standing, trust.owner))
      throw new MeshError('denied', 'The device record is written for somebody else');
    this.#assertKind(record, standing);
    return { record, standing };
  }

  /** Signaling is gone or tells the whole list anew: whoever it does not name is not known to be online. */
  allOffline(): void {
    for (const [peerId, device] of this.#devices) this.#devices.set(peerId, { ...device, online: false });
  }

  /** The device to which a name is pinned, when that is not `peerId`. */
  pinnedElsewhere(name: string, peerId: string): string | null {
    const pin = this.#pins.get(name);
    return pin === undefined || pin === peerId ? null : pin;
  }

  /** How a device of this owner is called here. */
  nameOf({ record, standing }: ProvenDevice): string {
    return shownName(record.name, standing.membership.owner, this.#options.trust.owner);
  }

  /**
   * By PeerId, by `name@owner` for a device of another owner, or by the device to which the name is pinned.
   * @throws MeshError device_not_found | name_changed
   */
  resolve(nameOrPeerId: string): KnownDevice {
    const byId = this.get(nameOrPeerId);
    if (byId) return byId;
    const named = this.all().filter((device) => isCalled(device, nameOrPeerId));
    const holder = named.find((device) => this.#pins.get(device.name) === device.record.peer_id);
    if (holder) return holder;
    const other = named[0];
    if (!other) throw new MeshError('device_not_found', `No device called ${nameOrPeerId} is known`);
    throw new MeshError(
      'name_changed',
      `The name ${other.name} belonged to ${this.#pins.get(other.name) ?? 'nobody'} and is now used by ${other.record.peer_id}`,
    );
  }

  /** Pins a name to whoever uses it now, after the user has agreed. */
  acceptName(name: string): void {
    const named = this.all().filter((device) => device.name === name);
    const holder = named.find(({ record }) => record.peer_id !== this.#pins.get(name)) ?? named[0];
    if (!holder) throw new MeshError('device_not_found', `No device called ${name} is known`);
    this.#pins.set(name, holder.record.peer_id);
    this.#savePins();
  }

  /** A device that was revoked is so for good: its name is free for the one that takes its place. */
  freeNamesOf(peerId: string): void {
    const names = this.#namesOf(peerId);
    if (names.length === 0) return;
    for (const name of names) this.#pins.delete(name);
    this.#savePins();
  }

  /**
   * The first of `name`, `name-2`, `name-3` … that is pinned to no other device, for myself. It is mine from then on:
   * whoever shows it later does not push me off it.
   */
  takeName(name: string): string {
    const { self } = this.#options;
    let free = name;
    for (let n = 2; this.pinnedElsewhere(free, self) !== null; n++)
      free = `${name.slice(0, 31 - 1 - String(n).length).replace(/-$/, '')}-${n}`;
    this.#pin(free, self);
    return free;
  }

  /**
   * What a device may do hangs on what it is, which its owner says. Until it does, a device that was a browser stays
   * one as long as this process runs.
   * @throws MeshError denied
   */
  #assertKind({ kind, peer_id: peerId }: DeviceRecord, { membership }: Standing): void {
    const wasBrowser = this.#devices.get(peerId)?.record.kind === 'browser';
    const expected = membership.kind ?? (wasBrowser ? 'browser' : kind);
    if (kind !== expected)
      throw new MeshError('denied', `The device says that it is a ${kind}, but it is a ${expected}`);
  }

  /** @throws MeshError denied for who may come and is no device of mine to see */
  #keep(proven: ProvenDevice, presence: { readonly online: boolean; readonly load: number }): void {
    const { standing, record } = proven;
    const { peer_id: peerId } = record;
    if (standing.relation !== 'own' && standing.relation !== 'shared')
      throw new MeshError('denied', 'The device belongs to another owner');
    const before = this.#devices.get(peerId);
    const known = before?.standing.membership.owner === standing.membership.owner ? before : undefined;
    const newest = {
      record: known && known.record.seq > record.seq ? known.record : record,
      standing: known ? this.#newer(known.standing, standing) : standing,
    };
    const name = this.nameOf(newest);
    const { online, load } = presence;
    this.#devices.set(peerId, { ...newest, name, online, load });
    this.#pin(name, peerId);
  }

  /** Between the judgement of an entry and now, something newer may have been judged. */
  #newer(known: Standing, next: Standing): Standing {
    const keeps =
      supersedes(known.membership, next.membership) && this.#options.trust.objection(known) === null;
    return keeps ? known : next;
  }

  #pin(name: string, peerId: string): void {
    if (this.#pins.has(name)) return;
    // Its old names stay its own, or it could be made to leave them to others; the oldest goes when it has too many.
    const [oldest, ...others] = this.#namesOf(peerId);
    if (oldest !== undefined && others.length + 1 >= limits.maxPinnedNames) this.#pins.delete(oldest);
    this.#pins.set(name, peerId);
    this.#savePins();
  }

  #namesOf(peerId: string): string[] {
    return [...this.#pins].filter(([, holder]) => holder === peerId).map(([name]) => name);
  }

  #savePins(): void {
    this.#options.pinned(Object.fromEntries(this.#pins));
  }
}

/**
 * A device writes one record for its own owner and narrower ones for others. Whoever hands me another one than mine
 * hides something from me or shows me what is not for me.
 */
function isForMe({ audience }: DeviceRecord, { relation }: Standing, mine: string | null): boolean {
  switch (relation) {
    case 'own':
      return audience === undefined;
    case 'shared':
      return audience === mine;
    default:
      return audience === undefined || audience === mine;
  }
}

function isCalled({ name, record, standing }: KnownDevice, text: string): boolean {
  return standing.relation === 'own'
    ? name === text
    : namesForeign(text, record.name, standing.membership.owner);
}
