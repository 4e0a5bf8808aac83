/** Does an audit log hold: every line as it was written, each after the one that it names? */

import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import type { AuditEnd } from './audit-line.node.ts';
import { beforeFirst, isNext } from './audit-line.node.ts';
import { readAudit } from './read-audit.node.ts';

export interface VerifiedAudit {
  readonly lines: number;
  /** Of the last line. Whoever notes it elsewhere sees later whether the end is still there. */
  readonly hash: string;
  /** Of a last line without an end, which the log cuts off when it is opened next. */
  readonly unfinishedBytes: number;
}

/** @throws MeshError audit_broken naming the first line that does not hold; as `readAudit` */
export async function verifyAudit(path: string): Promise<VerifiedAudit> {
  let end: AuditEnd = beforeFirst;
  let unfinishedBytes = 0;
  for await (const { line, entry, bytes, whole } of readAudit(path)) {
    if (!whole) unfinishedBytes = bytes;
    else if (!entry) throw new MeshError('audit_broken', `Line ${line} of ${path} was changed`);
    else if (isNext(entry, end)) end = { n: entry.n, hash: entry.hash };
    else
      throw new MeshError(
        'audit_broken',
        `Line ${line} of ${path} does not follow the line before it: something was taken out, put in or moved`,
      );
  }
  return { lines: end.n, hash: end.hash, unfinishedBytes };
}
