/** `cocoon audit`: who was let in, refused and thrown out. Read from the file, so that no daemon is needed. */

import type { Command } from 'commander';
import type { AuditEntry } from '@cocoon-mesh/audit';
import type { CommandContext } from '../command-context.ts';

interface AuditFlags {
  readonly verify?: boolean;
  readonly signaling?: boolean;
}

export function describe(command: Command): void {
  command
    .description('The audit log: every grant, claim, refusal, introduction and revocation.')
    .option('--verify', 'check that no line was changed, added or taken out')
    .option('--signaling', "the server's own log, of `cocoon up` and `cocoon signaling`");
}

export async function audit({ home, output }: CommandContext, flags: AuditFlags): Promise<void> {
  const path = flags.signaling ? home.signalingAudit : home.audit;
  const { readAudit, verifyAudit } = await import('@cocoon-mesh/audit');
  if (flags.verify) {
    const { lines, hash, unfinishedBytes } = await verifyAudit(path);
    output.say(
      { lines, hash, unfinished_bytes: unfinishedBytes },
      `${lines === 1 ? '1 line holds' : `${lines} lines hold`}. The last one's hash is ${hash}: note it elsewhere to see later whether the end is ` +
        `still there.${unfinishedBytes > 0 ? `\nBehind them is a line without its end; the next start cuts it off.` : ''}`,
    );
    return;
  }
  output.tell(row('TIME', 'EVENT', 'WHO', 'WHAT'));
  for await (const { line, entry, whole } of readAudit(path)) {
    if (entry) output.say(entry, entryText(entry));
    else if (whole) output.note(`Line ${line} was changed after it was written.`);
  }
}

/** Who it is about, by the first of these that an event tells. */
const whoFields = [
  'peer',
  'redeemer',
  'second',
  'member',
  'co_owner',
  'asker',
  'device',
  'removed',
  // Whose word it is, where nobody else is told of: who gave a cocoon back, revoked a token, changed the secret.
  'owner',
] as const;

function entryText({ n: _n, time, event, prev: _prev, hash: _hash, ...fields }: AuditEntry): string {
  const who = whoFields.find((name) => typeof fields[name] === 'string');
  const what = Object.entries(fields)
    .filter(([name, value]) => name !== who && value !== null)
    .map(([name, value]) => `${name}=${plain(value)}`);
  return row(time, event, who === undefined ? '-' : plain(fields[who]), what.join(' '));
}

/** The longest event, and the id of a device or an owner; a longer one moves what follows. */
function row(time: string, event: string, who: string, what: string): string {
  return printable(`${time.padEnd(24)}  ${event.padEnd(21)}  ${who.padEnd(52)}  ${what}`).trimEnd();
}

function plain(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value);
}

/** The log holds what strangers sent; none of it may speak to the terminal. */
function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, '?');
}
