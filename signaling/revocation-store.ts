/** Lists of revocations as they are handed out, and what they end, as it is asked for. */

import type { Revocation } from '@cocoon-mesh/protocol';
import { MeshError, limits } from '@cocoon-mesh/protocol';
import type { Db } from './tables.ts';

export interface RevocationList {
  /** Of the key that signed it. */
  readonly epoch: number;
  readonly list: readonly string[];
}

/** What is told of an owner: the list is of the epoch of the records. */
export interface OwnerNews {
  readonly owner: string;
  readonly records: string[];
  readonly list: string[];
}

/** Rows of one statement; SQLite takes 32,766 values. */
const rowsAtOnce = 1000;

/** Of a right: only revocations of its epoch or a later one end it. */
export interface RevocableRow {
  readonly owner: string;
  readonly peerId: string;
  readonly jti: string | null;
  readonly epoch: number;
}

export async function isRevoked(db: Db, { owner, peerId, jti, epoch }: RevocableRow): Promise<boolean> {
  const rows = await db
    .selectFrom('revoked')
    .select('kind')
    .where('owner', '=', owner)
    .where('epoch', '>=', epoch)
    .where((where) =>
      where.or([
        where.and([where('kind', '=', 'device'), where('subject', '=', peerId)]),
        where.and([where('kind', '=', 'token'), where('subject', '=', jti ?? '')]),
      ]),
    )
    .execute();
  return rows.length > 0;
}

/** @throws MeshError revoked */
export async function assertNotRevoked(db: Db, right: RevocableRow): Promise<void> {
  if (await isRevoked(db, right)) throw new MeshError('revoked');
}

export async function revocationsOf(db: Db, owner: string): Promise<RevocationList | null> {
  const row = await db
    .selectFrom('revocation_list')
    .select(['epoch', 'entries'])
    .where('owner', '=', owner)
    .executeTakeFirst();
  return row ? { epoch: row.epoch, list: JSON.parse(row.entries) as string[] } : null;
}

/** Of those owners about whom there is anything to tell: revocations, or a rotation. In the order of `owners`. */
export async function newsOf(db: Db, owners: readonly string[]): Promise<OwnerNews[]> {
  if (owners.length === 0) return [];
  const rows = await db
    .selectFrom('owner')
    .leftJoin('revocation_list', 'revocation_list.owner', 'owner.id')
    .select(['owner.id', 'owner.epoch', 'owner.records'])
    .select(['revocation_list.epoch as list_epoch', 'revocation_list.entries'])
    .where('owner.id', 'in', owners)
    .execute();
  return rows
    .map((row) => ({
      owner: row.id,
      records: JSON.parse(row.records) as string[],
      // A list of the epoch before is signed by a key that counts no more.
      list: row.list_epoch === row.epoch ? (JSON.parse(row.entries ?? '[]') as string[]) : [],
    }))
    .filter(({ records, list }) => list.length > 0 || records.length > 1)
    .toSorted((a, b) => owners.indexOf(a.owner) - owners.indexOf(b.owner));
}

/**
 * Remembers every entry for good, and the list when it goes further than the one that is known.
 * @returns whether it does
 * @throws MeshError overloaded
 */
export async function addRevocations(
  db: Db,
  owner: string,
  { epoch, list }: RevocationList,
  entries: readonly Revocation[],
): Promise<boolean> {
  await saveEntries(db, owner, epoch, entries);
  await assertFew(db, owner, epoch);
  const known = await revocationsOf(db, owner);
  // A new epoch starts its list anew, for it is signed by a new key.
  const further = known?.epoch === epoch ? list.length > known.list.length : epoch > (known?.epoch ?? -1);
  if (!further) return false;
  const row = { owner, epoch, entries: JSON.stringify(list) };
  await db
    .insertInto('revocation_list')
    .values(row)
    .onConflict((conflict) => conflict.column('owner').doUpdateSet(row))
    .execute();
  return true;
}

/** Lists that contradict each other, as two devices may sign them unaware, are few; a store full of them is an attack. */
async function assertFew(db: Db, owner: string, epoch: number): Promise<void> {
  const { count } = await db
    .selectFrom('revoked')
    .select((select) => select.fn.countAll().as('count'))
    .where('owner', '=', owner)
    .where('epoch', '=', epoch)
    .executeTakeFirstOrThrow();
  if (Number(count) > 2 * limits.maxRevocations)
    throw new MeshError('overloaded', 'The owner has too many revocations');
}

/** Of several entries about the same subject the latest counts: it ends the most. */
async function saveEntries(
  db: Db,
  owner: string,
  epoch: number,
  entries: readonly Revocation[],
): Promise<void> {
  const latest = new Map<
    string,
    { owner: string; kind: string; subject: string; epoch: number; iat: number }
  >();
  for (const { kind, subject, iat } of entries) {
    const key = `${kind} ${subject}`;
    if (iat >= (latest.get(key)?.iat ?? 0)) latest.set(key, { owner, kind, subject, epoch, iat });
  }
  const rows = [...latest.values()];
  for (let start = 0; start < rows.length; start += rowsAtOnce)
    await db
      .insertInto('revoked')
      .values(rows.slice(start, start + rowsAtOnce))
      .onConflict((conflict) =>
        conflict
          .columns(['owner', 'kind', 'subject', 'epoch'])
          .doUpdateSet((set) => ({ iat: set.ref('excluded.iat') }))
          .whereRef('revoked.iat', '<', 'excluded.iat'),
      )
      .execute();
}
