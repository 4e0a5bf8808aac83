/**
 * A mesh of one owner in memory, for tests of what signs: it verifies what it is given as a device would, keeps
 * it, and hands streams over to the handlers of its other devices.
 */

import type { Device, Mesh, MeshEvents, ProvenPeer } from '@cocoon-mesh/mesh';
import type {
  Clock,
  MembershipProof,
  OwnerKeys,
  OwnerRecords,
  ProvenMembership,
  ProvenShare,
  ShareProof,
} from '@cocoon-mesh/protocol';
import {
  MeshError,
  coOwnerRights,
  createOwnerSecret,
  createSetupToken,
  memberRights,
  ownerKeys,
  randomBytes,
  readSetupToken,
  redeem,
  signReceipt,
  signingKeyFromSeed,
  verifyMembership,
  verifyOwnerRecords,
  verifyRevocations,
  verifyShare,
} from '@cocoon-mesh/protocol';
import type { DeviceAudit } from './audit-events.ts';
import { localStreamPair } from './local-stream.ts';

type StreamHandler = Parameters<Mesh['handle']>[1];

export const receiptKey = await signingKeyFromSeed(randomBytes(32));

export class OwnerMesh {
  readonly peerId: string;
  owner: string | null;
  ownerRecords: OwnerRecords | null;
  readonly known: {
    member: ProvenMembership;
    kind: 'cocoon' | 'browser';
    online: boolean;
    signs: boolean;
  }[] = [];
  sharesKnown: ProvenShare[] = [];
  list: string[] = [];
  isConnected = true;
  isRevoked = false;
  /** What signaling's clock is ahead of this one. */
  clockOffsetMs = 0;
  /** Next hand-out fails with it. */
  failing: MeshError | null = null;
  /** Nothing can be told. */
  deaf: MeshError | null = null;
  /** Nobody of the epoch before is known any more. */
  isForgetful = false;
  /** Not among the members any more. */
  readonly revoked = new Map<string, ProvenMembership>();
  readonly issued: string[] = [];
  readonly handlers = new Map<string, StreamHandler>();
  /** Other devices by PeerId, for streams. */
  readonly others = new Map<string, OwnerMesh>();
  /** How this device looks at others. */
  asPeer: ProvenPeer | null = null;
  readonly claims: ShareProof[] = [];
  readonly #clock: Clock;
  readonly #listeners = new Map<string, Set<(...args: never[]) => void>>();

  constructor(peerId: string, keys: Pick<OwnerKeys, 'id' | 'records'> | null, clock: Clock) {
    this.peerId = peerId;
    this.owner = keys?.id ?? null;
    this.ownerRecords = keys?.records ?? null;
    this.#clock = clock;
  }

  get mesh(): Mesh {
    return this as unknown as Mesh;
  }

  get signaling(): Mesh['signaling'] {
    return this.isConnected
      ? ({
          state: 'connected',
          receiptKey: receiptKey.publicKey,
          clockOffsetMs: this.clockOffsetMs,
        } as Mesh['signaling'])
      : { state: 'stopped' as never };
  }

  get membership(): ProvenMembership | null {
    return this.members().find(({ peerId }) => peerId === this.peerId) ?? null;
  }

  add(
    member: Partial<ProvenMembership> & { readonly peerId: string },
    given: { kind?: 'cocoon' | 'browser'; online?: boolean; signs?: boolean } = {},
  ): ProvenMembership {
    const { kind = 'cocoon', online = true, signs = false } = given;
    const whole = memberOf(this.owner ?? '', member);
    this.known.push({ member: whole, kind, online, signs });
    return whole;
  }

  devices(): Device[] {
    const own = this.known.map(({ member, kind, online }) =>
      deviceOf(member.peerId, this.peerId, kind, online),
    );
    const foreign = this.sharesKnown
      .filter(({ owner }) => owner !== this.owner)
      .map(({ cocoon }) => ({ ...deviceOf(cocoon, this.peerId, 'cocoon', true), foreign: true }));
    return [...own, ...foreign];
  }

  signers(): Device[] {
    const ids = new Set(this.known.filter(({ signs }) => signs).map(({ member }) => member.peerId));
    return this.devices().filter(({ peerId }) => ids.has(peerId));
  }

  resolve(nameOrPeerId: string): Device {
    const device = this.devices().find(({ name, peerId }) => [name, peerId].includes(nameOrPeerId));
    if (!device) throw new MeshError('device_not_found');
    return device;
  }

  members(): ProvenMembership[] {
    return this.isForgetful ? [] : this.known.map(({ member }) => member);
  }

  signedMembership(peerId: string): ProvenMembership | null {
    return this.revoked.get(peerId) ?? this.members().find((member) => member.peerId === peerId) ?? null;
  }

  shares(): ProvenShare[] {
    return this.isForgetful ? [] : this.sharesKnown;
  }

  provisional(): { memberships: ProvenMembership[]; shares: ProvenShare[] } {
    return {
      memberships: this.members().filter(({ provisional }) => provisional),
      shares: this.sharesKnown.filter(({ provisional, owner }) => provisional && owner === this.owner),
    };
  }

