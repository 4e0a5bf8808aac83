/**
 * Services in the browser, each on an origin of its own: `http://{service}--{device}-{hash}.mesh.localhost:port/`.
 * A link with a one-time code signs the browser in for that one service; a cookie keeps it signed in. The cookie
 * opens nothing else of the gateway, and neither the service nor a page of it ever sees it.
 */

import { createHash } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Device } from '@cocoon-mesh/mesh';
import type { Clock, RawHeaders } from '@cocoon-mesh/protocol';
import { MeshError, randomBytes, toBase64Url } from '@cocoon-mesh/protocol';
import { fieldValues, withoutFields } from '@cocoon-mesh/proxy';

const codeLifetimeMs = 60_000;
const sessionIdleMs = 24 * 3600_000;
const maxSessions = 1_000;
const maxCodes = 1_000;
/** RFC 1035: a longer one is no host name. */
const maxLabelLength = 63;
const cookieName = 'cocoon_app';
const signInPath = '/.cocoon/sign-in';
/** Methods that change nothing (RFC 9110 section 9.2.1). */
const safeMethods: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS']);

/** What one cookie or code opens. */
interface Door {
  readonly label: string;
  readonly peerId: string;
  readonly service: string;
  expiresMs: number;
}

export class AppOrigins {
  readonly #clock: Clock;
  readonly #port: number;
  readonly #codes = new Map<string, Door>();
  readonly #sessions = new Map<string, Door>();

  constructor(port: number, clock: Clock) {
    this.#port = port;
    this.#clock = clock;
  }

  /** A link that works once, for a minute. @throws MeshError unsupported when the names make no host name */
  link(device: Device, service: string): string {
    const label = appLabel(device, service);
    if (label.length > maxLabelLength)
      throw new MeshError(
        'unsupported',
        'The names of the device and the service are too long for an address in the browser',
        {
          hint: `Use cocoon forward ${device.name}/${service}.`,
        },
      );
    const code = random();
    keep(this.#codes, maxCodes, code, {
      label,
      peerId: device.peerId,
      service,
      expiresMs: this.#clock.now() + codeLifetimeMs,
    });
    return `http://${label}.mesh.localhost:${this.#port}${signInPath}?code=${code}`;
  }

  /** Whether the request was about signing in, and is answered. */
  signsIn(request: IncomingMessage, response: ServerResponse, label: string): boolean {
    const url = request.url ?? '';
    if (url !== signInPath && !url.startsWith(`${signInPath}?`)) return false;
    const code = new URLSearchParams(url.slice(signInPath.length + 1)).get('code') ?? '';
    const door = this.#codes.get(code);
    if (door?.label === label) this.#codes.delete(code);
    if (request.method !== 'GET' || door?.label !== label || door.expiresMs <= this.#clock.now())
      throw signInAgain();
    const session = random();
    keep(this.#sessions, maxSessions, session, { ...door, expiresMs: this.#clock.now() + sessionIdleMs });
    response.writeHead(303, {
      location: '/',
      'set-cookie': `${cookieName}=${session}; Path=/; HttpOnly; SameSite=Strict`,
      'cache-control': 'no-store',
      'referrer-policy': 'no-referrer',
    });
    response.end();
    return true;
  }

  /**
   * What a request with a valid cookie may reach.
   * @throws MeshError unauthorized | foreign_origin
   */
  enter(
    request: IncomingMessage,
    site: { readonly host: string; readonly label: string },
    upgrade: boolean,
  ): Door {
    const door = cookiesOf(request.rawHeaders)
      .filter(([name]) => name === cookieName)
      .map(([, value]) => this.#sessions.get(value))
      .find((found) => found?.label === site.label);
    const now = this.#clock.now();
    if (!door || door.expiresMs <= now) throw signInAgain();
    this.#assertOwnPage(request, site.host, upgrade);
    door.expiresMs = now + sessionIdleMs;
    return door;
  }

  /**
   * All these origins are one site, so SameSite keeps them apart from the web but not from each other: what
   * changes something, and what opens a WebSocket, must come from the origin itself.
   */
  #assertOwnPage(request: IncomingMessage, host: string, upgrade: boolean): void {
    const { rawHeaders, method = 'GET' } = request;
    const origins = fieldValues(rawHeaders, 'origin');
    const own = origins.length === 1 && origins[0] === `http://${host}`;
    if (origins.length > 0 && !own) throw new MeshError('foreign_origin');
    if ((upgrade || !safeMethods.has(method)) && !own) throw new MeshError('foreign_origin');
    const [site = 'none'] = fieldValues(rawHeaders, 'sec-fetch-site');
    const [destination = ''] = fieldValues(rawHeaders, 'sec-fetch-dest');
    // Links from elsewhere are fine; being built into somebody else's page is not.
    if (site !== 'none' && site !== 'same-origin' && destination !== 'document')
      throw new MeshError('foreign_origin');
  }
}

/** The request's fields without our cookie. */
export function withoutAppCookie(headers: RawHeaders): string[] {
  const kept: string[] = [];
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i] ?? '';
    const value = headers[i + 1] ?? '';
    if (name.toLowerCase() !== 'cookie') {
      kept.push(name, value);
      continue;
    }
    const others = value.split(';').filter((pair) => nameOf(pair) !== cookieName);
    if (others.length > 0) kept.push(name, others.join(';').trim());
  }
  return kept;
}

/** The service's cookies stay on its own origin, and none of them takes the place of ours. */
export function withOwnCookies(headers: RawHeaders): string[] {
  const cookies = fieldValues(headers, 'set-cookie')
    .filter((cookie) => nameOf(cookie.split(';')[0] ?? '') !== cookieName)
    .map((cookie) =>
      cookie
        .split(';')
        .filter((part, i) => i === 0 || nameOf(part).toLowerCase() !== 'domain')
        .join(';'),
    );
  return [...withoutFields(headers, setCookie), ...cookies.flatMap((cookie) => ['Set-Cookie', cookie])];
}

const setCookie: ReadonlySet<string> = new Set(['set-cookie']);

/**
 * The hash keeps a device that takes over a name from taking over what a browser stored under it. It also tells
 * devices of different owners apart, whose short owner id would be no host name.
 */
function appLabel(device: Device, service: string): string {
  const digest = createHash('sha256').update(device.peerId).digest('hex').slice(0, 10);
  return `${service}--${device.name.split('@')[0]}-${digest}`;
}

function cookiesOf(headers: RawHeaders): (readonly [string, string])[] {
  return fieldValues(headers, 'cookie')
    .flatMap((value) => value.split(';'))
    .map((pair) => [nameOf(pair), pair.slice(pair.indexOf('=') + 1).trim()] as const);
}

function nameOf(pair: string): string {
  return (pair.split('=')[0] ?? '').trim();
}

function random(): string {
  return toBase64Url(randomBytes(32));
}

/** Forgets the oldest ones instead of growing. */
function keep(doors: Map<string, Door>, max: number, key: string, door: Door): void {
  doors.set(key, door);
  for (const oldest of doors.keys()) {
    if (doors.size <= max) return;
    doors.delete(oldest);
  }
}

function signInAgain(): MeshError {
  return new MeshError('unauthorized', 'This browser is not signed in to the service', {
    hint: 'Run `cocoon open DEVICE/SERVICE` for a new link.',
  });
}
