/**
 * Who may speak to the gateway: programs of this user that have its token, by one of its own names, and no web
 * page. Each rule alone has a way around it (a DNS name that is rebound to 127.0.0.1, a page that sends simple
 * requests without asking); together they do not.
 */

import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { RawHeaders } from '@cocoon-mesh/protocol';
import { MeshError } from '@cocoon-mesh/protocol';
import { fieldValues } from '@cocoon-mesh/proxy';

/** Which of the gateway's names was asked for. */
export type Site =
  { readonly kind: 'gateway' } | { readonly kind: 'app'; readonly host: string; readonly label: string };

const appDomain = '.mesh.localhost';
const labelPattern = /^[a-z0-9](-{0,2}[a-z0-9])*$/;

export class Guard {
  readonly #port: number;
  readonly #tokenHash: Buffer;
  readonly #hosts: ReadonlySet<string>;

  constructor(port: number, token: string) {
    this.#port = port;
    this.#tokenHash = hash(token);
    this.#hosts = new Set([`127.0.0.1:${port}`, `[::1]:${port}`, `localhost:${port}`]);
  }

  /** @throws MeshError foreign_host */
  site(request: IncomingMessage): Site {
    const [host, ...more] = fieldValues(request.rawHeaders, 'host').map((value) => value.toLowerCase());
    if (host === undefined || more.length > 0) throw new MeshError('foreign_host');
    if (this.#hosts.has(host)) return { kind: 'gateway' };
    const end = `${appDomain}:${this.#port}`;
    const label = host.endsWith(end) ? host.slice(0, -end.length) : '';
    if (!labelPattern.test(label)) throw new MeshError('foreign_host');
    return { kind: 'app', host, label };
  }

  /** No page of another origin, whether it says so (`Origin`) or its browser does (`Sec-Fetch-Site`). */
  assertNoForeignPage(request: IncomingMessage): void {
    const { rawHeaders } = request;
    const own = `http://${fieldValues(rawHeaders, 'host')[0]}`;
    if (fieldValues(rawHeaders, 'origin').some((origin) => origin.toLowerCase() !== own.toLowerCase()))
      throw new MeshError('foreign_origin');
    if (fieldValues(rawHeaders, 'sec-fetch-site').some((site) => site !== 'none' && site !== 'same-origin'))
      throw new MeshError('foreign_origin');
  }

  /**
   * The fields without our token: it stands in Cocoon-Authorization, or in Authorization, which otherwise is the
   * service's own and passes.
   * @throws MeshError unauthorized
   */
  authorize(headers: RawHeaders): RawHeaders {
    const ours = fieldValues(headers, 'cocoon-authorization');
    const shown = ours.length > 0 ? ours : fieldValues(headers, 'authorization');
    const [only] = shown;
    if (shown.length !== 1 || !this.#isToken(only))
      throw new MeshError('unauthorized', 'The token of this gateway is needed', {
        hint: 'Send `Authorization: Bearer` with what stands in gateway.token of the home.',
      });
    return this.withoutToken(headers);
  }

  /** Whatever a request carries besides, our token goes no further. */
  withoutToken(headers: RawHeaders): string[] {
    const kept: string[] = [];
    for (let i = 0; i < headers.length; i += 2) {
      const name = headers[i] ?? '';
      const value = headers[i + 1] ?? '';
      const lower = name.toLowerCase();
      if (lower === 'cocoon-authorization' || (lower === 'authorization' && this.#isToken(value))) continue;
      kept.push(name, value);
    }
    return kept;
  }

  #isToken(value: string | undefined): boolean {
    const [, token = ''] = /^Bearer +(\S+) *$/i.exec(value ?? '') ?? [];
    // Hashes have one length, so the comparison tells nothing of the token's.
    return timingSafeEqual(hash(token), this.#tokenHash);
  }
}

function hash(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
