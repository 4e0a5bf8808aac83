/** Where a token or a secret comes from: `-` is stdin, `@FILE` a file, anything else the argument itself. */

import { readFile } from 'node:fs/promises';
import { MeshError } from '@cocoon-mesh/protocol/errors.ts';

const maxBytes = 64 * 1024;
/** What Ctrl-C sends while the terminal hands over every key. */
const interrupt = '\u0003';
/** What Ctrl-D sends. */
const endOfInput = '\u0004';
const lineEnd = /[\r\n]/;

export interface SecretText {
  readonly text: string;
  /** It stood in the argument list, where every process of the machine can read it. */
  readonly exposed: boolean;
}

/** @param what is asked for on a terminal. @throws MeshError usage */
export async function readSecretArgument(
  argument: string,
  input: NodeJS.ReadStream = process.stdin,
  what = 'token',
): Promise<SecretText> {
  if (argument === '-') return { text: joined(await readAll(input, what)), exposed: false };
  if (argument.startsWith('@')) return { text: joined(await readText(argument.slice(1))), exposed: false };
  return { text: joined(argument), exposed: true };
}

/** Mail and terminals break long lines; a token has no white space of its own. */
function joined(text: string): string {
  return text.replace(/\s+/g, '');
}

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    throw new MeshError('usage', `The file ${path} cannot be read`, { cause });
  }
}

/** To the end, or on a terminal to the end of the line that somebody pastes. */
async function readAll(input: NodeJS.ReadStream, what: string): Promise<string> {
  if (input.isTTY) return readPasted(input, what);
  let text = '';
  input.setEncoding('utf8');
  for await (const chunk of input) text = within(text + String(chunk));
  return text;
}

/**
 * A line of any length: a terminal that edits lines itself cuts them at 1,024 (macOS) or 4,095 bytes (Linux), which
 * is less than a token may have. Nothing is echoed either, so that the token does not stay on the screen.
 */
async function readPasted(input: NodeJS.ReadStream, what: string): Promise<string> {
  process.stderr.write(`Paste the ${what} and press Enter: `);
  let text = '';
  input.setEncoding('utf8');
  input.setRawMode(true);
  try {
    for await (const chunk of input) {
      text = within(text + String(chunk).replaceAll(endOfInput, '\n'));
      if (text.includes(interrupt)) throw new MeshError('cancelled');
      if (lineEnd.test(text)) break;
    }
  } finally {
    input.setRawMode(false);
    process.stderr.write('\n');
  }
  return text.split(lineEnd)[0] ?? '';
}

/** @throws MeshError usage */
function within(text: string): string {
  if (text.length > maxBytes) throw new MeshError('usage', 'What came from stdin is too long');
  return text;
}
