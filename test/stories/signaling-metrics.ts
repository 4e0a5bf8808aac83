/** What signaling counts of itself, read from its metrics as an operator would. */

import type { CocoonProcess } from './cocoon-process.ts';

/** Bytes that came in and went out, in all. */
export async function bytesThroughSignaling(signaling: CocoonProcess): Promise<number> {
  const http = signaling.signaling.replace(/^ws/, 'http').replace(/\/ws$/, '');
  const text = await (await fetch(`${http}/metrics`)).text();
  let sum = 0;
  for (const line of text.split('\n')) {
    const value = /^cocoon_signaling_message_bytes_total\{.*\} (\d+)/.exec(line)?.[1];
    if (value !== undefined) sum += Number(value);
  }
  return sum;
}
