import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import type { MembershipProof } from '@cocoon-mesh/protocol';
import { storeContract } from './store.contract.ts';
import type { StoredMembership } from './store.ts';
import { newerMembership } from './store.ts';

const proof: MembershipProof = { kind: 'membership', records: [], membership: 'a.b.c' };
const base: StoredMembership = {
  owner: 'own',
  peerId: 'peer',
  epoch: 0,
  serial: 1,
  provisional: false,
  expires: null,
  jti: 'token',
  proof,
};
const claim: StoredMembership = { ...base, serial: 0, provisional: true };

describe('of two memberships of a device', () => {
  for (const [what, known, shown, counts] of [
    ['a first one', null, claim, 'shown'],
    ['a higher serial', base, { ...base, serial: 2 }, 'shown'],
    ['a lower serial', { ...base, serial: 2 }, base, 'known'],
    ['a lower serial of a new epoch', { ...base, serial: 2 }, { ...base, epoch: 1 }, 'shown'],
    ['a membership after the claim', claim, base, 'shown'],
    ['the claim that a membership replaced', base, claim, 'known'],
    ['a claim by another token', base, { ...claim, jti: 'other' }, 'shown'],
  ] as const)
    test(`${what}: the one that is ${counts} counts`, () => {
      const expected = counts === 'known' ? known : shown;
      assert.equal(newerMembership(known, shown), expected);
    });
});

const folder = mkdtempSync(join(tmpdir(), 'cocoon-signaling-'));
after(() => rmSync(folder, { recursive: true }));

let files = 0;
storeContract('SQLite', { newUrl: async () => `sqlite:${join(folder, `${++files}.db`)}`, servers: 1 });
