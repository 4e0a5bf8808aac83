/** Capability requests as programs make them, at the gateway of a cocoon, and what its list says of providers. */

import { createInterface } from 'node:readline';
import { Readable } from 'node:stream';
import type { CocoonProcess } from './cocoon-process.ts';

const limitMs = 20_000;

export interface RequestBody {
  readonly version?: string;
  readonly payload?: unknown;
  readonly prefer_device?: string;
  readonly device?: string;
  readonly features?: readonly string[];
  readonly session?: string;
  readonly timeout_ms?: number;
}

/** The document of the answer: `result`, or a problem with its `code`. */
export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly result: unknown;
  readonly code: string | undefined;
  readonly device: string | null;
  readonly attempts: number;
}

export async function post(
  cocoon: CocoonProcess,
  protocol: string,
  body: RequestBody = {},
  signal?: AbortSignal,
): Promise<Response> {
  return fetch(`${cocoon.gateway}/capabilities/${protocol}`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${await cocoon.gatewayToken()}`,
      'content-type': 'application/json',
    },
    body: JSON.stringify(body),
    ...(signal ? { signal } : {}),
  });
}

export async function ask(
  cocoon: CocoonProcess,
  protocol: string,
  body?: RequestBody,
  signal?: AbortSignal,
): Promise<Answer> {
  const response = await post(cocoon, protocol, body, signal);
  const { status, headers } = response;
  const { result, code } = (await response.json()) as { result?: unknown; code?: string };
  return {
    status,
    headers,
    result,
    code,
    device: headers.get('cocoon-device'),
    attempts: Number(headers.get('cocoon-attempts')),
  };
}

export interface StreamEvent {
  readonly name: string;
  readonly data: Readonly<Record<string, unknown>>;
}

/** The last event of an answer that streams, or of one in one piece its code. */
export async function endOf(response: Response): Promise<string> {
  if (response.headers.get('content-type') !== 'text/event-stream') {
    const { code = 'done' } = (await response.json()) as { code?: string };
    return code;
  }
  let last = '';
  for await (const { name, data } of eventsOf(response))
    last = name === 'error' ? (data['error'] as { code: string }).code : name;
  return last;
}

/** The events of an answer that streams. */
export async function* eventsOf({ body }: Response): AsyncGenerator<StreamEvent, void, undefined> {
  if (!body) return;
  let name = '';
  for await (const line of createInterface({ input: Readable.fromWeb(body) })) {
    if (line.startsWith('event: ')) name = line.slice('event: '.length);
    if (line.startsWith('data: '))
      yield { name, data: JSON.parse(line.slice('data: '.length)) as StreamEvent['data'] };
  }
}

export interface CapabilityRow {
  readonly protocol: string;
  readonly version: string;
  readonly in_flight?: number;
  readonly queued?: number;
  readonly limit?: number;
}

/** Of itself a device tells what is so now, of another one what that told it within ten seconds. */
export async function capabilitiesOf(
  cocoon: CocoonProcess,
  device = cocoon.name,
): Promise<readonly CapabilityRow[]> {
  const response = await fetch(`${cocoon.gateway}/cocoons`, {
    headers: { authorization: `Bearer ${await cocoon.gatewayToken()}` },
  });
  const { cocoons } = (await response.json()) as {
    cocoons: { name: string; online: boolean; capabilities: readonly CapabilityRow[] }[];
  };
  return cocoons.find(({ name, online }) => name === device && online)?.capabilities ?? [];
}

/** Resolves when what a device offers, as another one lists it, is as wanted. */
export async function untilOffers(
  cocoon: CocoonProcess,
  device: string,
  wanted: (capabilities: readonly CapabilityRow[]) => boolean,
): Promise<void> {
  let seen: readonly CapabilityRow[] = [];
  for (const end = Date.now() + limitMs; Date.now() < end;)
    if (wanted((seen = await capabilitiesOf(cocoon, device)))) return;
  throw new Error(`${cocoon.name} lists of ${device} ${JSON.stringify(seen)}`);
}

export function offers(
  protocol: string,
  version?: string,
): (capabilities: readonly CapabilityRow[]) => boolean {
  return (capabilities) =>
    capabilities.some((own) => own.protocol === protocol && (version ?? own.version) === own.version);
}
