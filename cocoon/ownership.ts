/**
 * To whom this device belongs when it starts: what the home says, what a token or a secret asks for, and whether
 * the two go together. A device without any of them becomes its own owner. Redeeming a token is the mesh's
 * matter; this file decides whether it is to be redeemed at all.
 */

import type { OwnerKeys, OwnerRecords, SetupToken, SigningKey } from '@cocoon-mesh/protocol';
import {
  MeshError,
  adminRights,
  allows,
  createOwnerSecret,
  memberRights,
  ownerKeys,
  ownerRecordsField,
  readSetupToken,
  secretFromText,
  secretToText,
  signMembership,
  verifyMembership,
  verifyOwnerRecords,
} from '@cocoon-mesh/protocol';
import { rename } from 'node:fs/promises';
import { writePrivateFile } from './atomic-file.ts';
import type { Home } from './home.ts';
import { readKeyFile } from './key-file.ts';
import type { OwnersFile } from './mesh-store.ts';

export interface Ownership {
  /** This device can sign grants. Null while a token that replaces the owner is not redeemed. */
  readonly keys: OwnerKeys | null;
  /** To be redeemed at the first sign-in: it makes this device somebody. */
  readonly token: SetupToken | null;
  /** To be redeemed by this device's owner once it is signed in: another owner shares a cocoon. */
  readonly claim: SetupToken | null;
  /** Of an owner that was made just now; shown once and kept nowhere. */
  readonly recoveryCode: string | null;
  /** Said at the start. */
  readonly notes: readonly string[];
}

export interface OwnershipRequest {
  readonly home: Home;
  readonly owners: OwnersFile;
  readonly key: SigningKey;
  /** A setup token. */
  readonly token: string | null;
  /** A secret to adopt. */
  readonly secret: string | null;
  /** Seconds since 1970. */
  readonly now: number;
}

export const outdatedSecretNote =
  'The secret of this owner was replaced on another device: this one is a plain device of it now. To have it sign again give it the new secret with `cocoon secret use`.';

/**
 * @throws MeshError token_malformed | token_invalid | already_owned | owner_key_offline | key_exposed |
 * key_unreadable | key_corrupt | storage_failed
 */
export async function settleOwnership(request: OwnershipRequest): Promise<Ownership> {
  const notes: string[] = [];
  // Both are read before anything is changed.
  const token = await tokenOf(request);
  const wanted = request.secret === null ? null : await keysOf(request.secret, 'COCOON_SECRET');
  const stored = await storedKeys(request, notes);
  const keys = wanted ? await adoptAtStart(request, wanted, stored, notes) : stored;
  if (token?.grant.scope === 'enroll') {
    const owned = await withToken(request, keys, token, notes);
    if (owned) return owned;
  }
  const claim = token?.grant.scope === 'co-own' ? await claimOf(request, keys, token, notes) : null;
  if (keys) {
    await holdMembership(request, keys);
    return { keys, token: null, claim, recoveryCode: null, notes };
  }
  if (request.owners.owners.membership) return { keys: null, token: null, claim, recoveryCode: null, notes };
  return { ...(await becomeOwner(request)), claim, notes };
}

/**
 * This device is the owner of this secret from its next start on.
 * @returns the owner's id
 * @throws MeshError key_corrupt saying what is wrong | already_owned | storage_failed
 */
export async function useSecret(request: OwnershipRequest & { readonly secret: string }): Promise<string> {
  const wanted = await keysOf(request.secret, 'The input');
  if (await isOutdated(request.owners, wanted))
    throw new MeshError('key_corrupt', 'This secret was replaced by a newer one of the same owner', {
      hint: 'See `cocoon secret show` on the device on which it was rotated.',
    });
  const keys = await adoptSecret(request, wanted, await storedKeys(request, []));
  await holdMembership(request, keys);
  return keys.id;
}

/** After the token was redeemed: the secret of the self-made owner it replaced is no longer this device's. */
export async function retireSecret(home: Home): Promise<void> {
  if ((await readKeyFile(home.secret)) !== null) await rename(home.secret, home.replacedSecret);
}

