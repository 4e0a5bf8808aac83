/** Owners by their newest records: what is void after a rotation. Inside of a transaction of the store. */

import type { MembershipProof, NewestRecord, Owner, ShareProof } from '@cocoon-mesh/protocol';
import { MeshError, hashObject, isOutdated, toBase64Url } from '@cocoon-mesh/protocol';
import type { Db } from './tables.ts';

export interface StoredOwner extends NewestRecord {
  readonly publicKey: string;
  readonly records: string[];
}

export async function ownerOf(db: Db, id: string): Promise<StoredOwner | null> {
  const row = await db.selectFrom('owner').selectAll().where('id', '=', id).executeTakeFirst();
  if (!row) return null;
  return {
    epoch: row.epoch,
    publicKey: row.public_key,
    records: JSON.parse(row.records) as string[],
    keeps: JSON.parse(row.keeps) as string[],
  };
}

/**
 * Keeps the newest records of an owner.
 * @throws MeshError membership_invalid when there is another secret of the same epoch: the first one counts
 */
export async function keepOwner(db: Db, owner: Owner): Promise<NewestRecord> {
  const publicKey = toBase64Url(owner.publicKey);
  const known = await ownerOf(db, owner.id);
  if (known && known.epoch === owner.epoch && known.publicKey !== publicKey)
    throw new MeshError('membership_invalid', 'The owner has another secret of the same epoch');
  if (known && known.epoch >= owner.epoch) return known;
  const row = {
    id: owner.id,
    epoch: owner.epoch,
    public_key: publicKey,
    records: JSON.stringify(owner.records),
    keeps: JSON.stringify(owner.keeps),
  };
  await db
    .insertInto('owner')
    .values(row)
    .onConflict((conflict) => conflict.column('id').doUpdateSet(row))
    .execute();
  return owner;
}

/** Was what the store has signed before the last rotation, and not kept by it? */
export async function isVoid(
  stored: { readonly epoch: number; readonly proof: MembershipProof | ShareProof },
  newest: NewestRecord,
): Promise<boolean> {
  const { epoch, proof } = stored;
  if (epoch >= newest.epoch) return false;
  const grantHash = proof.kind === 'claim' ? toBase64Url(await hashObject(proof.redemption.grant)) : null;
  return isOutdated({ epoch, grantHash }, newest);
}

export function outdated(): MeshError {
  return new MeshError('membership_invalid', 'The owner has a newer secret; ask for a new membership');
}
