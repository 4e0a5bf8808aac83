/**
 * One line of an audit log: what happened, its number, and the hash that ties it to the line before. The hash is
 * over the very bytes of the line without it, so that anybody can check a log with a few lines of any language.
 */

import { createHash } from 'node:crypto';
import * as z from 'zod/mini';

export type AuditValue = string | number | boolean | null | readonly string[];

/** What an event tells besides itself. Names and ids only: never a token, a secret or a signed object. */
export type AuditFields = Readonly<Record<string, AuditValue | undefined>> & {
  readonly [own in 'n' | 'time' | 'event' | 'prev' | 'hash']?: never;
};

const lineSchema = z.looseObject({
  n: z.int().check(z.positive()),
  time: z.string(),
  event: z.string(),
  prev: z.string(),
  hash: z.string(),
});
/** As it stands in the file. */
export type AuditEntry = Readonly<z.infer<typeof lineSchema>>;

/** Where a log ends. */
export interface AuditEnd {
  readonly n: number;
  readonly hash: string;
}

/** Before the first line. */
export const beforeFirst: AuditEnd = { n: 0, hash: '00'.repeat(32) };

/** Longer than any line of ours, so that a file of something else is not read into memory. */
export const maxLineBytes = 256 * 1024;

/** What a log is told comes in part from strangers. */
const maxTextLength = 256;
const maxListed = 64;

/** Without the newline. */
export function auditLine(
  after: AuditEnd,
  timeMs: number,
  event: string,
  fields: AuditFields,
): { line: string; end: AuditEnd } {
  const n = after.n + 1;
  const kept = Object.entries(fields).map(([name, value]) => [name, withinLimits(value)]);
  const time = new Date(timeMs).toISOString();
  const content = { n, time, event, ...Object.fromEntries(kept), prev: after.hash };
  const text = JSON.stringify(content);
  const hash = hashOf(text);
  return { line: `${text.slice(0, -1)}${hashMember(hash)}`, end: { n, hash } };
}

/** The entry, if the line is one that was written so: its hash fits. Null for anything else. */
export function parseAuditLine(bytes: Uint8Array): AuditEntry | null {
  try {
    const text = decoder.decode(bytes);
    const value: unknown = JSON.parse(text);
    const entry = lineSchema.parse(value);
    const end = hashMember(entry.hash);
    const isGenuine =
      text.endsWith(end) &&
      hashOf(`${text.slice(0, -end.length)}}`) === entry.hash &&
      // A name that stands there twice, or another spelling, would be read differently by some.
      JSON.stringify(value) === text;
    return isGenuine ? entry : null;
  } catch {
    return null;
  }
}

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

export function isNext(entry: AuditEntry, after: AuditEnd): boolean {
  return entry.n === after.n + 1 && entry.prev === after.hash;
}

function hashMember(hash: string): string {
  return `,"hash":${JSON.stringify(hash)}}`;
}

function hashOf(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

/** What begins so is worth stealing, and so is whatever is signed. Nobody hands it in; should it be, it ends here. */
const secretPattern = /cocoon-(?:token|secret|recovery|identity)-1\.[\w-]+|\beyJ[\w-]+\.[\w-]+\.[\w-]*/g;

function withinLimits(value: AuditValue | undefined): AuditValue | undefined {
  if (typeof value === 'string') return value.replace(secretPattern, '[removed]').slice(0, maxTextLength);
  if (typeof value === 'object' && value !== null)
    return value
      .slice(0, maxListed)
      .map((text) => text.replace(secretPattern, '[removed]').slice(0, maxTextLength));
  return value;
}
