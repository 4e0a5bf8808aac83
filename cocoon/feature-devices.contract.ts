/**
 * Devices with tasks, knowledge and a gateway of their own, and streams between them that never leave the process.
 * What the mesh judges at the opening of a stream is judged here, too: the right that its header needs.
 */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LocalCapabilities } from '@cocoon-mesh/capabilities';
import type { Device, Mesh, ProvenPeer } from '@cocoon-mesh/mesh';
import type { Rights } from '@cocoon-mesh/protocol';
import { MeshError, ResetCode, allows, memberRights, neededRight, systemClock } from '@cocoon-mesh/protocol';
import type { DeviceSettings } from './config.ts';
import { deviceSettings } from './config.ts';
import { deviceView } from './device-view.ts';
import { FeatureParts } from './feature-parts.ts';
import { Gateway } from './gateway/gateway.ts';
import { Home } from './home.ts';
import { localStreamPair } from './local-stream.ts';
import { Reach } from './reach.ts';
import { describeSelf } from './self-description.ts';
import type { Services } from './services.ts';

const gatewayToken = 'test-token-of-the-gateway-that-is-long-enough';
const owner = `own_${'m'.repeat(43)}`;

type StreamHandler = Parameters<Mesh['handle']>[1];

interface Party {
  readonly device: Device;
  readonly handlers: Map<string, StreamHandler>;
  readonly local: LocalCapabilities;
}

export class Devices implements AsyncDisposable {
  readonly #parties = new Map<string, Party>();
  readonly #stops = new AsyncDisposableStack();
  /** What peers of these devices may; changed by tests about rights. */
  rights: Rights = memberRights;
  /** Peers that nobody reaches although they are listed as online. */
  readonly unreachable = new Set<string>();
  /** Asked for by somebody who may not. */
  readonly denied: string[] = [];

  /** @param folder of an earlier device with the same things */
  async add(name: string, change: Partial<DeviceSettings> = {}): Promise<FeatureDevice> {
    const folder = await mkdtemp(join(tmpdir(), 'cocoon-features-'));
    this.#stops.defer(() => rm(folder, { recursive: true, force: true }));
    const settings = { ...deviceSettings({ name }, {}, {}), ...change };
    const peerId = `peer-of-${name}`;
    const handlers = new Map<string, StreamHandler>();
    const services = { list: () => [], get: () => undefined } as unknown as Services;
    const local = new LocalCapabilities({
      clock: systemClock,
      log: () => undefined,
      disabled: settings.disabledCapabilities,
    });
    const { capabilities } = describeSelf(settings, name, services, []);
    const device: Device = {
      peerId,
      kind: 'cocoon',
      name,
      owner,
      foreign: false,
      online: true,
      self: false,
      services: [],
      capabilities,
      location: null,
      load: 0,
      path: null,
      engine: null,
      rttMs: null,
      problem: null,
    };
    this.#parties.set(peerId, { device, handlers, local });
    const mesh = this.#mesh(peerId);
    const features = new FeatureParts({
      mesh,
      services,
      local,
      settings,
      home: new Home(folder),
      clock: systemClock,
      log: () => undefined,
      denied: (peer, { protocol, verb }) => this.denied.push(`${peer.peerId} ${protocol} ${verb}`),
    });
    this.#stops.defer(() => features.close());
    const gateway = await Gateway.start({
      port: 0,
      token: gatewayToken,
      mesh,
      reach: new Reach(mesh, services, systemClock),
      clock: systemClock,
      devices: () => mesh.devices().map((each) => deviceView(each, [], features.capabilities.statesOf(each))),
      features,
    });
    this.#stops.defer(() => gateway.close());
    features.start();
    return new FeatureDevice(peerId, folder, features, gateway, mesh);
  }

  goOffline(peerId: string): void {
    const party = this.#parties.get(peerId);
    if (party) this.#parties.set(peerId, { ...party, device: { ...party.device, online: false } });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stops.disposeAsync();
  }

  #mesh(peerId: string): Mesh {
    const devices = (): Device[] =>
      [...this.#parties.values()].map(({ device, local }) => ({
        ...device,
        capabilities: [...device.capabilities, ...local.advertised()],
        self: device.peerId === peerId,
      }));
    const mesh: Pick<Mesh, 'peerId' | 'devices' | 'resolve' | 'openStream' | 'handle' | 'on'> & object = {
      peerId,
      devices,
      resolve: (name) => {
        const found = devices().find((device) => device.name === name || device.peerId === name);
        if (found) return found;
        throw new MeshError('device_not_found', `No device called ${name} is known`);
      },
      openStream: async (to, protocol, header) => this.#open(peerId, to, protocol, header),
      handle: (protocol, handler) => void this.#parties.get(peerId)?.handlers.set(protocol, handler),
      on: () => () => undefined,
    };
    return {
      ...mesh,
      sessionCount: 0,
      streamCount: 0,
      signaling: { state: 'connecting' },
    } as unknown as Mesh;
  }

  #open(from: string, to: string, protocol: string, header: Uint8Array) {
    const party = this.#parties.get(to);
    if (!party?.device.online) throw new MeshError('device_offline');
    const [asking, serving] = localStreamPair(protocol, header);
    if (this.unreachable.has(to)) return asking;
    const right = neededRight(protocol, header);
    const handler = party.handlers.get(protocol);
    const peer = { peerId: from, name: from, owner, relation: 'own', rights: this.rights } as ProvenPeer;
    if (right && !allows(this.rights, right.protocol, right.verb, right.name))
      serving.reset(ResetCode.denied);
    else if (!handler) serving.reset(ResetCode.unsupported);
    else handler(serving, peer);
    return asking;
  }
}

export interface Answer<T> {
  readonly status: number;
  readonly body: T;
}

export class FeatureDevice {
  readonly peerId: string;
  readonly folder: string;
  readonly features: FeatureParts;
  readonly gateway: Gateway;
  readonly mesh: Mesh;

  constructor(peerId: string, folder: string, features: FeatureParts, gateway: Gateway, mesh: Mesh) {
    this.peerId = peerId;
    this.folder = folder;
    this.features = features;
    this.gateway = gateway;
    this.mesh = mesh;
  }

  /** At its gateway. A text goes out as it is, everything else as JSON. */
  async fetch(
    method: string,
    path: string,
    body?: unknown,
    headers: Record<string, string> = {},
  ): Promise<Response> {
    return fetch(`${this.gateway.url}${path}`, {
      method,
      headers: { authorization: `Bearer ${gatewayToken}`, ...headers },
      ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
      signal: AbortSignal.timeout(20_000),
    });
  }

  async ask<T>(method: string, path: string, body?: unknown): Promise<Answer<T>> {
    const response = await this.fetch(method, path, body);
    return { status: response.status, body: (await response.json()) as T };
  }

  /** Status and code of a refusal. */
  async refusal(method: string, path: string, body?: unknown): Promise<string> {
    const { status, body: problem } = await this.ask<{ code?: string }>(method, path, body);
    return `${status} ${problem.code ?? 'no problem'}`;
  }

  async lines(path: string, body: unknown): Promise<Record<string, unknown>[]> {
    const text = await (await this.fetch('POST', path, body)).text();
    return text
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
  }
}
