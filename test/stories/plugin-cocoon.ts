/** What stories about plugins share: how a device lists its plugins, asks for a capability, and waits for either. */

import { readFile, readdir, readlink } from 'node:fs/promises';
import type { PluginView } from '@cocoon-mesh/plugins';
import type { ServerSentEvent } from '../../src/plugins/event-stream.ts';
import { eventsOf } from '../../src/plugins/event-stream.ts';
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

/** What a gateway tells of its devices, event by event. */
export class Watch implements AsyncDisposable {
  readonly #events: AsyncGenerator<ServerSentEvent, void, undefined>;
  readonly #leaving: AbortController;

  private constructor(events: AsyncGenerator<ServerSentEvent, void, undefined>, leaving: AbortController) {
    this.#events = events;
    this.#leaving = leaving;
  }

  static async open(cocoon: CocoonProcess): Promise<Watch> {
    const leaving = new AbortController();
    const { body } = await fetch(`${cocoon.gateway}/events`, {
      headers: { authorization: `Bearer ${await cocoon.gatewayToken()}` },
      signal: leaving.signal,
    });
    return new Watch(eventsOf(body), leaving);
  }

  /** Resolves with the next list of devices in which this one offers the capability, or (`wanted`) does not. */
  async until(device: string, protocol: string, wanted = true): Promise<void> {
    const tooLong = setTimeout(() => this.#leaving.abort(), limitMs);
    try {
      for (;;) {
        const { value, done } = await this.#events.next();
        if (done === true) break;
        if (value.event !== 'devices') continue;
        const { cocoons } = JSON.parse(value.data) as { cocoons: Row[] };
        const row = cocoons.find(({ name }) => name === device);
        if ((row?.capabilities.some((own) => own.protocol === protocol) ?? false) === wanted) return;
      }
    } catch (cause) {
      throw new Error(
        `In ${limitMs / 1000} s, ${device} ${wanted ? 'did not offer' : 'still offered'} ${protocol}`,
        {
          cause,
        },
      );
    } finally {
      clearTimeout(tooLong);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#leaving.abort();
    await this.#events.return().catch(() => undefined);
  }
}

/** Resolves when `cocoon` is told that this device offers the capability, or (`wanted`) does not. */
export async function offers(
  cocoon: CocoonProcess,
  device: string,
  protocol: string,
  wanted = true,
): Promise<void> {
  await using watch = await Watch.open(cocoon);
  await watch.until(device, protocol, wanted);
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
