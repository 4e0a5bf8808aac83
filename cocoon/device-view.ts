/** Devices and services as `devices --json`, the gateway and the events show them. The names are the surface. */

import type { Device } from '@cocoon-mesh/mesh';
import type { CapabilityState } from '@cocoon-mesh/protocol';
import type { OwnService } from './services.ts';

export interface ServiceView {
  readonly name: string;
  readonly type: 'http' | 'tcp';
  /** Null where it is not known: other devices tell over a session only. */
  readonly port: number | null;
  readonly healthy: boolean | null;
}

/** Without the rest where nothing was told of it: it is asked over a session only, and few kinds have a load. */
export interface CapabilityView {
  readonly protocol: string;
  readonly version: string;
  /** 1 and more: whoever comes waits. */
  readonly load?: number;
  readonly in_flight?: number;
  readonly queued?: number;
  readonly limit?: number;
  readonly warm?: boolean;
  readonly features?: readonly string[];
}

export interface DeviceView {
  readonly name: string;
  readonly peer_id: string;
  readonly kind: 'cocoon' | 'browser';
  /** The whole id of whose it is. */
  readonly owner: string;
  /** Of another owner, who shares it: `name` is `name@owner` then. */
  readonly foreign: boolean;
  readonly online: boolean;
  readonly this: boolean;
  readonly path: string | null;
  readonly engine: string | null;
  readonly rtt_ms: number | null;
  readonly services: readonly ServiceView[];
  readonly capabilities: readonly CapabilityView[];
  readonly load: number;
  readonly location: string | null;
  readonly problem: string | null;
}

/**
 * @param known what was told of its services by now: all of the own device's, perhaps nothing of another's
 * @param states the same of its providers
 */
export function deviceView(
  device: Device,
  known: readonly Omit<ServiceView, 'type'>[],
  states: readonly CapabilityState[],
): DeviceView {
  return {
    name: device.name,
    peer_id: device.peerId,
    kind: device.kind,
    owner: device.owner,
    foreign: device.foreign,
    online: device.online,
    this: device.self,
    path: device.path,
    engine: device.engine,
    rtt_ms: device.rttMs === null ? null : rounded(device.rttMs),
    services: device.services.map(({ name, type }) => {
      const told = known.find((service) => service.name === name);
      return { name, type, port: told?.port ?? null, healthy: told?.healthy ?? null };
    }),
    capabilities: device.capabilities.map((capability) => capabilityView(capability, states)),
    load: device.load,
    location: device.location,
    problem: device.problem,
  };
}

/** Several providers of one capability are shown as one. */
function capabilityView(
  { protocol, version }: Device['capabilities'][number],
  states: readonly CapabilityState[],
): CapabilityView {
  const own = states.filter((state) => state.protocol === protocol && state.version === version);
  if (own.length === 0) return { protocol, version };
  const sum = (count: (state: CapabilityState) => number): number =>
    own.reduce((all, state) => all + count(state), 0);
  const [inFlight, queued, limit] = [
    sum((state) => state.in_flight),
    sum((state) => state.queued),
    sum((state) => state.limit),
  ];
  return {
    protocol,
    version,
    load: rounded((inFlight + queued) / limit),
    in_flight: inFlight,
    queued,
    limit,
    warm: own.some(({ warm }) => warm),
    features: [...new Set(own.flatMap(({ features }) => features))],
  };
}

export function ownServiceView({ name, type, port, healthy }: OwnService): ServiceView {
  return { name, type, port, healthy };
}

/** Milliseconds with three digits: what a clock can tell. */
export function rounded(ms: number): number {
  return Math.round(ms * 1000) / 1000;
}