/** Puts a secret in the place of the one there is, which is kept beside. There is one at every moment. */
export async function replaceSecret(home: Home, text: string): Promise<void> {
  const before = await readKeyFile(home.secret);
  if (before !== null) await writePrivateFile(home.replacedSecret, `${before}\n`);
  await writePrivateFile(home.secret, `${text.trim()}\n`);
}

/** A service manager that starts the device again may have no token to hand over any more. */
async function tokenOf({ token, owners }: OwnershipRequest): Promise<SetupToken | null> {
  if (token === null || (token === '' && owners.owners.membership)) return null;
  return readSetupToken(token);
}

/** What to do with a token for a device, or null when it changes nothing. */
async function withToken(
  { owners }: OwnershipRequest,
  keys: OwnerKeys | null,
  token: SetupToken,
  notes: string[],
): Promise<Ownership | null> {
  const { membership, redeemed, selfMade, hasOtherDevices } = owners.owners;
  const redeemIt = { keys: null, token, claim: null, recoveryCode: null, notes };
  const notNeeded = (): null => {
    notes.push('The setup token is not needed: this device belongs to that owner already.');
    return null;
  };
  if (redeemed.includes(token.grant.jti) && membership) return notNeeded();
  if (keys) {
    if (keys.id === token.owner.id) return notNeeded();
    if (selfMade && !hasOtherDevices) return redeemIt;
    throw alreadyOwned(keys.id);
  }
  if (!membership) return redeemIt;
  const current = await ownerOf(owners);
  // A new token of the same owner prolongs or widens what the device has.
  if (current === token.owner.id) return redeemIt;
  throw alreadyOwned(current);
}

/** What to do with a token for another owner, or null when it changes nothing. */
async function claimOf(
  { owners }: OwnershipRequest,
  keys: OwnerKeys | null,
  token: SetupToken,
  notes: string[],
): Promise<SetupToken | null> {
  const { membership, redeemed } = owners.owners;
  if (redeemed.includes(token.grant.jti)) {
    notes.push('The setup token is not needed: this device has redeemed it before.');
    return null;
  }
  if (membership && (await ownerOf(owners)) === token.owner.id) {
    notes.push('The setup token is not needed: the cocoon it shares is of this owner already.');
    return null;
  }
  if (membership && !keys)
    throw new MeshError(
      'owner_key_offline',
      'This device does not hold the secret of its owner, who would claim',
      {
        hint: 'Run `cocoon claim` on the device on which you ran `cocoon up` first; all of your devices reach the cocoon then.',
      },
    );
  return token;
}

function alreadyOwned(owner: string): MeshError {
  return new MeshError('already_owned', `This device already belongs to the owner ${owner}`);
}

async function storedKeys({ home, owners }: OwnershipRequest, notes: string[]): Promise<OwnerKeys | null> {
  const text = await readKeyFile(home.secret);
  if (text === null) return null;
  const keys = await keysOf(text, home.secret, restoreHint);
  const { membership } = owners.owners;
  if (membership && (await ownerOf(owners)) !== keys.id) {
    // The process ended between redeeming a token and putting the old secret away.
    await retireSecret(home);
    return null;
  }
  if (!(await isOutdated(owners, keys))) return keys;
  await retireSecret(home);
  notes.push(outdatedSecretNote);
  return null;
}

/** @param hint for what nobody has just typed; default: what to do about the text itself */
async function keysOf(text: string, where: string, hint?: string): Promise<OwnerKeys> {
  try {
    return await ownerKeys(await secretFromText(text));
  } catch (cause) {
    const known = cause instanceof MeshError ? cause : null;
    const next = hint ?? known?.hint;
    throw new MeshError(
      'key_corrupt',
      `${where} does not hold a secret${known ? `: ${known.message}` : ''}`,
      {
        cause,
        ...(next === undefined ? {} : { hint: next }),
      },
    );
  }
}

/** A damaged file of the home. */
const restoreHint = 'Restore the file from a backup, or write the secret that you kept elsewhere into it.';

