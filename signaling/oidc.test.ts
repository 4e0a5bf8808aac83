import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, test } from 'node:test';
import type { MeshError } from '@cocoon-mesh/protocol';
import { generateSigningKey } from '@cocoon-mesh/protocol';
import type { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import type { CryptoKey, JWK, JWTPayload } from 'jose';
import { SignJWT, UnsecuredJWT, exportJWK, generateKeyPair } from 'jose';
import { defaultLimits } from './server-limits.ts';
import type { TestDevice, TestServer } from './test-client.ts';
import {
  TestPeer,
  newDevice,
  newNonce,
  newOwner,
  newRecord,
  newRedemption,
  seconds,
  signSignIn,
  startTestServer,
} from './test-client.ts';

const audience = 'https://mesh.example.com';

interface IssuerKey {
  readonly alg: string;
  readonly kid: string;
  readonly privateKey: CryptoKey;
  readonly jwk: JWK;
}

async function newKey(alg: string, kid = `${alg}-1`): Promise<IssuerKey> {
  const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true });
  return { alg, kid, privateKey, jwk: { ...(await exportJWK(publicKey)), kid, alg, use: 'sig' } };
}

/** A small OpenID provider: its description, its keys, and tokens of any kind. */
class Issuer implements AsyncDisposable {
  keys: readonly IssuerKey[] = [];
  /** Changes what it says about itself. */
  description: Record<string, unknown> = {};
  down = false;
  readonly asked: string[] = [];
  readonly #server: Server;
  #keysAsked = Promise.withResolvers<void>();

