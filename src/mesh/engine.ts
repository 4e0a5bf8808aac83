/**
 * The seam to a WebRTC engine: a dozen members, the same for libdatachannel, werift and the browser.
 * One peer connection carries one negotiated, ordered, reliable data channel (id 0). An engine checks SDP and
 * candidates before the native code sees them, gives every connection a fresh certificate, and never asks a
 * STUN server that was not configured. What all engines must hold is `engine.contract.ts`.
 */

import type { Bytes } from '@cocoon-mesh/protocol';
import type { Carrier } from './carrier.ts';

export type EngineName = 'libdatachannel' | 'werift' | 'browser';

/** As in RTCIceServer; urls are stun:, turn: or turns:. */
export interface IceServer {
  readonly urls: readonly string[];
  readonly username?: string;
  readonly credential?: string;
}

export interface ConnectionOptions {
  readonly iceServers: readonly IceServer[];
  /**
   * Trickled local candidates (`candidate:…` lines with mid "0"), then null when gathering ends. An engine may
   * keep them until both descriptions are there.
   */
  readonly onCandidate: (candidate: string | null) => void;
  /** Also gather and accept 127.0.0.1: machines without any other network, and tests. Default true. */
  readonly loopback?: boolean;
}

/** How the two ends reach each other, once connected. */
export type Path = 'direct' | 'lan' | 'turn';

export interface PeerConnection {
  /** Creates the offer and starts gathering. Once, first. */
  createOffer(): Promise<string>;
  /** Takes the other side's offer and creates the answer. Once, first. @throws MeshError bad_sdp */
  acceptOffer(sdp: string): Promise<string>;
  /** Once, after `createOffer`. @throws MeshError bad_sdp */
  acceptAnswer(sdp: string): Promise<void>;
  /** Any time; kept until the description is there. Unusable candidates are dropped silently. */
  addCandidate(candidate: string | null): void;
  /** SHA-256 of our certificate, 32 bytes; known after createOffer or acceptOffer. */
  readonly localFingerprint: Bytes;
  /** SHA-256 of the certificate the other side announced (and DTLS has checked once `opened`). */
  readonly remoteFingerprint: Bytes;
  /**
   * Resolves when the channel carries messages. A signal that aborts ends the wait, not the connection.
   * @throws MeshError connect_timeout | carrier_lost, or cancelled | timeout for the signal's reason
   */
  opened(signal: AbortSignal): Promise<Carrier>;
  /** Null until known. */
  path(): Promise<Path | null>;
  /** Idempotent; ends sockets, timers and threads of this connection. */
  close(): Promise<void>;
}

export interface Engine {
  readonly name: EngineName;
  /** True where the DTLS below is not trusted on its own: Noise keeps encrypting (werift). */
  readonly sealed: boolean;
  connect(options: ConnectionOptions): PeerConnection;
}
