/** Where a token or a secret comes from: `-` is stdin, `@FILE` a file, anything else the argument itself. */

import { readFile } from 'node:fs/promises';
import { MeshError } from '@cocoon-mesh/protocol/errors.ts';

const maxBytes = 64 * 1024;

export interface SecretText {
  readonly text: string;
  /** It stood in the argument list, where every process of the machine can read it. */
  readonly exposed: boolean;
}

/** @throws MeshError usage */
export async function readSecretArgument(
  argument: string,
  input: NodeJS.ReadStream = process.stdin,
): Promise<SecretText> {
  if (argument === '-') return { text: await readAll(input), exposed: false };
  if (argument.startsWith('@')) return { text: await readText(argument.slice(1)), exposed: false };
  return { text: argument.trim(), exposed: true };
}

async function readText(path: string): Promise<string> {
  try {
    return (await readFile(path, 'utf8')).trim();
  } catch (cause) {
    throw new MeshError('usage', `The file ${path} cannot be read`, { cause });
  }
}

/** To the end, or to the end of a line that somebody pastes into a terminal. */
async function readAll(input: NodeJS.ReadStream): Promise<string> {
  let text = '';
  input.setEncoding('utf8');
  for await (const chunk of input) {
    text += String(chunk);
    if (text.length > maxBytes)
      throw new MeshError('usage', 'What came from stdin is too long to be a token');
    if (input.isTTY && text.includes('\n')) break;
  }
  return text.trim();
}
