/**
 * What `cocoon up` and `cocoon signaling` decide about the server: its address, its database, how others reach
 * it, where its web page is. The server itself is `@cocoon-mesh/signaling`, which only those two commands start.
 */

import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import type { Server } from 'node:net';
import { connect, createServer } from 'node:net';
import { networkInterfaces } from 'node:os';
import { fileURLToPath } from 'node:url';
import type { SignalingSocketFactory } from '@cocoon-mesh/mesh';
import { nodeSignalingSocket } from '@cocoon-mesh/mesh/signaling-socket.node.ts';
import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import { WebSocket } from 'ws';
import { writePrivateFile } from './atomic-file.ts';
import { parsePort } from './config.ts';
import type { Environment } from './environment.ts';
import type { Home } from './home.ts';
import { isMissing, systemCode } from './key-file.ts';
import type { Log } from './logs.ts';
import { listen } from './loopback.ts';

export const defaultSignalingPort = 7400;

export interface ServerFlags {
  readonly port?: string;
  readonly host?: string;
  readonly web?: boolean;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
}

export interface ServerSettings {
  readonly host: string;
  readonly port: number;
  readonly databaseUrl: string;
  readonly publicUrl?: string;
  readonly webRoot?: string;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly oidc?: { readonly issuer: string; readonly audience?: string };
}

/** Built by Vite. */
const webRoot = fileURLToPath(new URL('../web/dist', import.meta.url));
const loopbackHosts: ReadonlySet<string> = new Set(['127.0.0.1', '::1', 'localhost']);
const anyHosts: ReadonlySet<string> = new Set(['0.0.0.0', '::']);

/** @throws MeshError usage */
export async function serverSettings(
  flags: ServerFlags,
  environment: Environment,
  home: Home,
): Promise<ServerSettings> {
  if ((flags.tlsCert === undefined) !== (flags.tlsKey === undefined))
    throw new MeshError('usage', 'TLS needs both --tls-cert and --tls-key');
  const publicUrl = environment['SIGNALING_PUBLIC_URL'];
  const issuer = environment['SIGNALING_OIDC_ISSUER'];
  const audience = environment['SIGNALING_OIDC_AUDIENCE'];
  return {
    host: flags.host ?? (environment['SIGNALING_HOST'] || '127.0.0.1'),
    port: parsePort(flags.port ?? (environment['SIGNALING_PORT'] || undefined), defaultSignalingPort),
    databaseUrl: environment['SIGNALING_DATABASE_URL'] || `sqlite:${home.signalingDatabase}`,
    ...(publicUrl ? { publicUrl } : {}),
    ...(issuer ? { oidc: { issuer, ...(audience ? { audience } : {}) } } : {}),
    ...(flags.web !== false && existsSync(webRoot) ? { webRoot } : {}),
    ...(flags.tlsCert === undefined ? {} : { tlsCert: await pem(flags.tlsCert) }),
    ...(flags.tlsKey === undefined ? {} : { tlsKey: await pem(flags.tlsKey) }),
  };
}

async function pem(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    throw new MeshError('usage', `The file ${path} cannot be read`, { cause });
  }
}

/** `--port 0` takes a free port; the one it took last, when that is free, so that other devices find it again. */
export async function lastPort(home: Home): Promise<number> {
  try {
    return parsePort((await readFile(home.signalingPort, 'utf8')).trim(), 0);
  } catch (thrown) {
    if (isMissing(thrown) || thrown instanceof MeshError) return 0;
    throw thrown;
  }
}

export async function rememberPort(home: Home, port: number): Promise<void> {
  await writePrivateFile(home.signalingPort, `${port}\n`);
}

export function isLoopbackHost(host: string): boolean {
  return loopbackHosts.has(host);
}

