/** Devices for tests: each answers as its script says, in memory, and notes what became of its query. */

import type { QueryPart, QueryRequest, QueryRow } from '@cocoon-mesh/protocol';
import type { QueryTarget } from './target.ts';

export interface ScriptedTarget extends QueryTarget {
  readonly requests: QueryRequest[];
  /** Queries that were left or cancelled, or ran to their end. */
  ended: number;
}

type Script = (request: QueryRequest, signal: AbortSignal) => AsyncIterable<QueryPart>;

export function scripted(name: string, script: Script): ScriptedTarget {
  const target: ScriptedTarget = {
    peerId: `peer-${name}`,
    name,
    requests: [],
    ended: 0,
    async *ask(request, signal) {
      target.requests.push(request);
      try {
        yield* script(request, signal);
      } finally {
        target.ended++;
      }
    },
  };
  return target;
}

/** Says these parts, then nothing more. */
export function saying(name: string, ...parts: readonly QueryPart[]): ScriptedTarget {
  return scripted(name, async function* () {
    yield* parts;
  });
}

/** Says these parts, then waits until it is cancelled. */
export function hanging(name: string, ...parts: readonly QueryPart[]): ScriptedTarget {
  return scripted(name, async function* (_request, signal) {
    yield* parts;
    await new Promise((_resolve, reject) => {
      if (signal.aborted) reject(signal.reason as Error);
      signal.addEventListener('abort', () => reject(signal.reason as Error));
    });
  });
}

export function rowOf(...key: QueryRow['key']): QueryRow {
  return { key, at: key.join('/'), value: key.join('/') };
}

export function part(seq: number, keys: readonly number[], last: { more: boolean } | null = null): QueryPart {
  const rows = keys.map((key) => rowOf(key));
  return { kind: 'part', seq, rows, is_final: last !== null, ...last };
}

export const last = { more: false };