  async issueMembership(peerId: string, proof: MembershipProof): Promise<void> {
    if (this.failing) throw this.failing;
    const newest = await verifyOwnerRecords(this.ownerRecords ?? []);
    const member = await verifyMembership(proof, peerId, this.#now(), newest);
    const back = this.revoked.get(peerId);
    if (back) this.add(back);
    this.revoked.delete(peerId);
    const entry = this.known.find((one) => one.member.peerId === peerId);
    if (!entry || member.serial <= entry.member.serial) throw new MeshError('membership_invalid');
    entry.member = member;
    this.issued.push(peerId);
  }

  async issueShare(proof: ShareProof): Promise<void> {
    if (this.failing) throw this.failing;
    const share = await verifyShare(proof, this.#now(), await verifyOwnerRecords(this.ownerRecords ?? []));
    this.sharesKnown = this.sharesKnown.map((one) => (one.jti === share.jti ? share : one));
    this.issued.push(share.coOwner);
  }

  revocations(): readonly string[] {
    return this.list;
  }

  async tellOwner(records: OwnerRecords | undefined, list: readonly string[]): Promise<void> {
    if (this.deaf) throw this.deaf;
    if (records) {
      if (records.length > (this.ownerRecords?.length ?? 0)) this.list = [];
      this.ownerRecords = records;
    }
    const owner = await verifyOwnerRecords(this.ownerRecords ?? []);
    const whole = [...this.list, ...list.filter((entry) => !this.list.includes(entry))];
    await verifyRevocations(whole, owner);
    this.list = whole;
  }

  async entries() {
    return verifyRevocations(this.list, await verifyOwnerRecords(this.ownerRecords ?? []));
  }

  handle(protocol: string, handler: StreamHandler): void {
    this.handlers.set(protocol, handler);
  }

  async openStream(peerId: string, protocol: string, header: Uint8Array) {
    const other = this.others.get(peerId);
    const handler = other?.handlers.get(protocol);
    if (!handler || !this.asPeer) throw new MeshError('device_offline');
    const [asking, serving] = localStreamPair(protocol, header);
    handler(serving, this.asPeer);
    return asking;
  }

  async ping(): Promise<never> {
    throw new MeshError('device_offline');
  }

  on<K extends keyof MeshEvents>(event: K, listener: MeshEvents[K]): () => void {
    const listeners = this.#listeners.get(event) ?? new Set();
    this.#listeners.set(event, listeners);
    listeners.add(listener);
    return () => void listeners.delete(listener);
  }

  emit<K extends keyof MeshEvents>(event: K, ...args: Parameters<MeshEvents[K]>): void {
    for (const listener of this.#listeners.get(event) ?? [])
      (listener as (...all: unknown[]) => void)(...args);
  }

  #now(): number {
    return Math.floor(this.#clock.now() / 1000);
  }
}

export async function newOwner() {
  const { secret, recoveryCode } = await createOwnerSecret();
  return { secret, recoveryCode, keys: await ownerKeys(secret) };
}

export async function newPeerId(): Promise<string> {
  return (await signingKeyFromSeed(randomBytes(32))).peerId;
}

export function memberOf(
  owner: string,
  member: Partial<ProvenMembership> & { readonly peerId: string },
): ProvenMembership {
  return {
    owner,
    epoch: 0,
    rights: memberRights,
    granted: 1_700_000_000,
    expires: null,
    until: null,
    jti: null,
    grantHash: null,
    serial: 1,
    provisional: false,
    ...member,
  };
}

export function peerOf(membership: ProvenMembership, given: Partial<ProvenPeer> = {}): ProvenPeer {
  const { peerId, owner, rights } = membership;
  return { peerId, name: peerId.slice(-6), owner, relation: 'own', membership, rights, ...given };
}

/** A share as it is claimed, with every signature there is. */
export async function claimedShare(
  root: OwnerKeys,
  coOwner: OwnerKeys,
  cocoon: string,
  now: number,
): Promise<{ token: string; proof: ShareProof; share: ProvenShare }> {
  const { token } = await createSetupToken(root, {
    scope: 'co-own',
    rights: coOwnerRights,
    now,
    expires: now + 3600,
    signaling: 'ws://127.0.0.1:7400/ws',
    receiptKey: receiptKey.publicKey,
    cocoon,
  });
  const setup = await readSetupToken(token);
  const redemption = await redeem(setup, coOwner.key, coOwner.id, coOwner.records);
  const receipt = await signReceipt(receiptKey, { jti: setup.grant.jti, redeemer: coOwner.id, now });
  const proof: ShareProof = { kind: 'claim', redemption, receipt };
  return { token, proof, share: await verifyShare(proof, now) };
}

/** What an audit was told. */
export function auditLines(): DeviceAudit & { readonly lines: Record<string, unknown>[] } {
  const lines: Record<string, unknown>[] = [];
  return { lines, append: (event, fields = {}) => void lines.push({ event, ...fields }) };
}

function deviceOf(peerId: string, self: string, kind: 'cocoon' | 'browser', online: boolean): Device {
  return {
    peerId,
    kind,
    name: peerId.slice(-6),
    owner: '',
    foreign: false,
    online,
    self: peerId === self,
    services: [],
    capabilities: [],
    location: null,
    load: 0,
    path: null,
    engine: null,
    rttMs: null,
    problem: null,
  };
}
