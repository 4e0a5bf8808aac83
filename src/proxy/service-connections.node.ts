/**
 * Connections from this device to its own services: which address, which agent, how long a connect may take,
 * and what a failure to connect means. One per daemon; `close` ends what is kept warm.
 */

import { Agent, type RequestOptions } from 'node:http';
import type { LookupFunction } from 'node:net';
import { limits, MeshError } from '@cocoon-mesh/protocol';

/** Where a service of this device listens. */
export interface ServiceTarget {
  readonly port: number;
  /** Default: this machine, 127.0.0.1 first and then ::1. */
  readonly host?: string;
  /** What the service sees as Host. Default `localhost:<port>`. */
  readonly hostHeader?: string;
}

/** Shorter than the 5 s after which servers on node:http drop an idle connection. */
const idleConnectionMs = 4_000;
const maxIdleConnections = 64;

/** Only names this machine's own loopback; no resolver is asked, and what it would say cannot matter. */
const lookupLoopback: LookupFunction = (_name, _options, callback) => {
  callback(null, [
    { address: '127.0.0.1', family: 4 },
    { address: '::1', family: 6 },
  ]);
};

/**
 * A connection for each request. Not `keepAlive: false`, which would send `Connection: close`: services on
 * node:http then cut the connection with their answer, and with it a body that is still on its way.
 */
class SingleUseAgent extends Agent {
  override keepSocketAlive(): boolean {
    return false;
  }
}

export class ServiceConnections {
  /**
   * For requests that may be sent again when a kept connection turns out dead at the moment of use. The service
   * may close it at any time, so a request that may not be repeated never goes here.
   */
  readonly kept = new Agent({
    keepAlive: true,
    maxFreeSockets: maxIdleConnections,
    timeout: idleConnectionMs,
  });
  readonly fresh = new SingleUseAgent({ keepAlive: true });

  /** Ends every connection, also those in use. Idempotent. */
  close(): void {
    this.kept.destroy();
    this.fresh.destroy();
  }
}

/** The address part of the options of node:http and node:net. */
export function addressOf(target: ServiceTarget): Pick<RequestOptions, 'host' | 'port' | 'lookup'> & {
  readonly host: string;
  readonly port: number;
  readonly autoSelectFamily: boolean;
} {
  const local = target.host === undefined || target.host === 'localhost' || target.host === '127.0.0.1';
  if (!local) return { host: target.host, port: target.port, autoSelectFamily: true };
  return { host: 'localhost', port: target.port, lookup: lookupLoopback, autoSelectFamily: true };
}

/**
 * Services see the Host that a program on their own machine would send. Development servers and databases with
 * a web page allow `localhost` by default and refuse names they do not know, as a guard against rebinding DNS;
 * unlike `127.0.0.1` it also fits a service that listens on ::1. The name the client used is in X-Forwarded-Host.
 */
export function hostHeaderOf(target: ServiceTarget): string {
  return target.hostHeader ?? (target.port === 80 ? 'localhost' : `localhost:${target.port}`);
}

/** A failure of node:net or node:http on the way to a service, before its answer. */
export function connectError(cause: unknown): MeshError {
  if (cause instanceof MeshError) return cause;
  const code = cause instanceof Error && 'code' in cause ? cause.code : undefined;
  if (typeof code === 'string' && notListening.has(code)) {
    return new MeshError('service_refused', undefined, { cause });
  }
  if (code === 'ETIMEDOUT') return new MeshError('gateway_timeout', undefined, { cause });
  return new MeshError('bad_gateway', undefined, { cause });
}

export function connectTimeout(): MeshError {
  return new MeshError(
    'gateway_timeout',
    `The service took no connection within ${limits.serviceConnectTimeoutMs} ms`,
  );
}

const notListening: ReadonlySet<string> = new Set([
  'ECONNREFUSED',
  'EADDRNOTAVAIL',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOTFOUND',
]);
