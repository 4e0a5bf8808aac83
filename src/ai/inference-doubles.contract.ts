/** A model that does what its requests say, for the tests of its process. */

import { writeSync } from 'node:fs';
import { kill, pid } from 'node:process';
import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import type { LocalModel, RunContext } from './inference-messages.ts';
import { pipeFd } from './inference-messages.ts';

export type DoubleSource = 'loads' | 'is not there' | 'dies while it loads' | 'throws';

export type DoubleRequest =
  | { readonly does: 'answer'; readonly value: unknown }
  | { readonly does: 'count'; readonly to: number }
  | { readonly does: 'count and die'; readonly to: number }
  /** What it writes into the pipe to its parent. */
  | { readonly does: 'rubbish'; readonly bytes: Uint8Array }
  | { readonly does: 'fail' }
  | { readonly does: 'throw' }
  | { readonly does: 'die' }
  | { readonly does: 'wait for its end' }
  | { readonly does: 'say how it ended' };

let cancelled = 0;

export async function openModel(source: DoubleSource): Promise<LocalModel<DoubleRequest>> {
  if (source === 'is not there') throw new MeshError('model_unavailable', 'config.json is missing');
  if (source === 'throws') throw new Error('a library failed');
  if (source === 'dies while it loads') kill(pid, 'SIGKILL');
  return { description: { named: 'double', pid }, run };
}

async function run(request: DoubleRequest, { signal, chunk }: RunContext): Promise<unknown> {
  switch (request.does) {
    case 'answer':
      return request.value;
    case 'count':
      for (let i = 0; i < request.to; i++) chunk(i);
      return 'counted';
    case 'count and die':
      for (let i = 0; i < request.to; i++) chunk(i);
      // What was told is to leave first.
      setTimeout(() => kill(pid, 'SIGKILL'), 50);
      return new Promise(() => undefined);
    case 'rubbish':
      writeSync(pipeFd, request.bytes);
      return new Promise(() => undefined);
    case 'fail':
      throw new MeshError('text_too_long', 'input[0] is too long');
    case 'throw':
      throw new TypeError('a library failed');
    case 'die':
      kill(pid, 'SIGKILL');
      return new Promise(() => undefined);
    case 'wait for its end':
      return new Promise((_, reject) => {
        signal.addEventListener('abort', () => {
          cancelled++;
          reject(signal.reason as Error);
        });
      });
    case 'say how it ended':
      return { cancelled };
  }
}
