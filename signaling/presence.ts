/**
 * Who is signed in, owner by owner, and what others are told: a device came, changed or went. The peers of its owner
 * are told, and of a cocoon that is shared those of the other owner, who see what the cocoon wrote for them. Changes
 * of one device are told at most every `devicePushMs`; comings and goings at once.
 */

import type {
  Clock,
  DeviceEntry,
  DeviceRecord,
  ServerMessage,
  SignalingSubprotocol,
  Timer,
} from '@cocoon-mesh/protocol';
import type { Connection } from './connection.ts';
import { writeMessage } from './message-format.ts';
import type { Metrics } from './metrics.ts';
import type { SharedCocoon, StoredShare } from './share-store.ts';
import type { StoredDevice, StoredMembership } from './store.ts';

export interface OnlinePeer {
  readonly peerId: string;
  readonly owner: string;
  readonly connection: Connection;
  membership: StoredMembership;
  recordJws: string;
  record: DeviceRecord;
  seq: number;
  /** 0 idle to 1 full. */
  load: number;
  /** Of a cocoon: those that stand, by the owner it is shared with. */
  readonly shares: Map<string, StoredShare>;
}

/** A share that its co-owner may be shown. */
export type VisibleShare = StoredShare & { readonly record: NonNullable<StoredShare['record']> };

export function isVisible(share: StoredShare): share is VisibleShare {
  return share.record !== null;
}

interface Push {
  readonly timer: Timer;
  again: boolean;
}

/** A peer that is on its way in. */
export interface Arrival {
  /** Others were told something meanwhile. */
  missed: boolean;
}

export class Presence {
  readonly #owners = new Map<string, Map<string, OnlinePeer>>();
  readonly #peers = new Map<string, OnlinePeer>();
  /** Cocoons, by the owners they are shared with. */
  readonly #shared = new Map<string, Set<OnlinePeer>>();
  readonly #arrivals = new Map<string, Set<Arrival>>();
  /** By the owner that is told. */
  readonly #pushes = new Map<OnlinePeer, Map<string, Push>>();
  readonly #clock: Clock;
  readonly #metrics: Metrics;
  readonly #pushMs: number;

  constructor(clock: Clock, metrics: Metrics, pushMs: number) {
    this.#clock = clock;
    this.#metrics = metrics;
    this.#pushMs = pushMs;
  }

  /** For a peer of this owner that is about to come: what it is told of may change before it is here. */
  expect(owner: string): Arrival {
    const arrival = { missed: false };
    const arrivals = this.#arrivals.get(owner) ?? new Set<Arrival>();
    this.#arrivals.set(owner, arrivals.add(arrival));
    return arrival;
  }

  arrived(owner: string, arrival: Arrival): void {
    const arrivals = this.#arrivals.get(owner);
    arrivals?.delete(arrival);
    if (arrivals?.size === 0) this.#arrivals.delete(owner);
  }

