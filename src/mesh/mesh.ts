/**
 * One peer's place in the mesh: its signaling connection, the devices it knows, its sessions. This is what a
 * daemon or a browser page holds; features open streams with it and register handlers for streams of others.
 */

import type { Clock, MembershipProof, ProvenMembership, SigningKey, SetupToken } from '@cocoon-mesh/protocol';
import type { Engine, EngineName, IceServer, Path } from './engine.ts';
import type { AeadFactory } from './noise-cipher.ts';
import type { SignalingState } from './signaling-client.ts';
import type { SignalingSocketFactory } from './signaling-socket.ts';
import type { Stream } from './stream.ts';

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
}

/** A verified device of my owner. */
export interface Device {
  readonly peerId: string;
  readonly kind: 'cocoon' | 'browser';
  readonly name: string;
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
  readonly membership: ProvenMembership;
}

export type StreamHandler = (stream: Stream, peer: ProvenPeer) => void;

export interface MeshEvents {
  /** The list of devices, or something in it, changed. */
  devices: () => void;
  signaling: (state: SignalingState) => void;
  /** A session came up or ended. */
  session: (peerId: string, up: boolean) => void;
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
  /** New services, capabilities or location: signs the next record and tells signaling. */
  describe(self: SelfDescription): Promise<void>;
  /** Forgets the pin of a name, after the user has accepted the new device. */
  acceptName(name: string): Promise<void>;
  on<K extends keyof MeshEvents>(event: K, listener: MeshEvents[K]): () => void;
  /** Ends sessions (GOAWAY, open streams get up to two seconds) and the signaling connection. Idempotent. */
  close(): Promise<void>;
}
