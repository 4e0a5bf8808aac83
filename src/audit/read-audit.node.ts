/** Reads an audit log line by line, of any size, whoever else is writing into it. */

import { createReadStream } from 'node:fs';
import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import type { AuditEntry } from './audit-line.node.ts';
import { maxLineBytes, parseAuditLine } from './audit-line.node.ts';

export interface AuditRead {
  /** 1 for the first. */
  readonly line: number;
  /** Null for a line that no log has written so. */
  readonly entry: AuditEntry | null;
  readonly bytes: number;
  /** False for the last line when its end is missing: being written, or left so by a crash. */
  readonly whole: boolean;
}

/** @throws MeshError not_found | storage_failed | audit_broken for a line that is longer than any */
export async function* readAudit(path: string): AsyncGenerator<AuditRead> {
  let line = 0;
  let rest: Buffer = Buffer.alloc(0);
  for await (const chunk of pieces(path)) {
    const bytes = Buffer.concat([rest, chunk]);
    let start = 0;
    for (let end = bytes.indexOf(10); end >= 0; end = bytes.indexOf(10, start)) {
      yield read(++line, bytes.subarray(start, end), true);
      start = end + 1;
    }
    rest = bytes.subarray(start);
    if (rest.length > maxLineBytes)
      throw new MeshError('audit_broken', `Line ${line + 1} of ${path} is no line of an audit log`);
  }
  if (rest.length > 0) yield read(line + 1, rest, false);
}

function read(line: number, bytes: Buffer, whole: boolean): AuditRead {
  return { line, entry: whole ? parseAuditLine(bytes) : null, bytes: bytes.length, whole };
}

async function* pieces(path: string): AsyncGenerator<Buffer> {
  try {
    for await (const piece of createReadStream(path) as AsyncIterable<Buffer>) yield piece;
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause && cause.code === 'ENOENT')
      throw new MeshError('not_found', `There is no audit log at ${path}`, {
        cause,
        hint: 'It is made when the device, or the server, starts.',
      });
    throw new MeshError('storage_failed', `The audit log ${path} could not be read`, { cause });
  }
}
