/**
 * One peer's place in the mesh: its signaling connection, the devices it knows, its sessions. This is what a
 * daemon or a browser page holds; features open streams with it and register handlers for streams of others.
 */

import type {
  Clock,
  MembershipProof,
  NeededRight,
  OwnerKeys,
  OwnerRecords,
  ProvenMembership,
  ProvenShare,
  Rights,
  SetupToken,
  ShareProof,
  SigningKey,
} from '@cocoon-mesh/protocol';
import type { Engine, EngineName, IceServer, Path } from './engine.ts';
import type { AeadFactory } from './noise-cipher.ts';
import type { SignalingState } from './signaling-client.ts';
import type { SignalingSocketFactory } from './signaling-socket.ts';
import type { Stream } from './stream.ts';
import type { Standing, TrustEvent, TrustState } from './trust.ts';

/** What this peer says of itself; signed into its device record. */
export interface SelfDescription {
  readonly kind: 'cocoon' | 'browser';
  readonly name: string;
  readonly services: readonly { readonly name: string; readonly type: 'http' | 'tcp' }[];
  readonly capabilities: readonly { readonly protocol: string; readonly version: string }[];
  readonly location?: string;
}

/** What must survive a restart. The daemon keeps it in files, a browser in IndexedDB. */
export interface MeshStore {
  /** Null before the first membership. */
  loadMembership(): Promise<MembershipProof | null>;
  saveMembership(membership: MembershipProof): Promise<void>;
  /** Name → PeerId, pinned on first use. */
  loadPins(): Promise<Record<string, string>>;
  savePins(pins: Record<string, string>): Promise<void>;
  /** Null on a new device. */
  loadTrust(): Promise<unknown>;
  saveTrust(state: TrustState): Promise<void>;
}

export interface MeshOptions {
  readonly key: SigningKey;
  readonly engine: Engine;
  readonly iceServers: readonly IceServer[];
  /** `ws://host:port/ws`. */
  readonly signalingUrl: string;
  readonly openSocket: SignalingSocketFactory;
  readonly self: SelfDescription;
  readonly store: MeshStore;
  /** Redeemed at the first sign-in when there is no membership yet. */
  readonly token?: SetupToken;
  readonly clock: Clock;
  /** Node passes `nodeAead`; the default is portable and slower. */
  readonly aead?: AeadFactory;
  /** For the daemon's log. */
  readonly log: (level: 'debug' | 'info' | 'warn', message: string, fields?: Record<string, unknown>) => void;
  /** 0 to 1, sent to signaling when it changes. */
  readonly load?: () => number;
  /** This device holds its owner's secret and answers `/cocoon/owner/1`. */
  readonly signs?: () => boolean;
  /** What this device allows beyond rights, such as running tasks for others. Default: everything. */
  readonly policy?: (peer: ProvenPeer, right: NeededRight) => boolean;
  /** ID token for a signaling server that asks for one; asked anew at each sign-in. */
  readonly oidcToken?: () => Promise<string | null>;
}

/** A verified device of my owner, or a cocoon that is shared with my owner. */
export interface Device {
  readonly peerId: string;
  readonly kind: 'cocoon' | 'browser';
  /** Of another owner's: `name@` and the first eight characters of its owner id behind `own_`. */
  readonly name: string;
  readonly owner: string;
  /** Of another owner: named explicitly or not used at all. */
  readonly foreign: boolean;
  readonly online: boolean;
  readonly self: boolean;
  readonly services: readonly { readonly name: string; readonly type: 'http' | 'tcp' }[];
  readonly capabilities: readonly { readonly protocol: string; readonly version: string }[];
  readonly location: string | null;
  readonly load: number;
  /** All null without a session. `engine` is ours for that session. */
  readonly path: Path | null;
  readonly engine: EngineName | null;
  readonly rttMs: number | null;
  /** Why the device cannot be used although it is listed, e.g. its name was pinned to another device. */
  readonly problem: string | null;
}

/** Who stands at the other end of a stream: proven, with rights. */
export interface ProvenPeer {
  readonly peerId: string;
  readonly name: string;
  readonly owner: string;
  readonly relation: Standing['relation'];
  readonly membership: ProvenMembership;
  /** What it may do here: its membership's, for a peer of another owner within what that owner was given. */
  readonly rights: Rights;
}

export type StreamHandler = (stream: Stream, peer: ProvenPeer) => void;

