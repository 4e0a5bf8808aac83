/**
 * What works on this device, what does not, why, and what to change. Each finding stands on its own; a look that
 * fails is a finding, never an error of `doctor`.
 */

import { constants } from 'node:fs';
import { access, lstat, stat } from 'node:fs/promises';
import { createServer } from 'node:net';
import type { Home } from './home.ts';
import { isMissing, systemCode } from './key-file.ts';
import { listen } from './loopback.ts';

export interface Finding {
  readonly check: string;
  /** `warn`: it works, but not as well as it could. */
  readonly state: 'ok' | 'warn' | 'fail';
  readonly detail: string;
  /** What to change; empty when all is well. */
  readonly hint: string;
}

export function ok(check: string, detail: string): Finding {
  return { check, state: 'ok', detail, hint: '' };
}

export function warn(check: string, detail: string, hint: string): Finding {
  return { check, state: 'warn', detail, hint };
}

export function bad(check: string, detail: string, hint: string): Finding {
  return { check, state: 'fail', detail, hint };
}

/** Folder and files that hold secrets are the user's alone, and can be written. */
export async function checkHome(home: Home): Promise<Finding[]> {
  const findings: Finding[] = [];
  try {
    const { mode } = await stat(home.path);
    await access(home.path, constants.R_OK | constants.W_OK | constants.X_OK);
    findings.push(
      (mode & 0o022) === 0
        ? ok('home', home.path)
        : warn('home', `others may change ${home.path}`, `Run chmod go-w ${home.path}.`),
    );
  } catch (thrown) {
    return isMissing(thrown)
      ? [ok('home', `${home.path} is made at the first start`)]
      : [bad('home', `${home.path} cannot be used (${systemCode(thrown)})`, 'Check its owner and its mode.')];
  }
  for (const path of [home.identityKey, home.secret, home.owners, home.gatewayToken]) {
    const finding = await checkPrivate(path);
    if (finding) findings.push(finding);
  }
  return findings;
}

async function checkPrivate(path: string): Promise<Finding | null> {
  try {
    const { mode } = await lstat(path);
    await access(path, constants.R_OK);
    if ((mode & 0o077) !== 0 && process.platform !== 'win32')
      return bad('home', `${path} can be read by others`, `Run chmod 600 ${path}.`);
    return null;
  } catch (thrown) {
    return isMissing(thrown) ? null : bad('home', `${path} cannot be read`, 'Check its owner and its mode.');
  }
}

/** Browsers try ::1 first where there is one. */
export async function checkIpv6(): Promise<Finding> {
  const server = createServer();
  try {
    await listen(server, 0, '::1');
    return ok('ipv6 loopback', '::1 works');
  } catch {
    return ok('ipv6 loopback', 'there is no IPv6 on this machine; 127.0.0.1 is used');
  } finally {
    server.close();
  }
}

export async function checkPortFree(check: string, port: number): Promise<Finding> {
  const server = createServer();
  try {
    await listen(server, port, '127.0.0.1');
    return ok(check, `port ${port} is free`);
  } catch {
    return bad(
      check,
      `port ${port} is in use by another program`,
      'Stop that program or choose another port with --gateway-port.',
    );
  } finally {
    server.close();
  }
}

/** Asks signaling over HTTP, without signing in. */
export async function checkSignalingHttp(url: string, signal: AbortSignal): Promise<Finding> {
  const health = new URL('/healthz', url.replace(/^ws/, 'http'));
  try {
    const response = await fetch(health, { signal });
    await response.body?.cancel();
    return response.ok
      ? ok('signaling', `${url} answers`)
      : bad(
          'signaling',
          `${health.href} answers with ${response.status}`,
          'Check that the address is that of a signaling server.',
        );
  } catch (thrown) {
    const cause = thrown instanceof Error && thrown.cause !== undefined ? thrown.cause : thrown;
    return bad(
      'signaling',
      `${url} does not answer (${systemCode(cause) || 'no answer in time'})`,
      'Start it with `cocoon up` or `cocoon signaling`, or name another one with --signaling.',
    );
  }
}
