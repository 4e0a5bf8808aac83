/** Meshes for stories about models: a laptop that has none, and boxes that do. */

import { setTimeout as pause } from 'node:timers/promises';
import { CocoonProcess, enroll } from './cocoon-process.ts';

export interface CapabilityRow {
  readonly protocol: string;
  readonly in_flight?: number;
  readonly features?: readonly string[];
}

interface Row {
  readonly name: string;
  readonly capabilities: readonly CapabilityRow[];
}

const limitMs = 20_000;

/** A laptop of an own signaling server. Whoever starts it ends both. */
export async function laptopAlone(
  env: Record<string, string> = {},
): Promise<{ signaling: CocoonProcess; laptop: CocoonProcess }> {
  const signaling = await CocoonProcess.start({ command: 'signaling', args: ['--port', '0'] });
  const laptop = await CocoonProcess.start({
    command: 'run',
    args: [
      '--name',
      'laptop',
      '--gateway-port',
      '0',
      '--signaling',
      signaling.signaling,
      '--disable-capability',
      'embeddings',
    ],
    env,
  });
  return { signaling, laptop };
}

/** A device with models, which the laptop can ask. */
export async function box(
  laptop: CocoonProcess,
  name: string,
  env: Record<string, string>,
  protocols: readonly string[],
): Promise<CocoonProcess> {
  const cocoon = await enroll(laptop, {
    name,
    engine: 'werift',
    env,
    ...(protocols.includes('embeddings') ? {} : { args: ['--disable-capability', 'embeddings'] }),
  });
  for (const protocol of protocols) await offers(laptop, name, protocol);
  return cocoon;
}

/** As `cocoon devices` has it, asked over the gateway, which costs no process. */
export async function capabilityOf(
  cocoon: CocoonProcess,
  name: string,
  protocol: string,
): Promise<CapabilityRow | undefined> {
  const headers = { authorization: `Bearer ${await cocoon.gatewayToken()}` };
  const response = await fetch(`${cocoon.gateway}/cocoons`, { headers });
  const { cocoons } = (await response.json()) as { cocoons: Row[] };
  const row = cocoons.find((device) => device.name === name);
  return row?.capabilities.find((own) => own.protocol === protocol);
}

/** Resolves when the capability is listed there, or (`not`) is not. */
export async function offers(
  cocoon: CocoonProcess,
  name: string,
  protocol: string,
  not = false,
): Promise<void> {
  await until(
    async () => ((await capabilityOf(cocoon, name, protocol)) !== undefined) !== not,
    `${name} ${not ? 'still offers' : 'does not offer'} ${protocol}`,
  );
}

/** Resolves when the gateway lists the model: with the first look a session is made, which may take a moment. */
export async function lists(cocoon: CocoonProcess, model: string): Promise<void> {
  const headers = { authorization: `Bearer ${await cocoon.gatewayToken()}` };
  await until(async () => {
    const { status } = await fetch(`${cocoon.gateway}/v1/models/${encodeURIComponent(model)}`, { headers });
    return status === 200;
  }, `${cocoon.name} does not list ${model}`);
}

/** Resolves when so many chats run on the device, as it says itself. */
export async function running(cocoon: CocoonProcess, count: number): Promise<void> {
  let seen: number | undefined;
  await until(
    async () => {
      seen = (await capabilityOf(cocoon, cocoon.name, 'llm.chat'))?.in_flight;
      return seen === count;
    },
    () => `${cocoon.name} has ${seen} chats in flight, not ${count}`,
  );
}

/** For clients that wait for ever: whatever they ask ends. */
export const fetchWithin: typeof fetch = (url, init) =>
  fetch(url, {
    ...init,
    signal: AbortSignal.any([AbortSignal.timeout(limitMs), ...(init?.signal ? [init.signal] : [])]),
  });

/** Looks again and again, as whoever waits for a state has to. */
export async function until(holds: () => Promise<boolean>, not: string | (() => string)): Promise<void> {
  for (const end = Date.now() + limitMs; Date.now() < end; await pause(25)) if (await holds()) return;
  throw new Error(typeof not === 'string' ? not : not());
}
