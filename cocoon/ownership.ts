/**
 * To whom this device belongs when it starts: what the home says, what a token or a secret asks for, and whether
 * the two go together. A device without any of them becomes its own owner. Redeeming a token is the mesh's
 * matter; this file decides whether it is to be redeemed at all.
 */

import type { OwnerKeys, SetupToken, SigningKey } from '@cocoon-mesh/protocol';
import {
  MeshError,
  adminRights,
  createOwnerSecret,
  memberRights,
  ownerKeys,
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
  /** To be redeemed at the first sign-in. */
  readonly token: SetupToken | null;
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

/**
 * @throws MeshError token_malformed | token_invalid | already_owned | unsupported | key_exposed | key_unreadable |
 * key_corrupt | storage_failed
 */
export async function settleOwnership(request: OwnershipRequest): Promise<Ownership> {
  // Both are read before anything is changed.
  const token = await tokenOf(request);
  if (token && token.grant.scope !== 'enroll')
    throw new MeshError(
      'unsupported',
      'This token shares a cocoon with another owner, which this version cannot do yet',
      {
        hint: 'To add a device of your own use a token made with `cocoon generate-token`.',
      },
    );
  const keys = await adoptSecret(request, await storedKeys(request));
  const owned = token ? await withToken(request, keys, token) : null;
  if (owned) return owned;
  const notes = token ? ['The setup token is not needed: this device belongs to that owner already.'] : [];
  if (keys) {
    await holdMembership(request, keys);
    return { keys, token: null, recoveryCode: null, notes };
  }
  if (request.owners.owners.membership) return { keys: null, token: null, recoveryCode: null, notes };
  return { ...(await becomeOwner(request)), notes };
}

/** A service manager that starts the device again may have no token to hand over any more. */
async function tokenOf({ token, owners }: OwnershipRequest): Promise<SetupToken | null> {
  if (token === null || (token === '' && owners.owners.membership)) return null;
  return readSetupToken(token);
}

/** After the token was redeemed: the secret of the self-made owner it replaced is no longer this device's. */
export async function retireSecret(home: Home): Promise<void> {
  if ((await readKeyFile(home.secret)) !== null) await rename(home.secret, home.replacedSecret);
}

/** What to do with a token, or null when it changes nothing. */
async function withToken(
  { owners }: OwnershipRequest,
  keys: OwnerKeys | null,
  token: SetupToken,
): Promise<Ownership | null> {
  const { membership, redeemed, selfMade, hasOtherDevices } = owners.owners;
  if (redeemed.includes(token.grant.jti) && membership) return null;
  const redeemIt = { keys: null, token, recoveryCode: null, notes: [] };
  if (keys) {
    if (keys.id === token.owner.id) return null;
    if (selfMade && !hasOtherDevices) return redeemIt;
    throw alreadyOwned(keys.id);
  }
  if (!membership) return redeemIt;
  const current = await ownerOf(owners);
  // A new token of the same owner prolongs or widens what the device has.
  if (current === token.owner.id) return redeemIt;
  throw alreadyOwned(current);
}

function alreadyOwned(owner: string): MeshError {
  return new MeshError('already_owned', `This device already belongs to the owner ${owner}`);
}

async function storedKeys({ home, owners }: OwnershipRequest): Promise<OwnerKeys | null> {
  const text = await readKeyFile(home.secret);
  if (text === null) return null;
  const keys = await keysOf(text, home.secret);
  const { membership } = owners.owners;
  if (!membership || (await ownerOf(owners)) === keys.id) return keys;
  // The process ended between redeeming a token and putting the old secret away.
  await retireSecret(home);
  return null;
}

async function keysOf(text: string, where: string): Promise<OwnerKeys> {
  try {
    return await ownerKeys(await secretFromText(text));
  } catch (cause) {
    const why = cause instanceof MeshError ? `: ${cause.message}` : '';
    throw new MeshError('key_corrupt', `${where} does not hold a secret${why}`, { cause });
  }
}

/** COCOON_SECRET: this device is that owner's. */
async function adoptSecret(request: OwnershipRequest, keys: OwnerKeys | null): Promise<OwnerKeys | null> {
  const { home, owners, secret } = request;
  if (secret === null) return keys;
  const wanted = await keysOf(secret, 'COCOON_SECRET');
  if (keys?.id === wanted.id) return keys;
  const { membership, selfMade, hasOtherDevices } = owners.owners;
  const current = membership ? await ownerOf(owners) : null;
  if (current !== null && current !== wanted.id && !(selfMade && !hasOtherDevices))
    throw alreadyOwned(current);
  await retireSecret(home);
  await writePrivateFile(home.secret, `${secret.trim()}\n`);
  return wanted;
}

/** A holder of the secret signs its own membership, once per owner and epoch. */
async function holdMembership({ owners, key, now }: OwnershipRequest, keys: OwnerKeys): Promise<void> {
  const { membership, selfMade } = owners.owners;
  const held = membership ? await verifyMembership(membership, key.peerId, now).catch(() => null) : null;
  if (held && !held.provisional && held.owner === keys.id && held.epoch === keys.epoch) return;
  await owners.belongTo(
    await ownMembership(keys, key, now),
    selfMade && (held === null || held.owner === keys.id),
  );
}

async function becomeOwner({ home, owners, key, now }: OwnershipRequest): Promise<Omit<Ownership, 'notes'>> {
  const { secret, recoveryCode } = await createOwnerSecret();
  const keys = await ownerKeys(secret);
  await writePrivateFile(home.secret, `${await secretToText(secret)}\n`);
  await owners.belongTo(await ownMembership(keys, key, now), true);
  return { keys, token: null, recoveryCode };
}

async function ownMembership(keys: OwnerKeys, key: SigningKey, now: number) {
  const rights = [...memberRights, ...adminRights];
  // Serials rise with each membership of a device; the time does so without being stored.
  return signMembership(keys, { peerId: key.peerId, serial: now, rights, now });
}

async function ownerOf(owners: OwnersFile): Promise<string> {
  const { membership } = owners.owners;
  if (!membership) return '';
  const records = membership.kind === 'membership' ? membership.records : membership.redemption.records;
  return (await verifyOwnerRecords(records)).id;
}
