/** What somebody may show in the place of an access token, against a running server over HTTP. */

import assert from 'node:assert/strict';
import { createHmac, createPublicKey } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import type { IncomingMessage } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { describe, test } from 'node:test';
import type { SigningKey } from '@cocoon-mesh/protocol';
import { fromBase64Url, generateSigningKey, signingKeyFromSeed } from '@cocoon-mesh/protocol';
import Sqlite from 'better-sqlite3';
import { SignJWT, decodeJwt, decodeProtectedHeader, generateKeyPair } from 'jose';
import { defaultLimits } from './server-limits.ts';
import type { TestServer } from './test-client.ts';
import { TestPeer, newDevice, newOwner, newRecord, newRedemption, startTestServer } from './test-client.ts';

interface Answer {
  readonly status: number;
  readonly type: string;
  readonly code: string;
}

/** With the token as it is: `fetch` would not send all of these. */
async function ask({ server }: TestServer, token: string): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  const request = httpRequest(`${server.httpUrl}/cocoons`, {
    headers: { authorization: `Bearer ${token}` },
    agent: false,
  });
  request.once('response', resolve);
  request.on('error', reject);
  request.end();
  const response = await promise;
  const body = JSON.parse(await text(response)) as { code?: string };
  const type = response.headers['content-type']?.split(';')[0] ?? '';
  return { status: response.statusCode ?? 0, type, code: body.code ?? '' };
}

interface Scene {
  readonly run: TestServer;
  readonly token: string;
  /** The server's own. */
  readonly key: SigningKey;
  /** Signed by the server's own key. */
  readonly sign: (header: object, claims: object) => Promise<string>;
}

