/** Several devices for tests, joined by sessions in memory: each with its registry, server and descriptions. */

import type { Device, Mesh, ProvenPeer, Stream } from '@cocoon-mesh/mesh';
import type { Session } from '@cocoon-mesh/mesh/session.ts';
import { sessionPair } from '@cocoon-mesh/mesh/session-pair.contract.ts';
import { MeshError, ResetCode, describeProtocol, memberRights, streamProtocols } from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { CapabilityServer } from './capability-server.ts';
import { Descriptions } from './descriptions.ts';
import { DeviceStates } from './device-states.ts';
import { LocalCapabilities } from './local-capabilities.ts';
import type { Provider } from './provider.ts';
import { CapabilityRouter } from './router.ts';
import { untilAborted } from './scripted-provider.contract.ts';

export interface TestDevice {
  readonly peerId: string;
  readonly local: LocalCapabilities;
  readonly server: CapabilityServer;
  /** What is listed of it. */
  listed: Partial<Device>;
  /** Every stream to it fails with this, at its opening or later. */
  fails: ((protocol: string) => void) | null;
  /** No connection to it is made. */
  unreachable: boolean;
  /** Ends every session with it. */
  vanish(): void;
  /** How often it was asked how it does. */
  described: number;
}

export class MeshOfProviders {
  readonly clock = new SteppedClock();
  readonly #devices = new Map<string, TestDevice & { readonly session: Session | null }>();
  readonly #names: string[] = [];
  readonly #descriptions: Descriptions[] = [];
  readonly router: CapabilityRouter;
  readonly descriptions: Descriptions;
  /** Of the device that asks. */
  readonly local = new LocalCapabilities({ clock: this.clock, log: () => undefined });
  /** Peers that streams were opened to, for requests. */
  readonly asked: string[] = [];
  /** Says nothing of itself. */
  silent: string | null = null;

  constructor() {
    const mesh: Pick<Mesh, 'peerId' | 'devices' | 'resolve' | 'openStream' | 'handle'> = {
      peerId: 'peer-me',
      devices: () => [this.#self(), ...this.#names.map((name) => this.#listed(name))],
      resolve: (name) => {
        const found = mesh.devices().find((device) => device.name === name || device.peerId === name);
        if (!found) throw new MeshError('device_not_found');
        return found;
      },
      openStream: async (peerId, protocol, header, signal) => {
        const stream = this.#open(peerId, protocol, header);
        return stream ?? untilAborted(signal ?? new AbortController().signal);
      },
      handle: () => undefined,
    };
    const states = new DeviceStates();
    this.descriptions = new Descriptions({
      mesh,
      clock: this.clock,
      own: () => ({ services: [], capabilities: this.local.states() }),
      learnt: (peerId, { capabilities }) => states.learn(peerId, capabilities),
    });
    this.router = new CapabilityRouter({
      mesh,
      clock: this.clock,
      local: this.local,
      states,
      descriptions: this.descriptions,
    });
  }

  add(name: string, ...providers: readonly Provider[]): TestDevice {
    const { clock } = this;
    const peerId = `peer-${name}`;
    const local = new LocalCapabilities({ clock, log: () => undefined });
    for (const provider of providers) local.add(provider);
    const server = new CapabilityServer({ local, clock, log: () => undefined });
    const handlers = new Map<string, (stream: Stream, peer: ProvenPeer) => void>([
      [streamProtocols.capability, server.handle],
    ]);
    const handle: Mesh['handle'] = (protocol, handler) => void handlers.set(protocol, handler);
    const described = new Descriptions({
      mesh: { devices: () => [], openStream: () => Promise.reject(new MeshError('internal')), handle },
      clock,
      own: () => ({ services: [], capabilities: local.states() }),
    });
    this.#descriptions.push(described);
    const peer = { peerId: 'peer-me', name: 'me', rights: memberRights } as ProvenPeer;
    const pair = sessionPair({
      acceptRight: (stream) => {
        if (stream.protocol === describeProtocol) {
          device.described++;
          if (this.silent === name) return;
        }
        const handler = handlers.get(stream.protocol);
        if (handler) handler(stream, peer);
        else stream.reset(ResetCode.unsupported);
      },
    });
    const device: TestDevice & { readonly session: Session } = {
      peerId,
      local,
      server,
      listed: {},
      fails: null,
      unreachable: false,
      described: 0,
      session: pair.left,
      vanish: () => pair.left.abort('vanished'),
    };
    this.#names.push(name);
    this.#devices.set(peerId, device);
    return device;
  }

  #listed(name: string): Device {
    const device = this.#devices.get(`peer-${name}`);
    return {
      ...this.#self(),
      peerId: `peer-${name}`,
      name,
      self: false,
      capabilities: device?.local.advertised() ?? [],
      ...device?.listed,
    };
  }

  #self(): Device {
    return {
      peerId: 'peer-me',
      kind: 'cocoon',
      name: 'me',
      owner: 'own',
      foreign: false,
      online: true,
      self: true,
      services: [],
      capabilities: this.local.advertised(),
      location: null,
      load: 0,
      path: null,
      engine: null,
      rttMs: null,
      problem: null,
    };
  }

  /** Null: it takes for ever. */
  #open(peerId: string, protocol: string, header: Uint8Array): Stream | null {
    const device = this.#devices.get(peerId);
    if (protocol === streamProtocols.capability) this.asked.push(peerId.slice('peer-'.length));
    device?.fails?.(protocol);
    if (device?.unreachable) return null;
    if (!device?.session) throw new MeshError('device_offline');
    return device.session.open(protocol, header);
  }
}
