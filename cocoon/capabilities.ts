/**
 * Capabilities of this device and of all others, put together: what is served here, how others do, and requests to
 * whichever serves them best. Also how the services of other devices do, which comes with the same answer.
 */

import { CapabilityRouter, CapabilityServer, Descriptions, DeviceStates } from '@cocoon-mesh/capabilities';
import type { LocalCapabilities, RequestCapability } from '@cocoon-mesh/capabilities';
import type { Device, Mesh, ProvenPeer } from '@cocoon-mesh/mesh';
import type { CapabilityState, Clock, Description } from '@cocoon-mesh/protocol';
import { allows, streamProtocols } from '@cocoon-mesh/protocol';
import type { ModelDevice } from './gateway/openai-models.ts';
import { modelProtocols } from './gateway/openai-models.ts';
import type { Log } from './logs.ts';
import type { Services } from './services.ts';

export interface CapabilitiesOptions {
  readonly mesh: Mesh;
  readonly services: Pick<Services, 'list'>;
  readonly local: LocalCapabilities;
  readonly clock: Clock;
  readonly log: Log;
}

/** Looking at the list of devices waits no longer for what they say. */
const patienceMs = 500;

export class Capabilities {
  readonly local: LocalCapabilities;
  readonly request: RequestCapability;
  readonly #mesh: Mesh;
  readonly #server: CapabilityServer;
  readonly #descriptions: Descriptions;

  constructor({ mesh, services, local, clock, log }: CapabilitiesOptions) {
    this.local = local;
    this.#mesh = mesh;
    this.#server = new CapabilityServer({ local, clock, log });
    mesh.handle(streamProtocols.capability, this.#server.handle);
    const states = new DeviceStates();
    mesh.on('session', (peerId, up) => {
      // Whoever comes back may be another process.
      if (!up) states.forget(peerId);
    });
    this.#descriptions = new Descriptions({
      mesh,
      clock,
      own: (peer) => ownDescription(peer, services, local),
      learnt: (peerId, { capabilities }) => states.learn(peerId, capabilities),
    });
    mesh.on('devices', () => this.#descriptions.listed(mesh.devices()));
    this.request = new CapabilityRouter({
      mesh,
      clock,
      local,
      states,
      descriptions: this.#descriptions,
    }).request;
  }

  /** Of another device, as far as it has told by now. */
  servicesOf({ peerId, online }: Device): Description['services'] {
    return (online ? this.#descriptions.of(peerId)?.services : null) ?? [];
  }

  statesOf({ peerId, online, self }: Device): readonly CapabilityState[] {
    if (self) return this.local.states();
    return (online ? this.#descriptions.of(peerId)?.capabilities : null) ?? [];
  }

  /**
   * Asks every device with a session whose answer is not fresh, and gives them a moment. Looking at the list of
   * devices opens no session. Never rejects.
   */
  async refresh(): Promise<void> {
    const asked = this.#mesh
      .devices()
      .filter(
        ({ self, kind, path, services, capabilities }) =>
          !self && kind === 'cocoon' && path !== null && services.length + capabilities.length > 0,
      );
    await this.#descriptions.refresh(
      asked.map(({ peerId }) => peerId),
      patienceMs,
    );
  }

  /** Whom a request for a model can be sent to, after asking all of them what they have; sessions are made for it. */
  async modelDevices(): Promise<readonly ModelDevice[]> {
    const devices = this.#mesh
      .devices()
      .filter(
        ({ online, problem, capabilities }) =>
          online && problem === null && capabilities.some(({ protocol }) => modelProtocols.has(protocol)),
      );
    const others = devices.filter(({ self }) => !self).map(({ peerId }) => peerId);
    await this.#descriptions.refresh(others, modelPatienceMs);
    return devices.map((device) => ({
      name: device.name,
      peerId: device.peerId,
      capabilities: this.statesOf(device),
    }));
  }

  /** Requests of others end. Idempotent. */
  close(): void {
    this.#server.close();
  }
}

const modelPatienceMs = 2_000;

/** What a peer may use, and nothing else. */
function ownDescription(
  { rights }: ProvenPeer,
  services: Pick<Services, 'list'>,
  local: LocalCapabilities,
): Description {
  return {
    services: services
      .list()
      .filter(({ name }) => allows(rights, 'http', 'use', name) || allows(rights, 'tcp', 'use', name))
      .map(({ name, type, port, healthy }) => ({ name, type, port, healthy })),
    capabilities: local.states().filter(({ protocol }) => allows(rights, 'capability', 'use', protocol)),
  };
}