/** COCOON_SECRET: this device is that owner's. A start does not fail for one that was replaced since. */
async function adoptAtStart(
  request: OwnershipRequest,
  wanted: OwnerKeys,
  stored: OwnerKeys | null,
  notes: string[],
): Promise<OwnerKeys | null> {
  const isOlder = stored?.id === wanted.id && stored.epoch > wanted.epoch;
  if (!isOlder && !(await isOutdated(request.owners, wanted))) return adoptSecret(request, wanted, stored);
  notes.push('COCOON_SECRET is ignored: a newer secret of this owner is known.');
  return stored;
}

/** @throws MeshError already_owned | storage_failed */
async function adoptSecret(
  { home, owners, secret }: OwnershipRequest,
  wanted: OwnerKeys,
  stored: OwnerKeys | null,
): Promise<OwnerKeys> {
  if (stored?.id === wanted.id && stored.epoch >= wanted.epoch) return stored;
  const { membership, selfMade, hasOtherDevices } = owners.owners;
  const current = membership ? await ownerOf(owners) : null;
  if (current !== null && current !== wanted.id && !(selfMade && !hasOtherDevices))
    throw alreadyOwned(current);
  await replaceSecret(home, secret ?? '');
  return wanted;
}

/** Does this device know of a newer secret of the same owner? */
async function isOutdated(owners: OwnersFile, keys: OwnerKeys): Promise<boolean> {
  for (const records of [membershipRecords(owners), trustedRecords(owners, keys.id)]) {
    if (records.length <= keys.records.length) continue;
    const newest = await verifyOwnerRecords(records).catch(() => null);
    if (newest?.id === keys.id && newest.epoch > keys.epoch) return true;
  }
  return false;
}

/** The mesh's own notes: what does not look like records of an owner is its matter to complain about. */
function trustedRecords({ owners }: OwnersFile, id: string): OwnerRecords {
  const known = fieldOf(fieldOf(fieldOf(owners.trust, 'owners'), id), 'records');
  const records = ownerRecordsField.safeParse(known);
  return records.success ? records.data : [];
}

function fieldOf(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null && Object.hasOwn(value, name)
    ? (value as Record<string, unknown>)[name]
    : undefined;
}

/** A holder of the secret signs its own membership, once per owner and epoch. */
async function holdMembership({ owners, key, now }: OwnershipRequest, keys: OwnerKeys): Promise<void> {
  const { membership, selfMade } = owners.owners;
  const held = membership ? await verifyMembership(membership, key.peerId, now).catch(() => null) : null;
  const isSigned = held && !held.provisional && held.owner === keys.id && held.epoch === keys.epoch;
  // Without the right nobody asks it to sign, as it could have been given the secret after its membership.
  if (isSigned && allows(held.rights, 'owner', 'admin', null)) return;
  const serial = Math.max(now, (held?.serial ?? 0) + 1);
  await owners.belongTo(
    await ownMembership(keys, key, serial, now),
    selfMade && (held === null || held.owner === keys.id),
  );
}

async function becomeOwner({
  home,
  owners,
  key,
  now,
}: OwnershipRequest): Promise<Pick<Ownership, 'keys' | 'token' | 'recoveryCode'>> {
  const { secret, recoveryCode } = await createOwnerSecret();
  const keys = await ownerKeys(secret);
  await writePrivateFile(home.secret, `${await secretToText(secret)}\n`);
  await owners.belongTo(await ownMembership(keys, key, now, now), true);
  return { keys, token: null, recoveryCode };
}

/** @param serial rises with each membership of a device; the time does so without being stored */
async function ownMembership(keys: OwnerKeys, key: SigningKey, serial: number, now: number) {
  const rights = [...memberRights, ...adminRights];
  return signMembership(keys, { peerId: key.peerId, serial, kind: 'cocoon', rights, now });
}

async function ownerOf(owners: OwnersFile): Promise<string> {
  const records = membershipRecords(owners);
  return records.length === 0 ? '' : (await verifyOwnerRecords(records)).id;
}

function membershipRecords({ owners: { membership } }: OwnersFile): OwnerRecords {
  if (!membership) return [];
  return membership.kind === 'membership' ? membership.records : membership.redemption.records;
}
