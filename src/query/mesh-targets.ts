/**
 * Whom a query asks in a mesh: the own devices that have the capability, this one by a call without a stream. A
 * cocoon of another owner is asked only when it is named.
 */

import type { Device, Mesh } from '@cocoon-mesh/mesh';
import type { Clock } from '@cocoon-mesh/protocol';
import { MeshError } from '@cocoon-mesh/protocol';
import { askStream } from './ask-stream.ts';
import type { Ask, QueryTarget } from './target.ts';

export interface MeshTargetsOptions {
  readonly mesh: Pick<Mesh, 'devices' | 'resolve' | 'openStream'>;
  readonly clock: Clock;
  /** Own devices that have it are asked: `queryCapability`, or what a plugin's query says. */
  readonly capability: string;
  /** Names or PeerIds: these and no others, whatever they say that they have. */
  readonly named?: readonly string[];
  /** This device's own answer; null where it answers nothing, as in a browser. */
  readonly local: Ask | null;
}

/** @throws MeshError device_not_found | name_changed for a name */
export function meshTargets(options: MeshTargetsOptions): readonly QueryTarget[] {
  const { mesh, capability, named, local } = options;
  const devices = named
    ? new Map(named.map((name) => mesh.resolve(name)).map((device) => [device.peerId, device])).values()
    : mesh.devices().filter((device) => !device.foreign && has(device, capability));
  return [...devices]
    .filter(({ self }) => !self || local !== null)
    .map((device) => ({ peerId: device.peerId, name: device.name, ask: askOf(device, options) }));
}

function has({ capabilities }: Device, capability: string): boolean {
  return capabilities.some(({ protocol }) => protocol === capability);
}

function askOf(device: Device, { mesh, clock, local }: MeshTargetsOptions): Ask | null {
  const { peerId, self, online, problem } = device;
  if (self) return local;
  if (!online) return null;
  if (problem !== null)
    return () => {
      throw new MeshError('name_changed', `Not asked: ${problem}`);
    };
  return (request, signal) => askStream(mesh, clock, peerId, request, signal);
}
