/** Meshes in one process on real engines: what the stories in this folder start from. */

import type {
  Mesh,
  MeshEvents,
  MeshOptions,
  MeshStore,
  SelfDescription,
  Standing,
  TrustState,
} from '@cocoon-mesh/mesh';
import { createMesh } from '@cocoon-mesh/mesh';
import type { Engine } from '@cocoon-mesh/mesh';
import { nodeSignalingSocket } from '@cocoon-mesh/mesh/signaling-socket.node.ts';
import type { MembershipProof, MembershipTerms, OwnerKeys, Rights, SigningKey } from '@cocoon-mesh/protocol';
import {
  createOwnerSecret,
  generateSigningKey,
  memberRights,
  ownerKeys,
  signMembership,
  systemClock,
  verifyMembership,
} from '@cocoon-mesh/protocol';

export interface Peer {
  readonly key: SigningKey;
  readonly mesh: Mesh;
  readonly membership: MembershipProof;
  readonly store: MemoryStore;
}

export async function newOwner(): Promise<OwnerKeys> {
  return ownerKeys((await createOwnerSecret()).secret);
}

export class MemoryStore implements MeshStore {
  membership: MembershipProof | null;
  pins: Record<string, string> = {};
  trust: TrustState | null = null;

  constructor(membership: MembershipProof | null) {
    this.membership = membership;
  }

  async loadMembership(): Promise<MembershipProof | null> {
    return this.membership;
  }

  async saveMembership(membership: MembershipProof): Promise<void> {
    this.membership = membership;
  }

  async loadPins(): Promise<Record<string, string>> {
    return this.pins;
  }

  async savePins(pins: Record<string, string>): Promise<void> {
    this.pins = pins;
  }

  async loadTrust(): Promise<unknown> {
    return this.trust;
  }

  async saveTrust(state: TrustState): Promise<void> {
    this.trust = state;
  }
}

/** A device of the same owner, for parts that stand without a mesh. */
export async function standingOf(peerId: string, proof: MembershipProof): Promise<Standing> {
  const membership = await verifyMembership(proof, peerId, Math.floor(systemClock.now() / 1000));
  const { rights, expires } = membership;
  return { peerId, membership, share: null, relation: 'own', rights, expires };
}

export interface PeerOptions extends Partial<Pick<MeshOptions, 'signs' | 'policy' | 'token'>> {
  readonly owner: OwnerKeys;
  readonly engine: Engine;
  readonly signalingUrl: string;
  readonly name: string;
  readonly key?: SigningKey;
  readonly self?: Partial<SelfDescription>;
  readonly logged?: (message: string) => void;
  /** Of the membership, seconds since 1970. */
  readonly expires?: number;
  /** Of the membership. */
  readonly rights?: Rights;
  /** Of a peer that was there before; its membership is used. */
  readonly store?: MemoryStore;
}

export async function startPeer(options: PeerOptions): Promise<Peer> {
  const { owner, engine, signalingUrl, name, signs, policy, token } = options;
  const key = options.key ?? (await generateSigningKey());
  const store =
    options.store ?? new MemoryStore(token ? null : await membershipOf(owner, key.peerId, termsOf(options)));
  const mesh = await createMesh({
    key,
    engine,
    iceServers: [],
    signalingUrl,
    openSocket: nodeSignalingSocket,
    self: { kind: 'cocoon', name, services: [], capabilities: [], ...options.self },
    store,
    ...(signs ? { signs } : {}),
    ...(policy ? { policy } : {}),
    ...(token ? { token } : {}),
    clock: systemClock,
    log: (level, message, fields) =>
      options.logged?.(`${name} ${level} ${message} ${JSON.stringify(fields ?? {})}`),
  });
  mesh.start();
  await mesh.ready(AbortSignal.timeout(10_000));
  const { membership } = store;
  if (!membership) throw new Error(`${name} has no membership`);
  return { key, mesh, membership, store };
}

function termsOf({ expires, rights }: PeerOptions): Pick<MembershipTerms, 'expires'> & { rights?: Rights } {
  return { ...(expires === undefined ? {} : { expires }), ...(rights ? { rights } : {}) };
}

/** What an owner signs for a device of its own. @param terms of a claim, where it takes its place */
export async function membershipOf(
  owner: OwnerKeys,
  peerId: string,
  terms: Partial<Pick<MembershipTerms, 'expires' | 'rights' | 'serial' | 'granted' | 'jti'>> = {},
): Promise<MembershipProof> {
  const now = Math.floor(systemClock.now() / 1000);
  return signMembership(owner, { peerId, serial: 1, rights: memberRights, now, ...terms });
}

/** Resolves when the mesh lists this device as online. */
export async function listed(mesh: Mesh, peerId: string): Promise<void> {
  const there = (): boolean => mesh.devices().some((device) => device.peerId === peerId && device.online);
  if (there()) return;
  await new Promise<void>((resolve) => {
    const forget = mesh.on('devices', () => {
      if (!there()) return;
      forget();
      resolve();
    });
  });
}

/** Resolves when something holds; looked at after every event of this kind. */
export async function when(mesh: Mesh, event: keyof MeshEvents, holds: () => boolean): Promise<void> {
  if (holds()) return;
  await new Promise<void>((resolve) => {
    const forget = mesh.on(event, () => {
      if (!holds()) return;
      forget();
      resolve();
    });
  });
}
