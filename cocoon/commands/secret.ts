/**
 * `cocoon secret show|use|rotate`: the secret of the owner, where this device holds it. It is shown, taken and
 * replaced here, on the device itself, and goes over no session.
 */

import type { Command } from 'commander';
import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import type { CommandContext } from '../command-context.ts';
import { collect } from '../command-context.ts';
import { ControlClient } from '../control/client.ts';
import { parseSince } from '../duration.ts';
import { readKeyFile } from '../key-file.ts';
import type { PreparedRotation, RotationResult } from '../rotation.ts';
import { readSecretArgument } from '../token-source.ts';

export async function secretShow({ home, output }: CommandContext): Promise<void> {
  const secret = await readKeyFile(home.secret);
  if (secret === null)
    throw new MeshError('not_found', `There is no secret in ${home.path}`, {
      hint: 'An enrolled device holds a membership, not the secret: look on the device on which you ran `cocoon up` first.',
    });
  output.say({ secret }, secret);
  if (!output.json && output.terminal)
    output.note('Whoever has this secret is you. Keep it where you keep passwords.');
}

export function describeUse(command: Command): void {
  command
    .description('Take a secret: this device is that owner from its next start on.')
    .argument('[secret|-|@file]', 'from stdin (-, the default), from a file, or as it is');
}

export async function secretUse(
  { home, output }: CommandContext,
  _options: object,
  [argument = '-']: readonly string[],
): Promise<void> {
  const { lockHome } = await import('../home-lock.ts');
  const { openIdentityKey } = await import('../identity-key.ts');
  const { OwnersFile } = await import('../mesh-store.ts');
  const { useSecret } = await import('../ownership.ts');
  const { systemClock } = await import('@cocoon-mesh/protocol/clock.ts');
  // What is made below, others need not read.
  process.umask(0o077);
  await home.create();
  const release = lockHome(home.lock, home);
  try {
    const { text, exposed } = await readSecretArgument(argument, process.stdin, 'secret');
    if (exposed)
      output.note(
        'A secret in the argument list can be read by every program of this machine: use `cocoon secret use` and paste it, or `cocoon secret use @FILE`.',
      );
    const owner = await useSecret({
      home,
      owners: await OwnersFile.open(home.owners),
      key: await openIdentityKey(home.identityKey),
      token: null,
      secret: text,
      now: Math.floor(systemClock.now() / 1000),
    });
    output.say(
      { owner },
      `From its next start on this device is one of ${owner}: it sees the owner's devices, and signs tokens and revocations.`,
    );
  } finally {
    release();
  }
}

export function describeRotate(command: Command): void {
  command
    .description('Put a new secret in the place of one that leaked. Needs the recovery code.')
    .argument('[recovery-code|-|@file]', 'from stdin (-, the default), from a file, or as it is')
    .option('--keep <jti>', 'a setup token that can still be redeemed; may stand several times', collect)
    .option('--without <device>', 'a device that shall not stay; may stand several times', collect)
    .option(
      '--unrevoke <peer-id>',
      'a device that somebody else has revoked; may stand several times',
      collect,
    )
    .option('--revoked-since <date>', 'undo every revocation since then, say 2027-01-31T12:00:00Z');
}

interface RotateOptions {
  readonly keep?: readonly string[];
  readonly without?: readonly string[];
  readonly unrevoke?: readonly string[];
  readonly revokedSince?: string;
}

export async function secretRotate(
  { home, output }: CommandContext,
  { keep = [], without = [], unrevoke = [], revokedSince }: RotateOptions,
  [argument = '-']: readonly string[],
): Promise<void> {
  if (!output.json && !output.terminal)
    throw new MeshError('usage', 'The new recovery code is shown once, and nobody reads along', {
      hint: 'Run it on a terminal, or with --json.',
    });
  const { text, exposed } = await readSecretArgument(argument, process.stdin, 'recovery code');
  if (exposed)
    output.note(
      'A recovery code in the argument list can be read by every program of this machine: paste it next time.',
    );
  const client = new ControlClient(home);
  const { id, ...prepared } = await client.ask<PreparedRotation>('POST', '/rotation', {
    recovery_code: text,
    keep,
    without,
    unrevoke,
    ...(revokedSince === undefined ? {} : { revoked_since: parseSince(revokedSince) }),
  });
  // Before anything changes: a code that was never seen would be lost together with the old one.
  output.say(prepared, preparedText(prepared));
  const { signed, waiting } = await client.ask<RotationResult>('POST', '/rotation/commit', { id });
  output.note(
    `The secret is replaced. ${signed} memberships and shares were signed anew${waiting === 0 ? '' : `, ${waiting} wait for signaling or their devices`}. On other devices that are to sign run \`cocoon secret use\` with what \`cocoon secret show\` prints here.`,
  );
}

function preparedText({
  recovery_code: code,
  devices,
  owners,
  revoked,
}: Omit<PreparedRotation, 'id'>): string {
  return [
    'The new recovery code, shown this once and kept nowhere; it holds as soon as the secret is replaced:',
    '',
    `  ${code}`,
    '',
    'These devices stay. One that is not yours goes with `cocoon revoke`:',
    ...devices.map(({ name, peer_id: peerId }) => `  ${name ?? '(not seen)'} (${peerId})`),
    ...(owners.length === 0 ? [] : ['These owners keep what was shared with them:']),
    ...owners.map((owner) => `  ${owner}`),
    ...(revoked.length === 0
      ? []
      : [
          'These were revoked, some perhaps by whoever had the secret; `--unrevoke` and `--revoked-since` undo it:',
          ...revoked.slice(-maxShown).map(revokedText),
          ...(revoked.length > maxShown ? [`  and ${revoked.length - maxShown} before them`] : []),
        ]),
    '',
  ].join('\n');
}

/** The newest, on a terminal; `--json` has all. */
const maxShown = 50;

function revokedText({ kind, subject, at, stays }: PreparedRotation['revoked'][number]): string {
  return `  ${at} ${kind} ${subject}${stays ? '' : ' (not said again)'}`;
}
