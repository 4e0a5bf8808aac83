/**
 * Is a service well? With a health path: any answer below 500. Without one: somebody takes the connection. Said
 * for display only; requests go to a service whatever this says.
 */

import { request as openRequest } from 'node:http';
import { connect } from 'node:net';
import type { Clock } from '@cocoon-mesh/protocol';
import { deadline, limits } from '@cocoon-mesh/protocol';
import { addressOf, hostHeaderOf } from '@cocoon-mesh/proxy/service-connections.node.ts';
import type { ServiceSpec } from './service-spec.ts';

/** Never rejects. */
export async function isHealthy(service: ServiceSpec, clock: Clock): Promise<boolean> {
  const limit = deadline(clock, limits.healthTimeoutMs);
  try {
    return service.health === undefined
      ? await takesConnections(service, limit.signal)
      : await answers(service, service.health, limit.signal);
  } finally {
    limit.cancel();
  }
}

async function takesConnections(service: ServiceSpec, signal: AbortSignal): Promise<boolean> {
  const socket = connect({ ...addressOf(service), signal });
  const { promise, resolve } = Promise.withResolvers<boolean>();
  socket.once('connect', () => resolve(true));
  socket.on('error', () => resolve(false));
  const taken = await promise;
  socket.destroy();
  return taken;
}

async function answers(service: ServiceSpec, path: string, signal: AbortSignal): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const headers = { host: hostHeaderOf(service), 'user-agent': 'cocoon-health' };
  const request = openRequest({ ...addressOf(service), path, headers, agent: false, signal });
  request.on('response', (response) => {
    resolve((response.statusCode ?? 500) < 500);
    response.destroy();
  });
  request.on('error', () => resolve(false));
  request.end();
  return promise;
}
