/**
 * The way to a service, wherever it is: on another device through the mesh, on this one directly. Also the other
 * direction: what others ask of this device's services, and whether their rights let them.
 */

import type { Device, Mesh, ProvenPeer, Stream } from '@cocoon-mesh/mesh';
import type { Clock, NeededRight } from '@cocoon-mesh/protocol';
import {
  MeshError,
  allows,
  encodeServiceOpen,
  httpProtocol,
  namePattern,
  tcpProtocol,
} from '@cocoon-mesh/protocol';
import type { ServiceTarget } from '@cocoon-mesh/proxy/index.node.ts';
import { ServiceConnections, serveHttp, serveTcp } from '@cocoon-mesh/proxy/index.node.ts';
import { localStreamPair } from './local-stream.ts';
import type { Services } from './services.ts';

/** Told of a peer that asked for a service which is here and which it may not use. */
export type Denied = (peer: ProvenPeer, right: NeededRight) => void;

export class Reach {
  readonly #mesh: Mesh;
  readonly #services: Services;
  readonly #clock: Clock;
  readonly #denied: Denied;
  readonly #connections = new ServiceConnections();

  constructor(mesh: Mesh, services: Services, clock: Clock, denied: Denied = () => undefined) {
    this.#mesh = mesh;
    this.#services = services;
    this.#clock = clock;
    this.#denied = denied;
    mesh.handle(httpProtocol, (stream, peer) => void this.#serve(stream, peer));
    mesh.handle(tcpProtocol, (stream, peer) => void this.#serve(stream, peer));
  }

  /** @throws MeshError device_not_found | name_changed | service_not_found */
  find(device: string, service: string): Device {
    const found = this.#mesh.resolve(device);
    // A name that no service can have needs no question to the device, and would not pass its schema.
    if (!namePattern.test(service)) throw notFound(found, service);
    return found;
  }

  /** As `find`, and the device says that it offers the service. */
  findOffered(device: string, service: string): Device {
    const found = this.find(device, service);
    if (!found.services.some(({ name }) => name === service)) throw notFound(found, service);
    return found;
  }

  /** A stream to a service. @throws MeshError as `Mesh.openStream` */
  async open(
    device: Device,
    service: string,
    protocol: typeof httpProtocol | typeof tcpProtocol,
    signal?: AbortSignal,
  ): Promise<Stream> {
    const header = encodeServiceOpen({ service });
    if (!device.self) return this.#mesh.openStream(device.peerId, protocol, header, signal);
    const [asking, serving] = localStreamPair(protocol, header);
    void this.#serve(serving, null);
    return asking;
  }

  close(): void {
    this.#connections.close();
  }

  /** @param peer null: a program of this device's user */
  async #serve(stream: Stream, peer: ProvenPeer | null): Promise<void> {
    const options = { clock: this.#clock, connections: this.#connections };
    if (stream.protocol === tcpProtocol)
      await serveTcp(stream, { ...options, resolveService: (name) => this.#target(name, 'tcp', peer) });
    else await serveHttp(stream, { ...options, resolveService: (name) => this.#target(name, 'http', peer) });
  }

  /** Null for what there is not and for what the peer may not use: the two look the same. */
  #target(name: string, protocol: 'http' | 'tcp', peer: ProvenPeer | null): ServiceTarget | null {
    const service = this.#services.get(name);
    if (!service) return null;
    if (peer && !allows(peer.rights, protocol, 'use', name)) {
      this.#denied(peer, { protocol, verb: 'use', name });
      return null;
    }
    if (protocol === 'http' && service.type === 'tcp')
      throw new MeshError('wrong_service_type', `${name} is a tcp service`);
    return { port: service.port };
  }
}

function notFound({ name }: Device, service: string): MeshError {
  return new MeshError('service_not_found', `${name} offers no service called ${JSON.stringify(service)}`);
}
