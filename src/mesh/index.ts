/** The public names of the mesh that run in Node and in the browser. */

export type { Carrier, CarrierEvents } from './carrier.ts';
export type { ConnectionOptions, Engine, EngineName, IceServer, Path, PeerConnection } from './engine.ts';
export { Session } from './session.ts';
export type { SessionOptions, SessionStats } from './session.ts';
export type { SessionEnd } from './session-state.ts';
export { resetCodeOf } from './session-stream.ts';
export type { Stream } from './stream.ts';
export type {
  Device,
  Mesh,
  MeshEvents,
  MeshOptions,
  MeshStore,
  ProvenPeer,
  SelfDescription,
} from './mesh.ts';
export { readMessages, readSingleMessage, writeMessage } from './message-stream.ts';
export type { MessageLimits, MessagePatience } from './message-stream.ts';
export type { SignalingState } from './signaling-client.ts';
export type { SignalingSocketFactory } from './signaling-socket.ts';
export type { Standing, TrustEvent, TrustState } from './trust.ts';
export { createMesh } from './peer-mesh.ts';
