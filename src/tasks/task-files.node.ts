/**
 * What lies on the disk for one task, in a folder of its own: `work` (where its command works), `log`, `input.json`,
 * `result.json` (if the command writes one), and, only while it concerns us, `process.json` and `end.json`.
 */

import { mkdir, readFile, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { taskIdField, taskJsonField } from '@cocoon-mesh/protocol';
import * as z from 'zod/mini';
import type { RunEnd } from './task-store.node.ts';

const runEndSchema = z.object({
  status: z.enum(['completed', 'failed', 'cancelled']),
  exitCode: z.nullable(z.int()),
  error: z.nullable(z.string()),
  output: taskJsonField,
});

const processMarkSchema = z.object({
  /** Also the number of the group. */
  pid: z.int().check(z.gt(1)),
  start_time: z.nullable(z.string()),
});
/** Enough to find the group again, and to know it from another one. */
export type ProcessMark = z.infer<typeof processMarkSchema>;

export class TaskFiles {
  readonly folder: string;
  readonly work: string;
  readonly log: string;
  readonly input: string;
  readonly result: string;
  readonly #process: string;
  readonly #end: string;

  /** @param root of all tasks; an id that is none never becomes a path */
  constructor(root: string, id: string) {
    this.folder = join(root, taskIdField.parse(id));
    this.work = join(this.folder, 'work');
    this.log = join(this.folder, 'log');
    this.input = join(this.folder, 'input.json');
    this.result = join(this.folder, 'result.json');
    this.#process = join(this.folder, 'process.json');
    this.#end = join(this.folder, 'end.json');
  }

  /** @param input as stdin gives it */
  async prepare(input: string): Promise<void> {
    await mkdir(this.work, { recursive: true, mode: 0o700 });
    await rm(this.result, { recursive: true, force: true });
    await writeFile(this.input, input, { mode: 0o600 });
  }

  async writeProcess(mark: ProcessMark): Promise<void> {
    await replace(this.#process, mark);
  }

  /** Null: none, or not ours. */
  async readProcess(): Promise<ProcessMark | null> {
    return readChecked(this.#process, processMarkSchema);
  }

  async forgetProcess(): Promise<void> {
    await rm(this.#process, { force: true });
  }

  /** Kept until the store has it, so that an end that is known is not forgotten. */
  async writeEnd(end: RunEnd): Promise<void> {
    await mkdir(this.folder, { recursive: true, mode: 0o700 });
    await replace(this.#end, end);
  }

  async readEnd(): Promise<RunEnd | null> {
    return readChecked(this.#end, runEndSchema);
  }

  /** Nothing of the run is left and the store knows how it ended. */
  async settle(): Promise<void> {
    await this.forgetProcess();
    await rm(this.#end, { force: true });
  }

  async remove(): Promise<void> {
    await rm(this.folder, { recursive: true, force: true, maxRetries: 3 });
  }
}

/** Tasks that have a folder. */
export async function taskFolders(root: string): Promise<string[]> {
  const names = await readdir(root).catch(() => []);
  return names.filter((name) => taskIdField.safeParse(name).success);
}

async function replace(path: string, value: unknown): Promise<void> {
  await writeFile(`${path}.new`, JSON.stringify(value), { mode: 0o600 });
  await rename(`${path}.new`, path);
}

async function readChecked<T>(path: string, schema: z.ZodMiniType<T>): Promise<T | null> {
  try {
    return schema.parse(JSON.parse(await readFile(path, 'utf8')));
  } catch {
    return null;
  }
}
