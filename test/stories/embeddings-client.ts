/** Embeddings as a program of the same machine asks for them: at the gateway, with its token. */

import { readFileSync, readdirSync } from 'node:fs';
import type { CocoonProcess } from './cocoon-process.ts';

export interface Embeddings {
  readonly object: string;
  readonly data: readonly {
    readonly object: string;
    readonly index: number;
    readonly embedding: number[] | string;
  }[];
  readonly model: string;
  readonly usage: { readonly prompt_tokens: number; readonly total_tokens: number };
  readonly space: string;
  readonly semantic: boolean;
  readonly dimensions: number;
}

export interface Asked {
  readonly status: number;
  /** Of an error. */
  readonly code: string;
  readonly said: string;
  readonly device: string;
  readonly result: Embeddings;
}

/** The device has a limit of its own before that. */
const limitMs = 90_000;

export async function askEmbeddings(
  cocoon: CocoonProcess,
  payload: unknown,
  more: Readonly<Record<string, unknown>> = {},
): Promise<Asked> {
  const response = await fetch(`${cocoon.gateway}/capabilities/embeddings`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${await cocoon.gatewayToken()}`,
      'content-type': 'application/json',
    },
    body: JSON.stringify({ version: '^1.0.0', payload, ...more }),
    signal: AbortSignal.timeout(limitMs),
  });
  const body = (await response.json()) as { result: Embeddings; code?: string; title?: string };
  return {
    status: response.status,
    code: body.code ?? '',
    said: body.title ?? '',
    device: response.headers.get('cocoon-device') ?? '',
    result: body.result,
  };
}

export function vectorsIn({ result }: Pick<Asked, 'result'>): Float32Array[] {
  return result.data.map(({ embedding }) =>
    typeof embedding === 'string'
      ? new Float32Array(new Uint8Array(Buffer.from(embedding, 'base64')).buffer)
      : Float32Array.from(embedding),
  );
}

/** Of different lengths, so that they come into different batches. */
export function someTexts(count: number): string[] {
  const words = 'the mesh has a node and its owner knows every device of it by name'.split(' ');
  return Array.from({ length: count }, (_, i) =>
    Array.from({ length: 1 + (i % 13) }, (_word, k) => words[(i * 7 + k * 3) % words.length]).join(' '),
  );
}

/** Processes of models that a daemon has started. */
export function modelProcesses({ pid }: Pick<CocoonProcess, 'pid'>): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((child) => parentOf(child) === pid && commandOf(child).includes('inference-entry'));
}

/** Whether it runs: what has ended and was not asked for yet is gone, too. */
export function isRunning(pid: number): boolean {
  return !['', 'Z', 'X'].includes(fieldsOf(pid)[0] ?? '');
}

function parentOf(pid: number): number {
  return Number(fieldsOf(pid)[1] ?? 0);
}

function fieldsOf(pid: number): readonly string[] {
  const text = read(`/proc/${pid}/stat`);
  return text === '' ? [] : text.slice(text.lastIndexOf(')') + 2).split(' ');
}

function commandOf(pid: number): string {
  return read(`/proc/${pid}/cmdline`);
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
