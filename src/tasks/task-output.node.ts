/**
 * The output of a task, which is JSON: what it wrote into its result file, or else everything that it printed, when
 * that is one JSON document. Most programs print text; that is the log's matter and no mistake.
 */

import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import type { Json } from '@cocoon-mesh/protocol';
import { limits, taskJsonField } from '@cocoon-mesh/protocol';
import { NewestBytes } from './newest-bytes.node.ts';

export interface TaskOutput {
  readonly output: Json;
  /** Why there is none although the program seems to have meant one. */
  readonly note: string | null;
}

/** What was printed, as far as it could still be output. */
export class PrintedOutput {
  readonly #kept = new NewestBytes(limits.maxTaskJsonBytes);
  #bytes = 0;
  #looksLikeJson = false;

  /** Copies it. */
  add(piece: Buffer): void {
    if (this.#bytes === 0) this.#looksLikeJson = /^\s*[[{]/.test(piece.toString('latin1', 0, 64));
    this.#bytes += piece.length;
    if (this.#bytes <= limits.maxTaskJsonBytes) this.#kept.append(piece);
  }

  read(): TaskOutput {
    if (this.#bytes > limits.maxTaskJsonBytes) return this.#none(tooLarge);
    const read = parseOutput(Buffer.concat(this.#kept.pieces()));
    return 'output' in read ? { output: read.output, note: null } : this.#none(read.why);
  }

  #none(why: string): TaskOutput {
    return { output: null, note: this.#looksLikeJson ? `What it printed is no output: ${why}` : null };
  }
}

/** A result file that is none is noted, and what was printed counts. */
export async function readOutput(resultPath: string, printed: PrintedOutput): Promise<TaskOutput> {
  const result = await readResult(resultPath);
  if (result === null) return printed.read();
  if ('output' in result) return { output: result.output, note: null };
  const { output } = printed.read();
  return { output, note: `Its result file is no output: ${result.why}` };
}

type Read = { readonly output: Json } | { readonly why: string };

const tooLarge = `it is larger than ${limits.maxTaskJsonBytes} bytes`;

/** Null: there is none. */
async function readResult(path: string): Promise<Read | null> {
  let file;
  try {
    // A pipe in its place must not hold us.
    file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (thrown) {
    const missing = thrown instanceof Error && 'code' in thrown && thrown.code === 'ENOENT';
    return missing ? null : { why: 'it cannot be read' };
  }
  try {
    const stat = await file.stat();
    if (!stat.isFile()) return { why: 'it is not a file' };
    if (stat.size > limits.maxTaskJsonBytes) return { why: tooLarge };
    const buffer = Buffer.alloc(stat.size);
    const { bytesRead } = await file.read(buffer, 0, buffer.length, 0);
    return parseOutput(buffer.subarray(0, bytesRead));
  } catch {
    return { why: 'it cannot be read' };
  } finally {
    await file.close();
  }
}

function parseOutput(bytes: Uint8Array): Read {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch {
    return { why: 'it is not JSON' };
  }
  const checked = taskJsonField.safeParse(value);
  if (checked.success) return { output: checked.data };
  return { why: `it has more than ${limits.maxTaskJsonDepth} levels, or is too large` };
}