/** The address that other machines dial: what was configured, else this machine's own in its network. */
export function reachableUrl(settings: ServerSettings, port: number): string {
  const { host, publicUrl, tlsCert } = settings;
  if (publicUrl !== undefined) return publicUrl;
  const address = anyHosts.has(host)
    ? (lanAddress() ?? '127.0.0.1')
    : host === 'localhost'
      ? '127.0.0.1'
      : host;
  const shown = address.includes(':') ? `[${address}]` : address;
  return `${tlsCert === undefined ? 'ws' : 'wss'}://${shown}:${port}/ws`;
}

function lanAddress(): string | undefined {
  const addresses = Object.values(networkInterfaces())
    .flat()
    .filter((address) => address?.family === 'IPv4' && !address.internal);
  return addresses[0]?.address;
}

/** Where a browser opens the page. Without TLS only names of this machine count as safe for a page with keys. */
export function webUrl(settings: ServerSettings, port: number): string | null {
  if (settings.webRoot === undefined) return null;
  if (settings.publicUrl?.startsWith('wss:')) return `https://${new URL(settings.publicUrl).host}`;
  return `${settings.tlsCert === undefined ? 'http' : 'https'}://mesh.localhost:${port}`;
}

/**
 * The way of this process to its own server: always over loopback, whatever the address is called outside and
 * whatever name its certificate has.
 */
export function ownSocket(settings: ServerSettings, httpUrl: string): SignalingSocketFactory {
  const direct = httpUrl.replace(/^http/, 'ws') + '/ws';
  if (settings.tlsCert === undefined && settings.publicUrl === undefined) return nodeSignalingSocket;
  if (settings.tlsCert === undefined)
    return (_url, protocols, events) => nodeSignalingSocket(direct, protocols, events);
  return (url, protocols, events) => {
    // The port is held by this very process, so the certificate says nothing that is not known.
    const socket = new WebSocket(direct, [...protocols], {
      perMessageDeflate: false,
      rejectUnauthorized: false,
      headers: { host: new URL(url).host },
    });
    socket.on('open', () => events.open(socket.protocol));
    socket.on('message', (data, isBinary) => {
      const bytes = Array.isArray(data) ? Buffer.concat(data) : Buffer.from(data as Buffer);
      events.message(isBinary ? bytes : bytes.toString('utf8'));
    });
    let failure = '';
    socket.on('error', (error) => (failure = systemCode(error) || error.message));
    socket.on('close', (code, reason) => events.closed(code, failure || reason.toString()));
    return {
      send: (data) => {
        if (socket.readyState === WebSocket.OPEN) socket.send(data);
      },
      close: (code, reason) => socket.close(code, reason),
      abort: () => socket.terminate(),
    };
  };
}

/**
 * Browsers look for `mesh.localhost` on ::1 first. A server that listens on IPv4 alone would leave that place to
 * any program of this machine, and with it the sign-in link. Null where there is no IPv6 or it is taken care of.
 * @throws MeshError port_in_use
 */
export async function holdIpv6Loopback(settings: ServerSettings, port: number): Promise<Server | null> {
  if (settings.host === '::' || settings.host === '::1') return null;
  const server = createServer((socket) => {
    const onward = connect(port, anyHosts.has(settings.host) ? '127.0.0.1' : settings.host);
    for (const [from, to] of [
      [socket, onward],
      [onward, socket],
    ] as const) {
      from.on('error', () => to.destroy());
      from.on('close', () => to.destroy());
      from.pipe(to);
    }
  });
  try {
    await listen(server, port, '::1');
    return server;
  } catch (thrown) {
    if (thrown instanceof MeshError && systemCode(thrown.cause) !== 'EADDRINUSE') return null;
    throw thrown;
  }
}

/** The log of the server, in the words of ours. */
export function serverLog(log: Log) {
  const write =
    (level: 'debug' | 'info' | 'warn' | 'error') =>
    (fields: Record<string, unknown>, message: string): void =>
      log(level, message, { part: 'signaling', ...fields });
  return { debug: write('debug'), info: write('info'), warn: write('warn'), error: write('error') };
}