  private constructor() {
    this.#server = createServer((request, response) => {
      const path = request.url ?? '';
      this.asked.push(path);
      if (this.down) {
        request.socket.destroy();
      } else if (path === '/.well-known/openid-configuration') {
        const described = { issuer: this.url, jwks_uri: `${this.url}/keys`, ...this.description };
        response.end(JSON.stringify(described));
      } else if (path === '/keys') {
        response.end(JSON.stringify({ keys: this.keys.map(({ jwk }) => jwk) }), () =>
          this.#keysAsked.resolve(),
        );
      } else if (path === '/elsewhere') {
        response.writeHead(302, { location: '/keys' }).end();
      } else if (path === '/huge') {
        response.end(`{"keys":[],"x":"${'x'.repeat(defaultLimits.maxOidcAnswerBytes)}"}`);
      } else {
        response.writeHead(404).end('{}');
      }
    });
  }

  static async start(...algorithms: string[]): Promise<Issuer> {
    const issuer = new Issuer();
    issuer.#server.listen(0, '127.0.0.1');
    await once(issuer.#server, 'listening');
    issuer.keys = await Promise.all(algorithms.map((alg) => newKey(alg)));
    return issuer;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Resolves when the keys were handed out again. */
  nextKeys(): Promise<void> {
    this.#keysAsked = Promise.withResolvers();
    return this.#keysAsked.promise;
  }

  async token(
    clock: SteppedClock,
    claims: JWTPayload = {},
    { key = this.keys[0], typ }: { key?: IssuerKey | undefined; typ?: string } = {},
  ): Promise<string> {
    assert.ok(key);
    const now = seconds(clock);
    return new SignJWT({
      iss: this.url,
      aud: audience,
      sub: 'anna@example.com',
      iat: now,
      exp: now + 3600,
      ...claims,
    })
      .setProtectedHeader({ alg: key.alg, kid: key.kid, ...(typ === undefined ? {} : { typ }) })
      .sign(key.privateKey);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
    this.#server.closeAllConnections();
    await once(this.#server, 'close');
  }
}

async function startGated(issuer: Issuer): Promise<TestServer> {
  return startTestServer({ oidc: { issuer: issuer.url, audience } });
}

/** Signs in over the WebSocket. @returns what came of it: `welcome`, or the code of the refusal */
async function signIn(
  { server }: TestServer,
  { key, record, membership }: TestDevice,
  idToken?: string,
): Promise<string> {
  const peer = await TestPeer.open(server.url);
  await peer.prove(server.url, key, {
    record,
    membership,
    ...(idToken === undefined ? {} : { oidc_token: idToken }),
  });
  const answer = await peer.next('welcome').then(
    () => 'welcome',
    (error: Error) => /"code":"(\w+)"/.exec(error.message)?.[1] ?? error.message,
  );
  await peer.close();
  return answer;
}

async function post(url: string, body: object): Promise<Record<string, unknown>> {
  const response = await fetch(url, { method: 'POST', body: JSON.stringify(body) });
  return (await response.json()) as Record<string, unknown>;
}

/** Over HTTP. @returns the answer of `POST /auth/token` */
async function getToken(
  { server }: TestServer,
  { key, membership }: Pick<TestDevice, 'key'> & Partial<TestDevice>,
  idToken?: string,
): Promise<Record<string, unknown>> {
  const nonce = newNonce();
  const challenge = await post(`${server.httpUrl}/auth/challenge`, { peer_id: key.peerId, nonce });
  const { nonce: serverNonce, time } = challenge as { nonce: string; time: number };
  return post(`${server.httpUrl}/auth/token`, {
    peer_id: key.peerId,
    nonce,
    server_nonce: serverNonce,
    time,
    signature: await signSignIn(key, server.url, nonce, serverNonce, time),
    ...(membership === undefined ? {} : { membership }),
    ...(idToken === undefined ? {} : { oidc_token: idToken }),
  });
}

describe('a server with an OIDC issuer', () => {
  for (const alg of ['RS256', 'PS256', 'ES256', 'EdDSA'])
    test(`lets in a member with an ID token signed by ${alg}`, async () => {
      await using issuer = await Issuer.start(alg);
      await using run = await startGated(issuer);
      const device = await newDevice(await newOwner(), run.clock);
      assert.equal(await signIn(run, device, await issuer.token(run.clock)), 'welcome');
      const answer = await getToken(run, device, await issuer.token(run.clock));
      assert.equal(typeof answer['access_token'], 'string');
    });

  test('asks every way of signing in for a token', async () => {
    await using issuer = await Issuer.start('ES256');
    await using run = await startGated(issuer);
    const owner = await newOwner();
    const device = await newDevice(owner, run.clock);
    assert.equal(await signIn(run, device), 'oidc_required');
    assert.equal(await signIn(run, device, ''), 'oidc_required');
    assert.equal((await getToken(run, device))['code'], 'oidc_required');
    assert.equal((await getToken(run, { key: device.key }))['code'], 'oidc_required');
    const key = await generateSigningKey();
    const redemption = await newRedemption(owner, run, key);
    const record = await newRecord(key, run.clock);
    const peer = await TestPeer.open(run.server.url);
    await peer.prove(run.server.url, key, { record, redemption });
    assert.equal(await peer.refusal(), 'oidc_required');
    // The token was not used up.
    const again = await TestPeer.open(run.server.url);
    const idToken = await issuer.token(run.clock);
    await again.prove(run.server.url, key, { record, redemption, oidc_token: idToken });
    await again.next('welcome');
  });

  test('takes an ID token for a key to the gate and for nothing behind it', async () => {
    await using issuer = await Issuer.start('ES256');
    await using run = await startGated(issuer);
    const owner = await newOwner();
    const stranger = await newDevice(await newOwner(), run.clock);
    const { membership } = await newDevice(owner, run.clock);
    const idToken = await issuer.token(run.clock, { groups: ['admin'], sub: owner.id });
    // Somebody else's membership, with a perfect ID token.
    assert.equal(await signIn(run, { ...stranger, membership }, idToken), 'membership_invalid');
    assert.equal((await getToken(run, { ...stranger, membership }, idToken))['code'], 'membership_invalid');
    const { access_token: token } = await getToken(run, { key: stranger.key }, idToken);
    for (const bearer of [String(token), idToken]) {
      const answer = await fetch(`${run.server.httpUrl}/cocoons`, {
        headers: { authorization: `Bearer ${bearer}` },
      });
      assert.equal(answer.status, bearer === idToken ? 401 : 403);
    }
  });

  test('refuses tokens that are over, early, of others, for others, or not signed by the issuer', async () => {
    await using issuer = await Issuer.start('RS256', 'ES256');
    await using other = await Issuer.start('RS256');
    await using run = await startGated(issuer);
    const device = await newDevice(await newOwner(), run.clock);
    const { clock } = run;
    const now = seconds(clock);
    const [rsa, ec] = issuer.keys;
    assert.ok(rsa && ec);
    const good = await issuer.token(clock);
    const [head = '', payload = ''] = good.split('.');
    // Of a key that does not say what it is for.
    const rs384 = await newKey('RS384');
    const { alg: _, ...jwk } = rs384.jwk;
    issuer.keys = [...issuer.keys, { ...rs384, jwk }];
    const secret = new TextEncoder().encode(JSON.stringify(rsa.jwk));
    const claims = { iss: issuer.url, aud: audience, sub: 'x', iat: now, exp: now + 60 };
    const wrong: Record<string, string> = {
      'that has expired': await issuer.token(clock, { exp: now - 31 }),
      'not valid yet': await issuer.token(clock, { nbf: now + 31 }),
      'made in the future': await issuer.token(clock, { iat: now + 31 }),
      'without an end': await issuer.token(clock, { exp: undefined as never }),
      'of nobody': await issuer.token(clock, { sub: undefined as never }),
      'for another audience': await issuer.token(clock, { aud: 'https://other.example.com' }),
      'for two, made for the other': await issuer.token(clock, { aud: [audience, 'x'], azp: 'x' }),
      'for two, made for nobody knows whom': await issuer.token(clock, { aud: [audience, 'x'] }),
      'made for another program': await issuer.token(clock, { azp: 'x' }),
      'of another issuer': await issuer.token(clock, { iss: other.url }),
      'of the issuer with a slash': await issuer.token(clock, { iss: `${issuer.url}/` }),
      'signed by another issuer': await other.token(clock, { iss: issuer.url }),
      'that is for services': await issuer.token(clock, {}, { typ: 'at+jwt' }),
      'signed by an algorithm that is not taken': await issuer.token(clock, {}, { key: rs384 }),
      'signed by the wrong key': await issuer.token(clock, {}, { key: { ...ec, kid: rsa.kid } }),
      'of an unknown key': await issuer.token(clock, {}, { key: { ...rsa, kid: 'unknown' } }),
      'signed with the public key as password': await new SignJWT(claims)
        .setProtectedHeader({ alg: 'HS256', kid: rsa.kid })
        .sign(secret),
      'of no algorithm': new UnsecuredJWT(claims).encode(),
      'without signature': `${head}.${payload}.`,
      'that is none': 'a.b.c',
    };
    for (const [what, token] of Object.entries(wrong)) {
      assert.equal(await signIn(run, device, token), 'oidc_required', what);
      assert.equal((await getToken(run, device, token))['code'], 'oidc_required', what);
      assert.ok(!run.logged.some((line) => line.includes(token)), `${what} is logged`);
    }
    // Made-up keys have made it ask no more often than once.
    assert.deepEqual(issuer.asked, ['/.well-known/openid-configuration', '/keys']);
    const fresh = await newDevice(await newOwner(), clock);
    assert.equal(await signIn(run, fresh, good), 'welcome');
    for (const bounds of [{ exp: now - 29 }, { nbf: now + 29 }, { aud: [audience, 'x'], azp: audience }])
      assert.equal(await signIn(run, fresh, await issuer.token(clock, bounds)), 'welcome');
  });

  test('goes on with the keys it knows while the issuer is down, and learns of new ones when it is back', async () => {
    await using issuer = await Issuer.start('ES256');
    await using run = await startGated(issuer);
    const { clock } = run;
    const device = await newDevice(await newOwner(), clock);
    assert.equal(await signIn(run, device, await issuer.token(clock)), 'welcome');
    issuer.down = true;
    clock.step(defaultLimits.oidcRefreshMs);
    assert.equal(await signIn(run, device, await issuer.token(clock)), 'welcome');
    clock.step(defaultLimits.oidcRefreshMs);
    assert.equal(await signIn(run, device, await issuer.token(clock)), 'welcome');
    assert.ok(issuer.asked.length > 2, 'nothing was renewed');

    issuer.down = false;
    const [old] = issuer.keys;
    issuer.keys = [await newKey('ES256', 'ES256-2')];
    clock.step(defaultLimits.oidcRefreshMs);
    const renewed = issuer.nextKeys();
    // This one is still judged by the old keys, and starts the renewal.
    assert.equal(await signIn(run, device, await issuer.token(clock, {}, { key: old })), 'welcome');
    await renewed;
    assert.equal(await signIn(run, device, await issuer.token(clock)), 'welcome');
    assert.equal(await signIn(run, device, await issuer.token(clock, {}, { key: old })), 'oidc_required');
  });

  test('lets nobody in while the issuer is down and its keys are unknown or a day old', async () => {
    await using issuer = await Issuer.start('ES256');
    await using run = await startGated(issuer);
    const { clock } = run;
    const device = await newDevice(await newOwner(), clock);
    issuer.down = true;
    const idToken = await issuer.token(clock);
    for (let i = 0; i < 5; i++) assert.equal(await signIn(run, device, idToken), 'oidc_unavailable');
    // It is left alone for a while.
    assert.equal(issuer.asked.length, 1);
    assert.equal(run.logged.filter((line) => line.includes('could not be asked')).length, 1);
    issuer.down = false;
    clock.step(defaultLimits.oidcRetryMs);
    assert.equal(await signIn(run, device, idToken), 'welcome');
    issuer.down = true;
    clock.step(defaultLimits.oidcMaxStaleMs);
    assert.equal(await signIn(run, device, await issuer.token(clock)), 'oidc_unavailable');
  });

  test('believes no description of another name, and fetches keys from nowhere unsafe', async () => {
    for (const description of [
      { issuer: 'https://accounts.example.com' },
      { issuer: undefined },
      { jwks_uri: undefined },
      { jwks_uri: 'http://192.0.2.1/keys' },
      { jwks_uri: 'file:///etc/passwd' },
      { jwks_uri: '/keys' },
    ]) {
      await using issuer = await Issuer.start('ES256');
      issuer.description = description;
      await using run = await startGated(issuer);
      const device = await newDevice(await newOwner(), run.clock);
      const token = await issuer.token(run.clock);
      assert.equal(await signIn(run, device, token), 'oidc_unavailable', JSON.stringify(description));
      const reason = 'issuer' in description ? 'by another name' : 'no safe place';
      assert.ok(run.logged.some((line) => line.includes(reason)));
    }
    for (const path of ['elsewhere', 'huge', 'missing']) {
      await using issuer = await Issuer.start('ES256');
      issuer.description = { jwks_uri: `${issuer.url}/${path}` };
      await using run = await startGated(issuer);
      const device = await newDevice(await newOwner(), run.clock);
      assert.equal(await signIn(run, device, await issuer.token(run.clock)), 'oidc_unavailable', path);
    }
  });
});

describe('the address of an OIDC issuer', () => {
  for (const issuer of [
    'http://accounts.example.com',
    'accounts.example.com',
    'https://user:word@accounts.example.com',
    'https://accounts.example.com/?tenant=1',
    'ftp://accounts.example.com',
  ])
    test(`is not ${issuer}`, async () => {
      await assert.rejects(startTestServer({ oidc: { issuer, audience } }), ({ code }: MeshError) => {
        assert.equal(code, 'usage');
        return true;
      });
    });

  test('needs an audience, which is the public address unless told otherwise', async () => {
    await using issuer = await Issuer.start('ES256');
    const oidc = { issuer: issuer.url };
    await assert.rejects(startTestServer({ oidc }), ({ code }: MeshError) => code === 'usage');
    await using run = await startTestServer({ oidc, publicUrl: 'wss://mesh.example.com/ws' });
    const { key, record, membership } = await newDevice(await newOwner(), run.clock);
    const direct = `${run.server.httpUrl.replace('http', 'ws')}/ws`;
    const peer = await TestPeer.open(direct);
    const idToken = await issuer.token(run.clock);
    await peer.prove(run.server.url, key, { record, membership, oidc_token: idToken });
    await peer.next('welcome');
  });
});
