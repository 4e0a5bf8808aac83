/** The files of the web UI: those of one directory, with the headers of a page that holds keys. */

import { createReadStream, statSync } from 'node:fs';
import { realpath, stat } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { extname, join, resolve, sep } from 'node:path';
import { pipeline } from 'node:stream/promises';

const contentTypes: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.mjs': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.json': 'application/json',
  '.webmanifest': 'application/manifest+json',
  '.map': 'application/json',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
  '.ico': 'image/x-icon',
  '.webp': 'image/webp',
  '.woff2': 'font/woff2',
  '.wasm': 'application/wasm',
  '.txt': 'text/plain; charset=utf-8',
};

const pageHeaders: Readonly<Record<string, string>> = {
  'Content-Security-Policy': [
    "default-src 'self'",
    "img-src 'self' data:",
    // Signaling may live elsewhere than the page.
    "connect-src 'self' ws: wss: http: https:",
    "object-src 'none'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join('; '),
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'no-referrer',
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Origin-Agent-Cluster': '?1',
};

/** Vite puts a hash into the names of what lies there. */
const immutableFolder = '/assets/';

export class WebFiles {
  readonly #root: string;

  constructor(root: string) {
    this.#root = resolve(root);
  }

  /** Would a GET find a file? */
  has(path: string): boolean {
    const file = this.#locate(path);
    return file !== null && (statSync(file, { throwIfNoEntry: false })?.isFile() ?? false);
  }

  /** @returns false when there is no such file; nothing was answered then */
  async serve(path: string, request: IncomingMessage, response: ServerResponse): Promise<boolean> {
    const file = this.#locate(path);
    const size = file === null ? null : await this.#sizeWithin(file);
    if (file === null || size === null) return false;
    response.writeHead(200, {
      ...pageHeaders,
      'Content-Type': contentTypes[extname(file)] ?? 'application/octet-stream',
      'Content-Length': size,
      'Cache-Control': path.startsWith(immutableFolder) ? 'public, max-age=31536000, immutable' : 'no-cache',
    });
    if (request.method === 'HEAD') response.end();
    else
      await pipeline(createReadStream(file, { end: Math.max(0, size - 1) }), response).catch(() =>
        response.destroy(),
      );
    return true;
  }

  /** Only plain names below the root: nothing hidden, no way up, no drive letters. */
  #locate(path: string): string | null {
    let decoded: string;
    try {
      decoded = decodeURIComponent(path);
    } catch {
      return null;
    }
    const names = decoded.split('/').slice(1);
    if (names.at(-1) === '') names[names.length - 1] = 'index.html';
    if (names.some((name) => name === '' || name.startsWith('.') || /[\\:\0]/.test(name))) return null;
    return join(this.#root, ...names);
  }

  /** Links may lead out of the root; they are followed and then judged. */
  async #sizeWithin(file: string): Promise<number | null> {
    try {
      const [root, real] = await Promise.all([realpath(this.#root), realpath(file)]);
      if (!real.startsWith(root + sep)) return null;
      const found = await stat(real);
      return found.isFile() ? found.size : null;
    } catch {
      return null;
    }
  }
}
