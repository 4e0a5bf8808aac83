import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LastSeen } from './last-seen.ts';
import { openDatabase } from './open-database.ts';

test('devices that leave together are written together, each with its own time, the latest of one counting', async () => {
  const db = await openDatabase('sqlite::memory:');
  try {
    const row = (peerId: string) => ({ peer_id: peerId, seq: 1, record: '', last_seen: 0, owner: null });
    const names = Array.from({ length: 100 }, (_, n) => `peer-${n}`);
    await db.insertInto('device').values(names.map(row)).execute();
    let writes = 0;
    const counted = db.withPlugin({
      transformQuery: ({ node }) => {
        writes++;
        return node;
      },
      transformResult: async ({ result }) => result,
    });
    const lastSeen = new LastSeen(counted);
    const first = names.map((name) => lastSeen.note(name, 7));
    const again = [lastSeen.note('peer-0', 8), lastSeen.note('peer-1', 8)];
    await Promise.all([...first, ...again]);
    assert.equal(writes, 2);
    await lastSeen.note('peer-2', 9);
    const rows = await db.selectFrom('device').select(['peer_id', 'last_seen']).execute();
    const times = new Map(rows.map((each) => [each.peer_id, each.last_seen]));
    assert.deepEqual(
      ['peer-0', 'peer-1', 'peer-2', 'peer-99'].map((name) => times.get(name)),
      [8, 8, 9, 7],
    );
  } finally {
    await db.destroy();
  }
});