  /** @returns the same peer's older connection, which the caller ends */
  come(peer: OnlinePeer): OnlinePeer | null {
    const older = this.#peers.get(peer.peerId) ?? null;
    // One that moved to another owner is gone for the first.
    if (older && older.owner !== peer.owner) this.go(older);
    else if (older) this.#forget(older);
    this.#peers.set(peer.peerId, peer);
    const owner = this.#owners.get(peer.owner) ?? new Map<string, OnlinePeer>();
    this.#owners.set(peer.owner, owner.set(peer.peerId, peer));
    for (const share of peer.shares.values()) this.#index(peer, share.coOwner);
    this.#metrics.setPeers(this.#peers.size);
    for (const reader of this.#readers(peer)) this.#tell(peer, reader);
    return older;
  }

  /** @returns false when a newer connection of the same peer has taken its place */
  go(peer: OnlinePeer): boolean {
    if (this.#peers.get(peer.peerId) !== peer) return false;
    const readers = this.#readers(peer);
    this.#forget(peer);
    this.#metrics.setPeers(this.#peers.size);
    for (const reader of readers) this.#tell(peer, reader, offline);
    return true;
  }

  /** Tells everybody who sees it. */
  changed(peer: OnlinePeer): void {
    for (const reader of this.#readers(peer)) this.#push(peer, reader);
  }

  /** A cocoon is shared with somebody, or differently, or has written something new for that owner. */
  share(cocoon: OnlinePeer, share: StoredShare): void {
    cocoon.shares.set(share.coOwner, share);
    if (!this.#isHere(cocoon)) return;
    this.#index(cocoon, share.coOwner);
    if (isVisible(share)) this.#push(cocoon, share.coOwner);
  }

  /** To whoever was shown it, it has gone. */
  unshare(cocoon: OnlinePeer, coOwner: string): void {
    if (this.#isHere(cocoon)) this.#tell(cocoon, coOwner, offline);
    this.#endPush(cocoon, coOwner);
    cocoon.shares.delete(coOwner);
    this.#unindex(cocoon, coOwner);
  }

  /** The cocoons that are here and shared with this owner. */
  sharedWith(coOwner: string): readonly OnlinePeer[] {
    return [...(this.#shared.get(coOwner) ?? [])];
  }

  find(owner: string, peerId: string): OnlinePeer | null {
    return this.#owners.get(owner)?.get(peerId) ?? null;
  }

  ofOwner(owner: string): readonly OnlinePeer[] {
    return [...(this.#owners.get(owner)?.values() ?? [])];
  }

  all(): readonly OnlinePeer[] {
    return [...this.#peers.values()];
  }

  entry(peer: OnlinePeer): DeviceEntry {
    return {
      peer_id: peer.peerId,
      online: true,
      load: peer.load,
      record: peer.recordJws,
      membership: peer.membership.proof,
      last_seen: Math.floor(this.#clock.now() / 1000),
    };
  }

  /** What a stored device looks like to others: as it is when it is online, else as it was last seen. */
  describe(device: StoredDevice): DeviceEntry {
    const { owner, peerId, proof } = device.membership;
    const online = this.find(owner, peerId);
    if (online) return this.entry(online);
    return {
      peer_id: peerId,
      online: false,
      load: 0,
      record: device.record,
      membership: proof,
      last_seen: device.lastSeen,
    };
  }

  /** The cocoon as its co-owner sees it. */
  sharedEntry(cocoon: OnlinePeer, share: VisibleShare): DeviceEntry {
    return { ...this.entry(cocoon), record: share.record.record, share: share.proof };
  }

  /** The same of a stored one. */
  describeShared({
    share,
    membership,
    lastSeen,
  }: SharedCocoon & { readonly share: VisibleShare }): DeviceEntry {
    const online = this.find(share.owner, share.cocoon);
    if (online) return this.sharedEntry(online, share);
    return {
      peer_id: share.cocoon,
      ...offline,
      record: share.record.record,
      membership,
      share: share.proof,
      last_seen: lastSeen,
    };
  }

  /** To every peer of the owner but one. */
  broadcast(owner: string, message: ServerMessage, except: string | null = null): void {
    this.#missed(owner);
    const written = new Map<SignalingSubprotocol, Uint8Array | string>();
    for (const { peerId, connection } of this.ofOwner(owner)) {
      if (peerId === except) continue;
      const { format } = connection;
      const bytes = written.get(format) ?? writeMessage(format, message);
      written.set(format, bytes);
      connection.sendWritten(bytes);
    }
  }

  close(): void {
    for (const pushes of this.#pushes.values()) for (const { timer } of pushes.values()) timer.cancel();
    this.#pushes.clear();
  }

  #missed(owner: string): void {
    for (const arrival of this.#arrivals.get(owner) ?? []) arrival.missed = true;
  }

  #isHere(peer: OnlinePeer): boolean {
    return this.#peers.get(peer.peerId) === peer;
  }

  #forget(peer: OnlinePeer): void {
    for (const reader of this.#pushes.get(peer)?.keys() ?? []) this.#endPush(peer, reader);
    this.#peers.delete(peer.peerId);
    const owner = this.#owners.get(peer.owner);
    owner?.delete(peer.peerId);
    if (owner?.size === 0) this.#owners.delete(peer.owner);
    for (const coOwner of peer.shares.keys()) this.#unindex(peer, coOwner);
  }

  #index(cocoon: OnlinePeer, coOwner: string): void {
    const cocoons = this.#shared.get(coOwner) ?? new Set<OnlinePeer>();
    this.#shared.set(coOwner, cocoons.add(cocoon));
  }

  #unindex(cocoon: OnlinePeer, coOwner: string): void {
    const cocoons = this.#shared.get(coOwner);
    cocoons?.delete(cocoon);
    if (cocoons?.size === 0) this.#shared.delete(coOwner);
  }

  /** The owners whose peers see it. */
  #readers(peer: OnlinePeer): readonly string[] {
    return [peer.owner, ...[...peer.shares.values()].filter(isVisible).map(({ coOwner }) => coOwner)];
  }

  #push(peer: OnlinePeer, reader: string): void {
    if (!this.#isHere(peer)) return;
    this.#missed(reader);
    if (!this.#owners.has(reader)) return;
    const pushes = this.#pushes.get(peer) ?? new Map<string, Push>();
    this.#pushes.set(peer, pushes);
    const push = pushes.get(reader);
    if (push) {
      push.again = true;
      return;
    }
    this.#tell(peer, reader);
    const timer = this.#clock.after(this.#pushMs, () => {
      const again = pushes.get(reader)?.again;
      this.#endPush(peer, reader);
      if (again) this.#push(peer, reader);
    });
    pushes.set(reader, { timer, again: false });
  }

  #endPush(peer: OnlinePeer, reader: string): void {
    const pushes = this.#pushes.get(peer);
    pushes?.get(reader)?.timer.cancel();
    pushes?.delete(reader);
    if (pushes?.size === 0) this.#pushes.delete(peer);
  }

  #tell(peer: OnlinePeer, reader: string, change: Partial<DeviceEntry> = {}): void {
    const device = this.#entryFor(peer, reader);
    if (device) this.broadcast(reader, { type: 'device', device: { ...device, ...change } }, peer.peerId);
  }

  #entryFor(peer: OnlinePeer, reader: string): DeviceEntry | null {
    if (reader === peer.owner) return this.entry(peer);
    const share = peer.shares.get(reader);
    return share && isVisible(share) ? this.sharedEntry(peer, share) : null;
  }
}

const offline = { online: false, load: 0 } as const;
