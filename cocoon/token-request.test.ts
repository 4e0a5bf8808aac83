import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { TokenRequest } from '@cocoon-mesh/protocol';
import {
  MeshError,
  allows,
  coOwnerRights,
  createOwnerSecret,
  hashObject,
  ownerKeys,
  randomBytes,
  readSetupToken,
  signingKeyFromSeed,
  toBase64Url,
} from '@cocoon-mesh/protocol';
import { signToken, tokenRequestOf } from './token-request.ts';

const now = 1_800_000_000;
const plain: TokenRequest = { scope: 'enroll', expires_s: 600, admin: false, services: [], capabilities: [] };
const keys = await ownerKeys((await createOwnerSecret()).secret);
const place = { signaling: 'ws://10.0.0.1:7400/ws', receiptKey: randomBytes(32), now };
const cocoon = (await signingKeyFromSeed(randomBytes(32))).peerId;

async function grantOf(request: Partial<TokenRequest>) {
  const { answer, made } = await signToken(keys, { ...plain, ...request }, place);
  return { answer, made, ...(await readSetupToken(answer.token)) };
}

test('a token gives a member its rights, ends when asked, and says where it is redeemed', async () => {
  const { answer, grant, grantJws, made } = await grantOf({});
  assert.equal(answer.scope, 'enroll');
  assert.equal(answer.expires_at, new Date((now + 600) * 1000).toISOString());
  assert.equal(answer.jti, grant.jti);
  assert.equal(grant.exp, now + 600);
  assert.equal(grant.until, undefined);
  assert.equal(grant.signaling, place.signaling);
  assert.ok(allows(grant.rights, 'http', 'use', 'any') && !allows(grant.rights, 'owner', 'admin', null));
  const grantHash = toBase64Url(await hashObject(grantJws));
  assert.deepEqual(made, { jti: grant.jti, grantHash, expires: grant.exp });
});

test('a token can be narrowed to services and capabilities, dated, or given the right to administer', async () => {
  const { grant } = await grantOf({ services: ['web'], capabilities: ['llm.chat'], until: now + 9000 });
  assert.ok(allows(grant.rights, 'http', 'use', 'web') && allows(grant.rights, 'tcp', 'use', 'web'));
  assert.ok(!allows(grant.rights, 'http', 'use', 'other') && !allows(grant.rights, 'tasks', 'read', null));
  assert.ok(
    allows(grant.rights, 'query', 'use', 'llm.chat') && !allows(grant.rights, 'query', 'use', 'tasks'),
  );
  assert.equal(grant.until, now + 9000);
  assert.ok(allows((await grantOf({ admin: true })).grant.rights, 'owner', 'admin', null));
});

test('a token for another owner is about one cocoon, and never gives more than a co-owner has', async () => {
  const whole = (await grantOf({ scope: 'co-own', cocoon })).grant;
  assert.deepEqual([whole.scope, whole.cocoon, whole.rights], ['co-own', cocoon, coOwnerRights]);
  const { grant } = await grantOf({ scope: 'co-own', cocoon, services: ['web'] });
  assert.ok(allows(grant.rights, 'http', 'use', 'web') && !allows(grant.rights, 'http', 'use', 'other'));
  assert.ok(!allows(grant.rights, 'query', 'use', null) && !allows(grant.rights, 'tasks', 'read', null));
});

test('what cannot be granted is refused', async () => {
  const refused: readonly Partial<TokenRequest>[] = [
    { expires_s: 31 * 86_400 },
    { admin: true, services: ['web'] },
    { cocoon },
    { scope: 'co-own' },
    { scope: 'co-own', cocoon, admin: true },
  ];
  for (const request of refused)
    await assert.rejects(grantOf(request), { code: 'usage' }, JSON.stringify(request));
});

test('what is no request for a token is refused as a wrong command', () => {
  assert.deepEqual(tokenRequestOf(plain), plain);
  for (const wrong of [
    { scope: 'other' },
    { expires_s: 0 },
    { expires_s: 1.5 },
    { services: ['No Name'] },
    { capabilities: 'llm.chat' },
    { admin: 'yes' },
    { cocoon: 'server' },
  ])
    assert.throws(() => tokenRequestOf({ ...plain, ...wrong }), { code: 'usage' }, JSON.stringify(wrong));
});

test('what a person mistyped is said in the words of the command', () => {
  const said = (wrong: object): string => {
    try {
      tokenRequestOf({ ...plain, ...wrong });
    } catch (thrown) {
      if (thrown instanceof MeshError) return `${thrown.message}: ${thrown.hint}`;
    }
    return '';
  };
  assert.match(said({ scope: 'coown' }), /^There is no scope "coown": enroll .*co-own/);
  assert.match(said({ services: ['web', 'web:80'] }), /^"web:80" is not the name of a service: .*no port/);
  assert.match(said({ capabilities: ['No Name'] }), /^"No Name" is not the name of a capability: /);
});
