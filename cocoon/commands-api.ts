/**
 * What the running daemon does for the commands of its user: one method per question. The control socket calls
 * it; it knows neither HTTP nor the command line.
 */

import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Mesh } from '@cocoon-mesh/mesh';
import type { Clock } from '@cocoon-mesh/protocol';
import { MeshError, limits } from '@cocoon-mesh/protocol';
import type { Capabilities } from './capabilities.ts';
import type { DeviceView, ServiceView } from './device-view.ts';
import { deviceView, ownServiceView, rounded } from './device-view.ts';
import type { Finding } from './doctor.ts';
import { runForward } from './forward.ts';
import type { Gateway } from './gateway/gateway.ts';
import type { Knowledge } from './knowledge.ts';
import type { Plugins } from './plugins.ts';
import type { OwnerCommands } from './owner-commands.ts';
import type { Reach } from './reach.ts';
import { parseService } from './service-spec.ts';
import type { Services } from './services.ts';

export interface CommandsOptions {
  readonly mesh: Mesh;
  readonly services: Services;
  readonly reach: Reach;
  readonly capabilities: Capabilities;
  readonly gateway: Gateway;
  readonly clock: Clock;
  readonly owner: OwnerCommands;
  readonly knowledge: Knowledge;
  readonly plugins: Plugins;
  readonly home: string;
  readonly engine: string;
  readonly version: string;
  readonly signalingUrl: string;
  /** Where the web page is, without a trailing slash. Null when nobody serves it. */
  readonly web: string | null;
  readonly doctor: () => Promise<readonly Finding[]>;
}

export interface Status {
  readonly name: string;
  readonly peer_id: string;
  readonly owner: string | null;
  readonly signaling: {
    readonly url: string;
    readonly connected: boolean;
    readonly problem: { readonly code: string; readonly message: string } | null;
  };
  readonly services: readonly ServiceView[];
  readonly capabilities: readonly { readonly protocol: string; readonly version: string }[];
  /** Configured here and not served now, with the reason. */
  readonly unavailable: readonly {
    readonly protocol: string;
    readonly version: string;
    readonly problem: string;
  }[];
  readonly holds_secret: boolean;
  readonly gateway: string;
  readonly web: string | null;
  readonly engine: string;
  readonly sessions: number;
  readonly home: string;
  readonly version: string;
  readonly pid: number;
}

export interface PingAnswer {
  readonly rtt_ms: number;
  readonly path: string | null;
  readonly engine: string;
}

export class Commands {
  readonly #options: CommandsOptions;

  constructor(options: CommandsOptions) {
    this.#options = options;
  }

  /** In the name of the owner. */
  get owner(): OwnerCommands {
    return this.#options.owner;
  }

  /** What this device has indexed. */
  get plugins(): Plugins {
    return this.#options.plugins;
  }

  get knowledge(): Knowledge {
    return this.#options.knowledge;
  }

  status(): Status {
    const { mesh, gateway, web, engine, home, version, signalingUrl } = this.#options;
    const own = this.#own();
    const state = mesh.signaling;
    const problem =
      state.state === 'waiting' || state.state === 'refused'
        ? { code: state.code, message: state.message }
        : null;
    return {
      name: own.name,
      peer_id: mesh.peerId,
      owner: mesh.owner,
      signaling: { url: signalingUrl, connected: state.state === 'connected', problem },
      services: own.services,
      capabilities: own.capabilities,
      unavailable: this.#options.capabilities.local.problems(),
      holds_secret: this.owner.signsHere,
      gateway: gateway.url,
      web,
      engine,
      sessions: mesh.sessionCount,
      home,
      version,
      pid: process.pid,
    };
  }

  /** As far as known. */
  devices(): DeviceView[] {
    const { mesh, services, capabilities } = this.#options;
    return mesh
      .devices()
      .map((device) =>
        deviceView(
          device,
          device.self ? services.list() : capabilities.servicesOf(device),
          capabilities.statesOf(device),
        ),
      );
  }

  /** After asking devices with a session how their services and providers do. */
  async askedDevices(): Promise<DeviceView[]> {
    await this.#options.capabilities.refresh();
    return this.devices();
  }

  async acceptName(name: string): Promise<DeviceView[]> {
    await this.#options.mesh.acceptName(name);
    return this.devices();
  }

  /**
   * A link that signs a browser in, once, for ten minutes.
   * @throws MeshError not_found, and as `OwnerCommands.makeToken`
   */
  async signInLink(): Promise<string> {
    const { web } = this.#options;
    if (web === null)
      throw new MeshError('not_found', 'Nobody serves the web page here', {
        hint: 'Run `npm run build:web` and start again without --no-web.',
      });
    // How long the browser stays is said when its membership is signed, and again with each renewal.
    const { token } = await this.owner.makeToken({
      scope: 'enroll',
      expires_s: limits.signInLinkMs / 1000,
      admin: true,
      services: [],
      capabilities: [],
    });
    return `${web}/#token=${token}`;
  }

  /** @throws MeshError device_not_found | self_connect | device_offline | connect_timeout | … */
  async ping(device: string, signal: AbortSignal): Promise<PingAnswer> {
    const { mesh } = this.#options;
    const { rttMs, path, engine } = await mesh.ping(mesh.resolve(device).peerId, signal);
    return { rtt_ms: rounded(rttMs), path, engine };
  }

  services(): readonly ServiceView[] {
    return this.#options.services.list().map(ownServiceView);
  }

  /** @throws MeshError bad_service | bad_name | service_exists */
  async addService(text: string): Promise<ServiceView> {
    return ownServiceView(await this.#options.services.add(parseService(text)));
  }

  /** @throws MeshError service_not_found */
  async removeService(name: string): Promise<ServiceView> {
    return ownServiceView(await this.#options.services.remove(name));
  }

  /** A link for the browser: to a service, or to the web page. @throws MeshError */
  async open(target: string | null): Promise<{ url: string }> {
    if (target === null) return { url: await this.signInLink() };
    const [device = '', service = '', ...rest] = target.split('/');
    if (service === '' || rest.length > 0)
      throw new MeshError('usage', 'Name a device and a service: DEVICE/SERVICE');
    const found = this.#options.reach.findOffered(device, service);
    if (found.services.some(({ name, type }) => name === service && type === 'tcp'))
      throw new MeshError('wrong_service_type', `${service} is a tcp service`);
    return { url: this.#options.gateway.appLink(found, service) };
  }

  async doctor(): Promise<{ findings: readonly Finding[] }> {
    return { findings: await this.#options.doctor() };
  }

  /** Until the command ends its request. @throws MeshError device_not_found | service_not_found | port_in_use */
  async forward(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { reach, clock } = this.#options;
    const header = (name: string): string => String(request.headers[name] ?? '');
    const device = reach.findOffered(header('cocoon-device'), header('cocoon-service'));
    await runForward(request, response, {
      reach,
      clock,
      device,
      service: header('cocoon-service'),
      port: Number(header('cocoon-port')),
    });
  }

  #own(): DeviceView {
    const own = this.devices().find((device) => device.this);
    if (!own) throw new MeshError('internal');
    return own;
  }
}