export interface MeshEvents {
  /** The list of devices, or something in it, changed. */
  devices: () => void;
  signaling: (state: SignalingState) => void;
  /** A session came up or ended. */
  session: (peerId: string, up: boolean) => void;
  /** Something about owners became known. */
  trust: (event: TrustEvent) => void;
  /** An introduction was accepted or refused; `code` is null for one that led to a session. */
  introduction: (
    peer: { peerId: string; owner: string | null; dialled: boolean },
    code: string | null,
  ) => void;
  /** A peer that may be here opened a stream that its rights, or this device's policy, do not allow. */
  denied: (peer: ProvenPeer, right: NeededRight) => void;
  /** A chain of my owner's waits for a signature by its key (`provisional`). */
  provisional: () => void;
}

export interface Mesh {
  readonly peerId: string;
  readonly instance: string;
  /** The own owner id, null until a membership is there. */
  readonly owner: string | null;
  readonly signaling: SignalingState;
  readonly sessionCount: number;
  readonly streamCount: number;
  /** Me first, then by name. */
  devices(): readonly Device[];
  /** By name or PeerId. @throws MeshError device_not_found | name_changed */
  resolve(nameOrPeerId: string): Device;
  /** Starts signing in; resolves at once. */
  start(): void;
  /** Resolves with the first `connected`; rejects on `refused` or when the signal fires. */
  ready(signal: AbortSignal): Promise<void>;
  /**
   * Opens a stream, and first a session when there is none (an introduction through signaling).
   * @throws MeshError device_offline | signaling_unreachable | connect_timeout | proof_failed | denied | …
   */
  openStream(peerId: string, protocol: string, header: Uint8Array, signal?: AbortSignal): Promise<Stream>;
  /** Round trip over the session in milliseconds, with how it went. */
  ping(
    peerId: string,
    signal?: AbortSignal,
  ): Promise<{ rttMs: number; path: Path | null; engine: EngineName }>;
  /** Streams of others with this protocol; the handler checks the peer's rights. */
  handle(protocol: string, handler: StreamHandler): void;
  /** Ends the session to a peer, if there is one; the next request makes a new one. */
  disconnect(peerId: string): void;
  // Owners

  /** The newest records of my owner. */
  readonly ownerRecords: OwnerRecords | null;
  readonly membership: ProvenMembership | null;
  /** My owner has revoked me, as far as I or signaling know. */
  readonly isRevoked: boolean;
  /** Every device of my owner that is known, me included: what a rotation signs anew. */
  members(): readonly ProvenMembership[];
  /** What my owner signed last for a device of its own, also when that was revoked since; null when unknown. */
  signedMembership(peerId: string): ProvenMembership | null;
  /** Of my owner's cocoons with others, and of others' cocoons with my owner. */
  shares(): readonly ProvenShare[];
  /** Chains of my owner's that a holder of the secret should replace. */
  provisional(): {
    readonly memberships: readonly ProvenMembership[];
    readonly shares: readonly ProvenShare[];
  };
  // What changes something resolves when it is stored here; it counts, and others are told, all the same.

  /** Hands a membership that was signed for a device to it; my own is taken at once. @throws MeshError */
  issueMembership(peerId: string, membership: MembershipProof): Promise<void>;
  /** Hands a share that was signed to those it concerns. @throws MeshError */
  issueShare(share: ShareProof): Promise<void>;
  /** All of my owner's revocations, oldest first: the next one is signed behind them. */
  revocations(): readonly string[];
  /** Takes in my owner's newest revocation or rotation, tells everybody, cuts whom it ends. @throws MeshError */
  tellOwner(records: OwnerRecords | undefined, list: readonly string[]): Promise<void>;
  /**
   * Redeems a co-own token with my owner's key, through signaling.
   * @throws MeshError token_used | token_expired | … | signaling_unreachable | storage_failed
   */
  claim(token: SetupToken, keys: OwnerKeys): Promise<ProvenShare>;
  /** Devices that said in HELLO that they hold my owner's secret, online first. */
  signers(): readonly Device[];

  /** New services, capabilities or location: signs the next record and tells signaling. */
  describe(self: SelfDescription): Promise<void>;
  /** Forgets the pin of a name, after the user has accepted the new device. */
  acceptName(name: string): Promise<void>;
  on<K extends keyof MeshEvents>(event: K, listener: MeshEvents[K]): () => void;
  /** Ends sessions (GOAWAY, open streams get up to two seconds) and the signaling connection. Idempotent. */
  close(): Promise<void>;
}
