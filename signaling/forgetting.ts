/**
 * What nobody asks for again is forgotten, so that the disk grows with those who use the server: memberships past
 * their time, tokens that nobody could redeem any more, shares that ended long ago, and of the owners that have not
 * been seen for a month all but the last ones. An owner that comes back after that is a new one to the server: its
 * devices bring their memberships, shares and revocations with them.
 */

import { limits } from '@cocoon-mesh/protocol';
import type { Kysely } from 'kysely';
import { sql } from 'kysely';
import { isRevoked } from './share-rows.ts';
import type { Db, Tables } from './tables.ts';

export interface ForgetLimits {
  /** Owners none of whose devices was seen for a month. At some 5 KiB each they take 50 MiB. */
  readonly maxIdleOwners: number;
}

const defaults: ForgetLimits = { maxIdleOwners: 10_000 };

const daySeconds = 24 * 3600;
/** A holiday. The devices of a co-owner that were away learn until then who has ended a share. */
const idleSeconds = 30 * daySeconds;
/** A device that is just signing in has been seen, and is not yet a member. */
const arrivalSeconds = 3600;
const ownersAtOnce = 500;

export async function forgetExpired(
  db: Kysely<Tables>,
  nowSeconds: number,
  { maxIdleOwners } = defaults,
): Promise<void> {
  await db.transaction().execute(async (change) => {
    await change.deleteFrom('membership').where('expires', '<=', nowSeconds).execute();
    await change
      .deleteFrom('device')
      .where('peer_id', 'not in', change.selectFrom('membership').select('peer_id'))
      .where('last_seen', '<', nowSeconds - arrivalSeconds)
      .execute();
    // A repeated redemption may come late, and chains of the token are about until then.
    const lastChain = nowSeconds - limits.provisionalMs / 1000;
    await change.deleteFrom('claim').where('expires', '<', lastChain).execute();
    await forgetShares(change, nowSeconds - idleSeconds);
  });
  // One transaction each batch: others wait for their turn meanwhile.
  for (let forgotten = ownersAtOnce; forgotten === ownersAtOnce;)
    forgotten = await forgetIdleOwners(db, nowSeconds - idleSeconds, maxIdleOwners);
}

async function forgetShares(db: Db, before: number): Promise<void> {
  await db.deleteFrom('share').where('expires', '<', before).execute();
  await db.deleteFrom('share').where(isRevoked(before)).execute();
}

/** The longest unseen first. @returns how many */
async function forgetIdleOwners(db: Kysely<Tables>, before: number, keep: number): Promise<number> {
  const lastSeen = sql<number>`coalesce(max(device.last_seen), 0)`;
  return db.transaction().execute(async (change) => {
    const idle = await change
      .selectFrom('owner')
      .leftJoin('device', 'device.owner', 'owner.id')
      .select('owner.id')
      .groupBy('owner.id')
      .having(lastSeen, '<', before)
      .orderBy(lastSeen, 'desc')
      .limit(ownersAtOnce)
      .offset(keep)
      .execute();
    const ids = idle.map(({ id }) => id);
    if (ids.length === 0) return 0;
    await change.deleteFrom('device').where('owner', 'in', ids).execute();
    for (const table of ['membership', 'revoked', 'revocation_list', 'share'] as const)
      await change.deleteFrom(table).where('owner', 'in', ids).execute();
    await change.deleteFrom('share').where('co_owner', 'in', ids).execute();
    await change.deleteFrom('owner').where('id', 'in', ids).execute();
    return ids.length;
  });
}
