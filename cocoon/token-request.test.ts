import assert from 'node:assert/strict';
import { test } from 'node:test';
import { allows, createOwnerSecret, ownerKeys, randomBytes, readSetupToken } from '@cocoon-mesh/protocol';
import type { TokenRequest } from './token-request.ts';
import { signToken } from './token-request.ts';

const now = 1_800_000_000;
const plain: TokenRequest = { scope: 'enroll', expires_s: 600, admin: false, services: [], capabilities: [] };
const keys = await ownerKeys((await createOwnerSecret()).secret);
const place = { signaling: 'ws://10.0.0.1:7400/ws', receiptKey: randomBytes(32), now };

async function grantOf(request: Partial<TokenRequest>) {
  const answer = await signToken(keys, { ...plain, ...request }, place);
  return { answer, grant: (await readSetupToken(answer.token)).grant };
}

test('a token gives a member its rights, ends when asked, and says where it is redeemed', async () => {
  const { answer, grant } = await grantOf({});
  assert.equal(answer.scope, 'enroll');
  assert.equal(answer.expires_at, new Date((now + 600) * 1000).toISOString());
  assert.equal(grant.exp, now + 600);
  assert.equal(grant.until, undefined);
  assert.equal(grant.signaling, place.signaling);
  assert.ok(allows(grant.rights, 'http', 'use', 'any') && !allows(grant.rights, 'owner', 'admin', null));
});

test('a token can be narrowed to services and capabilities, dated, or given the right to administer', async () => {
  const { grant } = await grantOf({ services: ['web'], capabilities: ['llm.chat'], until: now + 9000 });
  assert.ok(allows(grant.rights, 'http', 'use', 'web') && allows(grant.rights, 'tcp', 'use', 'web'));
  assert.ok(!allows(grant.rights, 'http', 'use', 'other') && !allows(grant.rights, 'tasks', 'read', null));
  assert.equal(grant.until, now + 9000);
  assert.ok(allows((await grantOf({ admin: true })).grant.rights, 'owner', 'admin', null));
});

test('what cannot be granted is refused', async () => {
  for (const [request, code] of [
    [{ scope: 'co-own' }, 'unsupported'],
    [{ scope: 'other' }, 'usage'],
    [{ expires_s: 0 }, 'usage'],
    [{ expires_s: 1.5 }, 'usage'],
    [{ expires_s: 31 * 86_400 }, 'usage'],
    [{ admin: true, services: ['web'] }, 'usage'],
  ] as const)
    await assert.rejects(grantOf(request), { code }, JSON.stringify(request));
});
