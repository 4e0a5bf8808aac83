import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { shareOf, shareStoreContract } from './share-store.contract.ts';
import { isNewerShare } from './share-store.ts';

const base = shareOf({ id: 'rita', epoch: 0 });
const chain = { ...base, provisional: true, serial: 0 };
describe('of two shares of a cocoon with the same owner', () => {
  for (const [what, known, shown, newer] of [
    ['the owner’s signature over its chain', chain, base, true],
    ['the chain over the owner’s signature', base, chain, false],
    ['the chain again', chain, chain, false],
    ['a higher serial', base, { ...base, serial: 2 }, true],
    ['the same serial', base, base, false],
    ['a lower serial of a new epoch', { ...base, serial: 2 }, { ...base, epoch: 1 }, true],
    ['the chain of a later grant', base, { ...chain, jti: 'other', granted: 60 }, true],
    ['the chain of an earlier grant', base, { ...chain, jti: 'other', granted: 40 }, false],
  ] as const)
    test(`${what} ${newer ? 'counts' : 'changes nothing'}`, () => {
      assert.equal(isNewerShare(known, shown), newer);
    });
});

const folder = mkdtempSync(join(tmpdir(), 'cocoon-signaling-'));
after(() => rmSync(folder, { recursive: true }));

let files = 0;
shareStoreContract('SQLite', { newUrl: async () => `sqlite:${join(folder, `${++files}.db`)}`, servers: 1 });