async function withScene(body: (scene: Scene) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'cocoon-attacks-'));
  const path = join(folder, 'signaling.db');
  try {
    await using run = await startTestServer({ databaseUrl: `sqlite:${path}` });
    const { welcome } = await TestPeer.member(run.server.url, await newDevice(await newOwner(), run.clock));
    const token = welcome.access_token;
    const database = new Sqlite(path, { readonly: true });
    const { seed } = database.prepare('select seed from access_key').get() as { seed: string };
    database.close();
    const key = await signingKeyFromSeed(fromBase64Url(seed));
    const header = decodeProtectedHeader(token);
    const sign = (more: object, claims: object): Promise<string> =>
      new SignJWT({ ...claims })
        .setProtectedHeader({ ...header, alg: 'EdDSA', ...more })
        .sign(key.privateKey, { crit: { 'urn:new': true } });
    await body({ run, token, key, sign });
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function assertRefused({ run, token }: Scene, attempts: Record<string, string>): Promise<void> {
  const refusal = { status: 401, type: 'application/problem+json', code: 'unauthorized' };
  for (const [what, attempt] of Object.entries(attempts)) {
    assert.deepEqual(await ask(run, attempt), refusal, what);
    const [, payload = ''] = attempt.split('.');
    if (payload.length > 8)
      assert.ok(!run.logged.some((line) => line.includes(payload)), `${what} is logged`);
  }
  assert.equal((await ask(run, token)).status, 200);
}

const json = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');

describe('in place of an access token', () => {
  test('no algorithm, another algorithm and the public key as a password are refused', async () => {
    await withScene(async (scene) => {
      const { run, token, key } = scene;
      const [, payload = '', signature = ''] = token.split('.');
      const header = decodeProtectedHeader(token);
      const { keys } = (await (await fetch(`${run.server.httpUrl}/.well-known/jwks.json`)).json()) as {
        keys: Record<string, string>[];
      };
      const [jwk = {}] = keys;
      assert.deepEqual([...fromBase64Url(jwk['x'] ?? '')], [...key.publicKey]);
      const publicKey = createPublicKey({ key: jwk, format: 'jwk' });
      const passwords: Record<string, Uint8Array | string> = {
        'raw bytes': key.publicKey,
        'base64url text': jwk['x'] ?? '',
        'base64 text': Buffer.from(key.publicKey).toString('base64'),
        'hexadecimal text': Buffer.from(key.publicKey).toString('hex'),
        JWK: JSON.stringify(jwk),
        'the smallest JWK': JSON.stringify({ crv: jwk['crv'], kty: jwk['kty'], x: jwk['x'] }),
        'the set of JWKs': JSON.stringify({ keys }),
        PEM: publicKey.export({ type: 'spki', format: 'pem' }),
        'PEM without its last line end': publicKey.export({ type: 'spki', format: 'pem' }).toString().trim(),
        DER: publicKey.export({ type: 'spki', format: 'der' }),
        'nothing at all': '',
      };
      const attempts: Record<string, string> = {};
      for (const alg of ['none', 'None', 'NONE', '']) {
        attempts[`alg ${alg}`] = `${json({ ...header, alg })}.${payload}.`;
        attempts[`alg ${alg} with the signature`] = `${json({ ...header, alg })}.${payload}.${signature}`;
      }
      for (const [name, password] of Object.entries(passwords))
        for (const [alg, hash] of [
          ['HS256', 'sha256'],
          ['HS384', 'sha384'],
          ['HS512', 'sha512'],
        ] as const) {
          const head = json({ ...header, alg });
          const mac = createHmac(hash, password).update(`${head}.${payload}`).digest('base64url');
          attempts[`${alg} with the public key as ${name}`] = `${head}.${payload}.${mac}`;
        }
      for (const alg of ['ES256', 'RS256', 'PS256']) {
        const { privateKey } = await generateKeyPair(alg);
        attempts[alg] = await new SignJWT(decodeJwt(token))
          .setProtectedHeader({ ...header, alg })
          .sign(privateKey);
      }
      await assertRefused(scene, attempts);
    });
  });

  test('what bears the right signature and says something else is refused', async () => {
    await withScene(async (scene) => {
      const { token, sign } = scene;
      const claims = decodeJwt(token);
      const now = claims.iat ?? 0;
      const without = (name: string): object =>
        Object.fromEntries(Object.entries(claims).filter(([each]) => each !== name));
      const attempts: Record<string, string> = {
        'for another audience': await sign({}, { ...claims, aud: 'https://signaling.example' }),
        'of another issuer': await sign({}, { ...claims, iss: 'https://signaling.example' }),
        'that has ended': await sign({}, { ...claims, iat: now - 900, nbf: now - 900, exp: now - 30 }),
        'made in the future': await sign({}, { ...claims, iat: now + 31, exp: now + 931 }),
        'valid in the future': await sign({}, { ...claims, nbf: now + 31 }),
        'for ever': await sign({}, { ...claims, iat: now - 3600, exp: now + 10 * 365 * 86_400 }),
        'of another type': await sign({ typ: 'receipt' }, claims),
        'with an extension': await sign({ crit: ['urn:new'], 'urn:new': 1 }, claims),
      };
      for (const name of Object.keys(claims))
        if (!['epoch', 'scope', 'membership_jti'].includes(name))
          attempts[`without ${name}`] = await sign({}, without(name));
      attempts['without scope'] = await sign({}, without('scope'));
      attempts['without epoch'] = await sign({}, without('epoch'));
      await assertRefused(scene, attempts);
      const nearly = { ...claims, iat: now + 29, nbf: now + 29 };
      assert.equal((await ask(scene.run, await sign({}, nearly))).status, 200);
    });
  });

  test('names of keys lead nowhere', async () => {
    await withScene(async (scene) => {
      const { token, key } = scene;
      const forger = await generateSigningKey();
      const { kid = '' } = decodeProtectedHeader(token);
      const { privateKey } = forger;
      const forged = (more: object): Promise<string> =>
        new SignJWT(decodeJwt(token))
          .setProtectedHeader({ typ: 'access', kid, ...more, alg: 'EdDSA' })
          .sign(privateKey);
      const attempts: Record<string, string> = {
        'another key': await forged({}),
        'a key in the head': await forged({ jwk: { kty: 'OKP', crv: 'Ed25519', x: key.publicKey } }),
        'an address of keys': await forged({ jku: 'http://127.0.0.1:1/jwks.json' }),
      };
      for (const name of [
        'unknown',
        '',
        '../../../../dev/null',
        '/etc/passwd',
        "' or 1=1 --",
        "'; drop table access_key; --",
        '__proto__',
        'constructor',
        `${kid}\u0000`,
        'x'.repeat(2000),
      ])
        attempts[`kid ${name.slice(0, 40)}`] = await forged({ kid: name });
      // Not even a text.
      for (const [what, value] of Object.entries({ number: 1, list: [kid], object: { kid }, null: null })) {
        const [, payload = '', signature = ''] = token.split('.');
        attempts[`kid that is a ${what}`] =
          `${json({ alg: 'EdDSA', typ: 'access', kid: value })}.${payload}.${signature}`;
      }
      await assertRefused(scene, attempts);
    });
  });

  test('other things that were signed are refused', async () => {
    await withScene(async (scene) => {
      const { run } = scene;
      const owner = await newOwner();
      const key = await generateSigningKey();
      const redemption = await newRedemption(owner, run, key);
      const peer = await TestPeer.open(run.server.url);
      await peer.prove(run.server.url, key, { record: await newRecord(key, run.clock), redemption });
      const { receipt = '' } = await peer.next('welcome');
      const device = await newDevice(owner, run.clock);
      const other = await TestPeer.member(run.server.url, device);
      peer.send({ type: 'introduce', id: 1, peer_id: device.key.peerId });
      const { ticket } = await peer.next('introduction', ['device']);
      other.peer.send({ type: 'ping', id: 1 });
      assert.ok(device.membership.kind === 'membership');
      await using elsewhere = await startTestServer();
      const there = await TestPeer.member(elsewhere.server.url, device);
      await assertRefused(scene, {
        'a ticket': ticket,
        'a receipt': receipt,
        'a grant': redemption.grant,
        'a membership': device.membership.membership,
        'a device record': device.record,
        'an owner record': owner.records[0] ?? '',
        'the token of another server': there.welcome.access_token,
      });
    });
  });

  test('what is no token, or far too long, is refused', async () => {
    await withScene(async (scene) => {
      const { run, sign, token } = scene;
      await assertRefused(scene, {
        nothing: '',
        words: 'a.b.c',
        'two parts': token.split('.').slice(0, 2).join('.'),
        'four parts': `${token}.x`,
        'another letter': token.replace(/.$/, (last) => (last === 'A' ? 'Q' : 'A')),
        ballast: await sign({}, { ...decodeJwt(token), ballast: 'x'.repeat(4096) }),
        'all that a header may hold': 'x'.repeat(defaultLimits.maxHttpHeadBytes - 512),
      });
      for (const length of [defaultLimits.maxHttpHeadBytes, 1024 * 1024]) {
        const answer = await ask(run, 'x'.repeat(length)).catch((error: NodeJS.ErrnoException) => error.code);
        // Whoever is still writing when the answer comes may see only that the connection ended.
        if (answer === 'ECONNRESET' || answer === 'EPIPE') continue;
        assert.deepEqual(answer, {
          status: 431,
          type: 'application/problem+json',
          code: 'header_too_large',
        });
      }
      assert.equal((await ask(run, token)).status, 200);
    });
  });
});
