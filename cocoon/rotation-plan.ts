/**
 * `rotation.json`: what a rotation of the secret has still to tell and to sign. It is written before the new secret
 * is, so that a rotation that was broken off is finished by the next start: by then nobody would find the devices
 * and shares of the epoch before any more.
 */

import { readFile, rm } from 'node:fs/promises';
import type { ProvenMembership, ProvenShare } from '@cocoon-mesh/protocol';
import {
  MeshError,
  check,
  deviceKind,
  redemptionSchema,
  revocationListField,
  rightsSchema,
} from '@cocoon-mesh/protocol';
import { writePrivateFile } from './atomic-file.ts';
import { isMissing } from './key-file.ts';

export interface RotationPlan {
  /** SHA-256 (base64url) of the owner record that comes with the new secret: another one is another rotation. */
  readonly record: string;
  /** The first of the new epoch: what was ended before stays ended. */
  readonly revocations: readonly string[];
  /** Of the epoch before, with the rights they are to have. */
  readonly members: readonly ProvenMembership[];
  readonly shares: readonly ProvenShare[];
}

/** Null when there is none. @throws MeshError database_corrupt | key_unreadable; the file is left as it is */
export async function readPlan(path: string): Promise<RotationPlan | null> {
  let content: string;
  try {
    content = await readFile(path, 'utf8');
  } catch (cause) {
    if (isMissing(cause)) return null;
    throw new MeshError('key_unreadable', `${path} cannot be read`, { cause });
  }
  try {
    const plan = fields(JSON.parse(content));
    return {
      record: text(plan['record']),
      revocations: check(revocationListField, plan['revocations']),
      members: list(plan['members']).map(memberOf),
      shares: list(plan['shares']).map(shareOf),
    };
  } catch (cause) {
    throw new MeshError('database_corrupt', `${path} is damaged`, { cause });
  }
}

/** @throws MeshError storage_failed */
export async function writePlan(path: string, plan: RotationPlan): Promise<void> {
  await writePrivateFile(path, `${JSON.stringify(plan)}\n`);
}

/** Everything is done. */
export async function removePlan(path: string): Promise<void> {
  await rm(path, { force: true });
}

function memberOf(value: unknown): ProvenMembership {
  const { jti, kind, ...member } = { ...fields(value) };
  return {
    ...rightOf(member),
    ...(kind === undefined ? {} : { kind: check(deviceKind, kind) }),
    peerId: text(member['peerId']),
    jti: jti === null ? null : text(jti),
  };
}

function shareOf(value: unknown): ProvenShare {
  const share = fields(value);
  return {
    ...rightOf(share),
    cocoon: text(share['cocoon']),
    coOwner: text(share['coOwner']),
    jti: text(share['jti']),
    redemption: check(redemptionSchema, share['redemption']),
  };
}

function rightOf(value: Record<string, unknown>) {
  const end = (at: unknown): number | null => (at === null ? null : number(at));
  return {
    owner: text(value['owner']),
    epoch: number(value['epoch']),
    rights: check(rightsSchema, value['rights']),
    granted: number(value['granted']),
    expires: end(value['expires']),
    until: end(value['until']),
    serial: number(value['serial']),
    provisional: value['provisional'] === true,
    grantHash: null,
  };
}

function fields(value: unknown): Record<string, unknown> {
  if (typeof value !== 'object' || value === null) throw new TypeError('not an object');
  return value as Record<string, unknown>;
}

function list(value: unknown): readonly unknown[] {
  if (!Array.isArray(value)) throw new TypeError('not a list');
  return value;
}

function number(value: unknown): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value)) throw new TypeError('not a number');
  return value;
}

function text(value: unknown): string {
  if (typeof value !== 'string') throw new TypeError('not a text');
  return value;
}
