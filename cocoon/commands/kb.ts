/** `cocoon kb add|search|list|remove`: what this device knows, and what all devices know. */

import { resolve } from 'node:path';
import type { Command } from 'commander';
import type { CommandContext } from '../command-context.ts';
import { collect } from '../command-context.ts';
import { ControlClient } from '../control/client.ts';
import { parseDuration } from '../duration.ts';
import type { IndexedView, IndexTold, SourceView, VectorsView } from '../knowledge-view.ts';
import type { Output } from '../output.ts';
import { table } from '../output.ts';
import { askMany, failureOf } from '../query-stream.ts';
import { printableLine } from '../terminal-text.ts';
import { noteMissing, wholeNumber } from './tasks.ts';

interface SearchFlags {
  readonly limit: string;
  readonly timeout: string;
  readonly device?: readonly string[];
}

interface Listed {
  readonly sources: readonly SourceView[];
  readonly vectors: Pick<VectorsView, 'model' | 'problem'>;
}

interface Hit {
  readonly device: string;
  readonly file: string;
  readonly line: number;
  readonly heading: string;
  readonly snippet: string;
}

export function describeAdd(command: Command): void {
  command
    .description('Index text and Markdown files, or read again what has changed in them.')
    .argument('<path...>')
    .option('--only <extensions>', 'only files with these, such as md,txt (default: every text)')
    .option('--watch', 'also whenever they change, as long as the device runs');
}

export function describeSearch(command: Command): void {
  command
    .description('Search what all your devices know.')
    .argument('<text...>')
    .option('--limit <n>', 'how many passages at most', '10')
    .option('--timeout <time>', 'how long devices may take', '5s')
    .option('--device <device>', 'only this one; may stand several times', collect);
}

export async function kbAdd(
  { home, output }: CommandContext,
  flags: { readonly watch?: boolean; readonly only?: string },
  paths: readonly string[],
): Promise<void> {
  const ask = {
    paths: paths.map((path) => resolve(path)),
    watch: flags.watch === true,
    only: extensions(flags.only),
  };
  const client = new ControlClient(home);
  const answer = await client.askLong<IndexTold>('/kb', ask, showProgress).finally(clearProgress);
  output.say(answer, indexedText(answer));
  if (!output.json)
    for (const { path, reason } of answer.examples)
      output.note(`Left out ${path}: ${reason.replaceAll('_', ' ')}`);
  noteModel(output, answer.vectors);
}

export async function kbSearch(
  { home, output }: CommandContext,
  flags: SearchFlags,
  words: readonly string[],
): Promise<void> {
  const answer = await askMany(new ControlClient(home), {
    query_type: 'search_knowledgebase',
    params: { text: words.join(' ') },
    limit: wholeNumber('--limit', flags.limit),
    timeout_ms: parseDuration(flags.timeout) * 1000,
    ...(flags.device ? { devices: flags.device } : {}),
  });
  const failure = failureOf(answer);
  if (failure) throw failure;
  const hits = (answer.rows ?? []) as readonly Hit[];
  output.say(answer, hits.length === 0 ? 'Nothing was found.' : hits.map(hitText).join('\n\n'));
  noteMissing(output, answer);
}

export async function kbList({ home, output }: CommandContext): Promise<void> {
  const { sources, vectors } = await new ControlClient(home).ask<Listed>('GET', '/kb');
  const rows = sources.map(({ path, files, watched }) => [path, String(files), watched ? 'yes' : 'no']);
  output.say(
    { sources, vectors },
    rows.length === 0 ? 'This device has indexed nothing.' : table(['PATH', 'FILES', 'WATCHED'], rows),
  );
  noteModel(output, vectors);
}

export async function kbRemove(
  { home, output }: CommandContext,
  _flags: object,
  paths: readonly string[],
): Promise<void> {
  const ask = { paths: paths.map((path) => resolve(path)) };
  const answer = await new ControlClient(home).ask<{ sources: string[] }>('POST', '/kb/remove', ask);
  output.say(answer, `Forgotten: ${answer.sources.join(', ')}`);
}

/** Nothing but what is counted, so that it is one line on every terminal. */
function showProgress({ files, indexed, embedded }: IndexTold['progress']): void {
  if (!process.stderr.isTTY) return;
  const passages = embedded === undefined ? '' : `, ${embedded} passages embedded`;
  process.stderr.write(`\r${files} files looked at, ${indexed} indexed${passages}\u001b[K`);
}

function clearProgress(): void {
  if (process.stderr.isTTY) process.stderr.write('\r\u001b[K');
}

/** Null: every text. */
function extensions(text: string | undefined): string[] | null {
  return text?.split(',').filter((extension) => extension !== '') ?? null;
}

function indexedText({ added, changed, unchanged, removed, skipped, vectors }: IndexedView): string {
  const files = `${added} files added, ${changed} read again, ${unchanged} unchanged, ${removed} gone, ${skipped} left out.`;
  return vectors.model === null
    ? files
    : `${files} ${vectors.embedded} passages embedded by ${vectors.model}.`;
}

function noteModel(output: Output, { problem }: Pick<VectorsView, 'problem'>): void {
  if (problem !== null) output.note(`Passages are compared by their words only: ${problem}`);
}

function hitText({ device, file, line, heading, snippet }: Hit): string {
  return `${device}: ${printableLine(file)}:${line}${heading === '' ? '' : ` (${printableLine(heading)})`}\n  ${printableLine(snippet.replaceAll(/\s+/g, ' '))}`;
}
