/** What stories about plugins share: how a device lists its plugins, asks for a capability, and waits for either. */

import { readFile, readdir, readlink } from 'node:fs/promises';
import type { PluginView } from '@cocoon-mesh/plugins';
import type { CocoonProcess } from './cocoon-process.ts';

const limitMs = 30_000;

/** What `look` finds, as soon as it finds something. */
export async function until<T>(what: string, look: () => Promise<T | null>): Promise<T> {
  for (const end = Date.now() + limitMs; Date.now() < end;) {
    const found = await look();
    if (found !== null) return found;
  }
  throw new Error(`In ${limitMs / 1000} s it was not seen that ${what}`);
}

export async function pluginsOf(cocoon: CocoonProcess): Promise<readonly PluginView[]> {
  return (await cocoon.json<{ plugins: PluginView[] }>('plugins', 'list')).plugins;
}

/** Resolves with it when it is in this state. */
export async function plugin(
  cocoon: CocoonProcess,
  name: string,
  state: PluginView['state'] = 'running',
): Promise<PluginView> {
  return until(`the plugin ${name} is ${state}`, async () => {
    const found = (await pluginsOf(cocoon)).find((one) => one.name === name);
    return found?.state === state ? found : null;
  });
}

export interface Row {
  readonly name: string;
  readonly peer_id: string;
  readonly capabilities: readonly { readonly protocol: string; readonly version: string }[];
}

/** Whether `cocoon` is told that this device offers the capability, asked until it is as wanted. */
export async function offers(
  cocoon: CocoonProcess,
  device: string,
  protocol: string,
  wanted = true,
): Promise<void> {
  const token = await cocoon.gatewayToken();
  const headers = { authorization: `Bearer ${token}` };
  await until(`${device} ${wanted ? 'offers' : 'does not offer'} ${protocol}`, async () => {
    const { cocoons } = (await (await fetch(`${cocoon.gateway}/cocoons`, { headers })).json()) as {
      cocoons: Row[];
    };
    const row = cocoons.find(({ name }) => name === device);
    const is = row?.capabilities.some((own) => own.protocol === protocol) ?? false;
    return is === wanted ? true : null;
  });
}

export interface Answered {
  readonly status: number;
  readonly device: string | null;
  readonly ms: number;
  readonly body: {
    readonly result?: unknown;
    readonly code?: string;
    readonly title?: string;
  };
}

/** One capability request of a program at the gateway. */
export async function ask(
  cocoon: CocoonProcess,
  protocol: string,
  payload: unknown,
  more: { readonly timeout_ms?: number; readonly version?: string } = {},
): Promise<Answered> {
  const began = performance.now();
  const response = await fetch(`${cocoon.gateway}/capabilities/${protocol}`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${await cocoon.gatewayToken()}`,
      'content-type': 'application/json',
    },
    body: JSON.stringify({ version: '*', payload, ...more }),
    signal: AbortSignal.timeout(limitMs * 2),
  });
  const body = (await response.json()) as Answered['body'];
  return {
    status: response.status,
    device: response.headers.get('cocoon-device'),
    ms: performance.now() - began,
    body,
  };
}

/** Resolves when none of these processes is there any more. */
export async function gone(pids: readonly number[]): Promise<void> {
  await until(`the processes ${pids.join(', ')} are gone`, async () => {
    const states = await Promise.all(pids.map(isThere));
    return states.includes(true) ? null : true;
  });
}

export async function isThere(pid: number): Promise<boolean> {
  const stat = await readFile(`/proc/${pid}/stat`, 'latin1').catch(() => '');
  return stat !== '' && !/\) [ZX] /.test(stat);
}

/** Sockets that a process holds, by their numbers in the system. The pipes of a child are such, too. */
export async function channelsOf(pid: number): Promise<readonly string[]> {
  const folder = `/proc/${pid}/fd`;
  const targets = await Promise.all(
    (await readdir(folder)).map((fd) => readlink(`${folder}/${fd}`).catch(() => '')),
  );
  return targets.filter((target) => target.startsWith('socket:'));
}
