import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { MeshError } from '@cocoon-mesh/protocol';
import { generateSigningKey } from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { SignJWT, decodeJwt, decodeProtectedHeader } from 'jose';
import { AccessTokens } from './access-token.ts';

test('a token signed by our own key is refused when it is of another type, audience or issuer, has no end, or is too large', async () => {
  const key = await generateSigningKey();
  const clock = new SteppedClock();
  const tokens = await AccessTokens.create({ key, issuer: 'urn:test', lifetimeSeconds: 900, clock });
  const peer = await generateSigningKey();
  const { token } = await tokens.signForClaims(peer.peerId);
  assert.deepEqual(await tokens.verify(token), { scope: 'claims', peerId: peer.peerId });
  const header = { ...decodeProtectedHeader(token), alg: 'EdDSA' };
  const claims = decodeJwt(token);
  const { exp: _, ...endless } = claims;
  const wrong = [
    [{ ...header, typ: 'receipt' }, claims],
    [{ ...header, typ: 'JWT' }, claims],
    [header, { ...claims, aud: 'urn:test' }],
    [header, { ...claims, iss: 'urn:other' }],
    [header, endless],
    [{ ...header, kid: 'unknown' }, claims],
    [header, { ...claims, ballast: 'x'.repeat(4096) }],
  ] as const;
  for (const [protectedHeader, payload] of wrong) {
    const jwt = await new SignJWT(payload).setProtectedHeader(protectedHeader).sign(key.privateKey);
    await assert.rejects(tokens.verify(jwt), (error: MeshError) => error.code === 'unauthorized');
  }
});
