/**
 * Who is signed in, owner by owner, and what the others of an owner are told: a device came, changed or went.
 * Changes of one device are told at most every `devicePushMs`; comings and goings at once.
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
}

interface Push {
  readonly timer: Timer;
  again: boolean;
}

export class Presence {
  readonly #owners = new Map<string, Map<string, OnlinePeer>>();
  readonly #peers = new Map<string, OnlinePeer>();
  readonly #pushes = new Map<OnlinePeer, Push>();
  readonly #clock: Clock;
  readonly #metrics: Metrics;
  readonly #pushMs: number;

  constructor(clock: Clock, metrics: Metrics, pushMs: number) {
    this.#clock = clock;
    this.#metrics = metrics;
    this.#pushMs = pushMs;
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
    this.#metrics.setPeers(this.#peers.size);
    this.#tell(peer, this.entry(peer));
    return older;
  }

  /** @returns false when a newer connection of the same peer has taken its place */
  go(peer: OnlinePeer): boolean {
    if (this.#peers.get(peer.peerId) !== peer) return false;
    this.#forget(peer);
    this.#metrics.setPeers(this.#peers.size);
    this.#tell(peer, { ...this.entry(peer), online: false, load: 0 });
    return true;
  }

  changed(peer: OnlinePeer): void {
    if (this.#peers.get(peer.peerId) !== peer) return;
    const push = this.#pushes.get(peer);
    if (push) {
      push.again = true;
      return;
    }
    this.#tell(peer, this.entry(peer));
    const timer = this.#clock.after(this.#pushMs, () => {
      const again = this.#pushes.get(peer)?.again;
      this.#pushes.delete(peer);
      if (again) this.changed(peer);
    });
    this.#pushes.set(peer, { timer, again: false });
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

  /** To every peer of the owner but one. */
  broadcast(owner: string, message: ServerMessage, except: string): void {
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
    for (const { timer } of this.#pushes.values()) timer.cancel();
    this.#pushes.clear();
  }

  #forget(peer: OnlinePeer): void {
    this.#pushes.get(peer)?.timer.cancel();
    this.#pushes.delete(peer);
    this.#peers.delete(peer.peerId);
    const owner = this.#owners.get(peer.owner);
    owner?.delete(peer.peerId);
    if (owner?.size === 0) this.#owners.delete(peer.owner);
  }

  #tell(peer: OnlinePeer, device: DeviceEntry): void {
    this.broadcast(peer.owner, { type: 'device', device }, peer.peerId);
  }
}
