/** Devices and services as `devices --json`, the gateway and the events show them. The names are the surface. */

import type { Device } from '@cocoon-mesh/mesh';
import type { OwnService } from './services.ts';

export interface ServiceView {
  readonly name: string;
  readonly type: 'http' | 'tcp';
  /** Null for services of other devices: how they listen is theirs to know. */
  readonly port: number | null;
  readonly healthy: boolean | null;
}

export interface DeviceView {
  readonly name: string;
  readonly peer_id: string;
  readonly kind: 'cocoon' | 'browser';
  readonly online: boolean;
  readonly this: boolean;
  readonly path: string | null;
  readonly engine: string | null;
  readonly rtt_ms: number | null;
  readonly services: readonly ServiceView[];
  readonly capabilities: readonly { readonly protocol: string; readonly version: string }[];
  readonly load: number;
  readonly location: string | null;
  readonly problem: string | null;
}

export function deviceView(device: Device, own: readonly OwnService[]): DeviceView {
  return {
    name: device.name,
    peer_id: device.peerId,
    kind: device.kind,
    online: device.online,
    this: device.self,
    path: device.path,
    engine: device.engine,
    rtt_ms: device.rttMs === null ? null : rounded(device.rttMs),
    services: device.self
      ? own.map(ownServiceView)
      : device.services.map(({ name, type }) => ({ name, type, port: null, healthy: null })),
    capabilities: device.capabilities,
    load: device.load,
    location: device.location,
    problem: device.problem,
  };
}

export function ownServiceView({ name, type, port, healthy }: OwnService): ServiceView {
  return { name, type, port, healthy };
}

/** Milliseconds with three digits: what a clock can tell. */
export function rounded(ms: number): number {
  return Math.round(ms * 1000) / 1000;
}
