/** Reads files of a model in Hugging Face's layout; whatever is wrong with one is said with its name. */

import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import type { Stats } from 'node:fs';
import { open, readFile, readdir, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import type * as z from 'zod/mini';

/** Configurations are a few KiB, tokenizers of many languages tens of MiB. */
export const maxConfigBytes = 4 << 20;
export const maxTokenizerBytes = 128 << 20;

/** The quantised one is two to five times as fast. */
const modelFiles = [
  'onnx/model_quantized.onnx',
  'onnx/model_int8.onnx',
  'onnx/model.onnx',
  'model_quantized.onnx',
  'model.onnx',
];
/** So much is hashed between two turns of the event loop. */
const hashedAtOnce = 256 * 1024;
/** Git stores this text in place of large files. */
const pointerStart = 'version https://git-lfs';

export function unavailable(message: string, cause?: unknown): MeshError {
  return new MeshError('model_unavailable', message, cause === undefined ? {} : { cause });
}

/** @throws MeshError model_unavailable */
export async function assertFolder(folder: string): Promise<void> {
  const stats = await statOf(folder);
  if (!stats) throw unavailable(`There is no model folder ${folder}`);
  if (!stats.isDirectory()) throw unavailable(`${folder} is a file; a model is a folder`);
}

/** @returns null when it is not there. @throws MeshError model_unavailable when it is not JSON of the schema */
export async function readModelJson<T>(
  folder: string,
  name: string,
  schema: z.ZodMiniType<T>,
  maxBytes: number = maxConfigBytes,
): Promise<T | null> {
  const path = join(folder, name);
  const stats = await statOf(path);
  if (!stats) return null;
  if (!stats.isFile()) throw unavailable(`${name} of the model is not a file`);
  if (stats.size > maxBytes)
    throw unavailable(
      `${name} of the model has ${stats.size} bytes, more than the ${maxBytes} of any such file`,
    );
  let value: unknown;
  try {
    value = JSON.parse(await readFile(path, 'utf8'));
  } catch (cause) {
    throw unavailable(`${name} of the model is not JSON`, cause);
  }
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const field = result.error.issues[0]?.path.map(String).join('.') ?? '';
  throw unavailable(
    `${name} of the model is not what it should be${field === '' ? '' : `: ${field}`}`,
    result.error,
  );
}

/** @returns its path below the folder. @throws MeshError model_unavailable */
export async function findModelFile(folder: string): Promise<string> {
  for (const name of modelFiles) if (await statOf(join(folder, name))) return name;
  throw unavailable(`The model folder has none of ${modelFiles.join(', ')}`);
}

/** With it its weights, if they lie in files of their own. Paths below the folder, sorted. */
export async function withExternalData(folder: string, modelFile: string): Promise<readonly string[]> {
  const within = dirname(modelFile);
  const start = `${basename(modelFile)}_data`;
  const names = await readdir(join(folder, within));
  const data = names.filter((name) => name.startsWith(start) || name === `${basename(modelFile)}.data`);
  return [modelFile, ...data.toSorted().map((name) => join(within, name))];
}

/** @throws MeshError model_unavailable: it is not there, empty, or a pointer of Git */
export async function assertContent(folder: string, name: string): Promise<void> {
  const stats = await statOf(join(folder, name));
  if (!stats?.isFile()) throw unavailable(`${name} of the model is missing`);
  if (stats.size === 0) throw unavailable(`${name} of the model is empty`);
  const file = await open(join(folder, name));
  try {
    const { buffer, bytesRead } = await file.read(
      Buffer.alloc(pointerStart.length),
      0,
      pointerStart.length,
      0,
    );
    if (buffer.toString('latin1', 0, bytesRead) === pointerStart)
      throw unavailable(
        `${name} of the model is a pointer of Git LFS: fetch the file itself with \`git lfs pull\``,
      );
  } finally {
    await file.close();
  }
}

/** Changes when a file does; costs no reading. */
export async function stampOf(folder: string, names: readonly string[]): Promise<string> {
  const stats = await Promise.all(names.map(async (name) => statOf(join(folder, name))));
  return stats.map((each, i) => `${names[i]} ${each?.size} ${each?.mtimeMs} ${each?.ino}`).join('\n');
}

/** SHA-256 of the files' contents with their names, as hex; names do not depend on where the folder lies. */
export async function fingerprintOf(
  folder: string,
  names: readonly string[],
  signal: AbortSignal,
): Promise<string> {
  const all = createHash('sha256');
  for (const name of names) {
    const each = createHash('sha256');
    const stream = createReadStream(join(folder, name), { highWaterMark: hashedAtOnce, signal });
    for await (const bytes of stream as AsyncIterable<Buffer>) each.update(bytes);
    all.update(`${basename(name)} ${each.digest('hex')}\n`);
  }
  return all.digest('hex');
}

async function statOf(path: string): Promise<Stats | null> {
  try {
    return await stat(path);
  } catch (thrown) {
    const code = thrown instanceof Error && 'code' in thrown ? thrown.code : '';
    if (code === 'ENOENT' || code === 'ENOTDIR') return null;
    throw unavailable(`${path} cannot be read (${String(code)})`, thrown);
  }
}
