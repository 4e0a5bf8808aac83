/**
 * What a command sees of a question to many devices: parts as they come, then the merged answer; on a terminal a
 * line that says who has not answered yet.
 */

import { createInterface } from 'node:readline';
import type { DeviceAnswer } from '@cocoon-mesh/protocol';
import { MeshError, isErrorCode } from '@cocoon-mesh/protocol/errors.ts';
import type { ControlClient } from './control/client.ts';
import { toldError } from './control/client.ts';

/** As in `{"part": …}`. */
export interface PartView {
  readonly device: string;
  readonly device_id: string;
  readonly seq: number;
  readonly rows: readonly unknown[];
  readonly is_final: boolean;
}

/** As in `{"result": …}`; `rows`, or what the type of the query has instead. */
export interface ResultView {
  readonly devices: readonly DeviceAnswer[];
  readonly partial: boolean;
  readonly next_cursor?: string | null;
  readonly rows?: readonly unknown[];
}

export interface QueryAsk {
  readonly query_type: string;
  readonly params: unknown;
  readonly timeout_ms?: number;
  readonly limit?: number;
  readonly cursor?: string;
  /** Names or PeerIds; absent: every device that has what is asked for. */
  readonly devices?: readonly string[];
}

/** Asks for a first line that names the devices. For our own commands only. */
export const askedHeader = 'cocoon-asked';

type Line =
  | { readonly asked: readonly { readonly device: string; readonly device_id: string }[] }
  | { readonly part: PartView }
  | { readonly result: ResultView }
  | { readonly error: { readonly code: string; readonly message: string; readonly hint?: string } };

/** @throws MeshError as `POST /query` */
export async function askMany(
  client: ControlClient,
  ask: QueryAsk,
  onPart: (part: PartView) => void = () => undefined,
): Promise<ResultView> {
  const request = await client.open('/query', {
    method: 'POST',
    headers: { 'content-type': 'application/json', [askedHeader]: '1' },
  });
  const response = await client.send(request, JSON.stringify(ask));
  const progress = new Progress(process.stderr.isTTY);
  try {
    for await (const text of createInterface({ input: response })) {
      const line = JSON.parse(text) as Line;
      if ('result' in line) return line.result;
      if ('error' in line) throw toldError(line.error);
      if ('asked' in line) progress.starts(line.asked);
      else {
        progress.hears(line.part);
        onPart(line.part);
      }
    }
  } finally {
    progress.ends();
  }
  throw new MeshError('internal', 'The cocoon broke off its answer');
}

/** The error of a question that no device answered; null when one did. */
export function failureOf({ devices }: Pick<ResultView, 'devices'>): MeshError | null {
  const [first] = devices;
  if (!first || devices.some(({ status }) => status === 'ok')) return null;
  const { name, status, error } = devices.find((device) => device.status !== 'offline') ?? first;
  const fallback = {
    timeout: 'timeout',
    offline: 'device_offline',
    denied: 'denied',
    error: 'internal',
    ok: 'internal',
  } as const;
  const code = isErrorCode(error?.code) ? error.code : fallback[status];
  return new MeshError(code, error ? `${name}: ${error.message}` : undefined);
}

/** Devices whose share is missing, one sentence each. */
export function missingShares({ devices }: Pick<ResultView, 'devices'>): string[] {
  const words = {
    timeout: 'did not answer in time',
    offline: 'is offline',
    denied: 'does not let you',
    error: 'failed',
    ok: '',
  };
  return devices
    .filter(({ status }) => status !== 'ok')
    .map(({ name, status, error }) => {
      const why = status === 'error' && error ? `: ${error.message} (${error.code})` : '';
      return `${name} ${words[status]}${why}`;
    });
}

class Progress {
  readonly #shown: boolean;
  readonly #waiting = new Map<string, string>();
  #total = 0;
  #rows = 0;

  constructor(shown: boolean) {
    this.#shown = shown;
  }

  starts(asked: readonly { readonly device: string; readonly device_id: string }[]): void {
    for (const { device, device_id: id } of asked) this.#waiting.set(id, device);
    this.#total = asked.length;
    this.#show();
  }

  hears({ device_id: id, rows, is_final: isFinal }: PartView): void {
    this.#rows += rows.length;
    if (isFinal) this.#waiting.delete(id);
    this.#show();
  }

  ends(): void {
    if (this.#shown && this.#total > 0) process.stderr.write('\r\u001b[K');
  }

  #show(): void {
    if (!this.#shown) return;
    const names = [...this.#waiting.values()];
    const waiting =
      names.length === 0
        ? ''
        : `, waiting for ${names.slice(0, 5).join(', ')}${names.length > 5 ? ', …' : ''}`;
    const answered = `${this.#total - names.length} of ${this.#total} devices answered`;
    process.stderr.write(`\r${answered}, ${this.#rows} rows${waiting}\u001b[K`);
  }
}
