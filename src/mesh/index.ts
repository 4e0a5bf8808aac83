/** The public names of the mesh that run in Node and in the browser. */

export type { Carrier, CarrierEvents } from './carrier.ts';
export type { ConnectionOptions, Engine, EngineName, IceServer, Path, PeerConnection } from './engine.ts';
export type { Stream } from './stream.ts';
