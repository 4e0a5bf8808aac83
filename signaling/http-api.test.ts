import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { connect } from 'node:net';
import { text } from 'node:stream/consumers';
import { describe, test } from 'node:test';
import type { Redemption, SigningKey } from '@cocoon-mesh/protocol';
import {
  fromBase64Url,
  generateSigningKey,
  peekGrant,
  signRevocation,
  verifyReceipt,
} from '@cocoon-mesh/protocol';
import { SignJWT, decodeJwt, decodeProtectedHeader } from 'jose';
import { defaultLimits } from './server-limits.ts';
import type { TestDevice, TestServer } from './test-client.ts';
import {
  TestPeer,
  newCoOwnRedemption,
  newDevice,
  newMembership,
  newNonce,
  newOwner,
  newRecord,
  newRedemption,
  seconds,
  signSignIn,
  startTestServer,
} from './test-client.ts';

interface Answer {
  readonly status: number;
  readonly code: string;
  readonly body: Record<string, unknown>;
  readonly headers: Headers;
}

async function call(
  run: TestServer,
  path: string,
  options: RequestInit & { token?: string } = {},
): Promise<Answer> {
  const { token, ...init } = options;
  const headers = token === undefined ? {} : { Authorization: `Bearer ${token}` };
  const response = await fetch(run.server.httpUrl + path, { ...init, headers });
  const body = (await response.json()) as Record<string, unknown>;
  if (!response.ok) assert.equal(response.headers.get('content-type'), 'application/problem+json');
  return { status: response.status, code: String(body['code']), body, headers: response.headers };
}

async function post(run: TestServer, path: string, value: unknown, token?: string): Promise<Answer> {
  const body = JSON.stringify(value);
  return call(run, path, { method: 'POST', body, ...(token === undefined ? {} : { token }) });
}

async function logIn(
  run: TestServer,
  key: SigningKey,
  more: { membership?: TestDevice['membership']; signedUrl?: string } = {},
): Promise<Answer> {
  const nonce = newNonce();
  const { body } = await post(run, '/auth/challenge', { peer_id: key.peerId, nonce });
  const [serverNonce, time] = [String(body['nonce']), Number(body['time'])];
  const signature = await signSignIn(key, more.signedUrl ?? run.server.url, nonce, serverNonce, time);
  const { membership } = more;
  const answer = { peer_id: key.peerId, nonce, server_nonce: serverNonce, time, signature, membership };
  const first = await post(run, '/auth/token', answer);
  // A challenge is answered once, whatever came of it.
  assert.equal((await post(run, '/auth/token', answer)).code, 'sign_in_failed');
  return first;
}

async function tokenOf(run: TestServer, device: TestDevice): Promise<string> {
  return String((await logIn(run, device.key, device)).body['access_token']);
}

/** An owner with one online and one offline device, and a stranger. */
async function household(run: TestServer) {
  const owner = await newOwner();
  const capabilities = [{ protocol: 'tasks', version: '1.2.0' }];
  const services = [{ name: 'api', type: 'http' } as const];
  const anna = await newDevice(owner, run.clock, { name: 'anna', capabilities, services, location: 'home' });
  const bert = await newDevice(owner, run.clock, { name: 'bert', capabilities });
  const { peer } = await TestPeer.member(run.server.url, anna);
  const offline = await TestPeer.member(run.server.url, bert);
  await offline.peer.close();
  await peer.next('device');
  await peer.next('device');
  const eve = await newDevice(await newOwner(), run.clock, { name: 'eve', capabilities });
  await TestPeer.member(run.server.url, eve);
  return { owner, anna, bert, eve, peer };
}

describe('the HTTP routes', () => {
  test('list the devices of the own owner and no other', async () => {
    await using run = await startTestServer();
    const { owner, anna, bert, eve } = await household(run);
    const token = await tokenOf(run, anna);
    const { body } = await call(run, '/cocoons', { token });
    const cocoons = body['cocoons'] as Record<string, unknown>[];
    assert.deepEqual(
      new Map(cocoons.map(({ name, online }) => [name, online])),
      new Map<unknown, unknown>([
        ['anna', true],
        ['bert', false],
      ]),
    );
    const one = await call(run, `/cocoons/${anna.key.peerId}`, { token });
    assert.deepEqual(one.body, {
      peer_id: anna.key.peerId,
      name: 'anna',
      kind: 'cocoon',
      services: [{ name: 'api', type: 'http' }],
      capabilities: [{ protocol: 'tasks', version: '1.2.0' }],
      location: 'home',
      owner: owner.id,
      shared: false,
      online: true,
      load: 0,
      last_seen: seconds(run.clock),
    });
    const services = await call(run, `/cocoons/${anna.key.peerId}/services`, { token });
    assert.deepEqual(services.body, { services: [{ name: 'api', type: 'http' }] });
    // As at a gateway.
    for (const query of ['protocol=tasks&version=nonsense', `protocol=tasks&version=${'1'.repeat(300)}`, ''])
      assert.equal(
        (await call(run, `/cocoons/by-capability?${query}`, { token })).code,
        'bad_message',
        query,
      );
    const found = await call(run, '/cocoons/by-capability?protocol=tasks&version=^1.0.0', { token });
    assert.deepEqual(
      (found.body['cocoons'] as { name: string }[]).map(({ name }) => name),
      ['anna'],
    );
    assert.deepEqual((await call(run, '/ice-servers', { token })).body, { ice_servers: [] });

    const nobody = (await generateSigningKey()).peerId;
    const missing = await call(run, `/cocoons/${nobody}`, { token });
    assert.deepEqual([missing.status, missing.code], [404, 'not_found']);
    for (const id of [eve.key.peerId, 'anna', '%2e%2e', bert.key.peerId.slice(1)])
      for (const path of [`/cocoons/${id}`, `/cocoons/${id}/services`])
        assert.deepEqual((await call(run, path, { token })).body, missing.body);
  });

  test('answer nothing but a 401 without a token', async () => {
    await using run = await startTestServer();
    for (const path of [
      '/cocoons',
      '/cocoons/x',
      '/cocoons/x/services',
      '/cocoons/by-capability',
      '/ice-servers',
    ]) {
      const { status, code, headers } = await call(run, path);
      assert.deepEqual([status, code], [401, 'unauthorized']);
      assert.equal(headers.get('www-authenticate'), 'Bearer');
      assert.equal(headers.get('x-content-type-options'), 'nosniff');
      assert.equal(headers.get('cache-control'), 'no-store');
    }
    assert.equal((await post(run, '/claims', {})).code, 'unauthorized');
  });

  test('take a claim from whoever proves the redeeming key, once', async () => {
    await using run = await startTestServer();
    const owner = await newOwner();
    const key = await generateSigningKey();
    const redemption: Redemption = await newRedemption(owner, run, key);
    const { body } = await logIn(run, key);
    assert.equal(body['expires_in'], defaultLimits.accessTokenSeconds);
    const token = String(body['access_token']);
    const other = String((await logIn(run, await generateSigningKey())).body['access_token']);
    assert.equal((await post(run, '/claims', { redemption }, other)).code, 'token_invalid');
    const first = await post(run, '/claims', { redemption }, token);
    const receipt = String(first.body['receipt']);
    await verifyReceipt(receipt, peekGrant(redemption.grant), key.peerId);
    assert.equal((await post(run, '/claims', { redemption }, token)).body['receipt'], receipt);
    const denied = await call(run, '/cocoons', { token });
    assert.deepEqual([denied.status, denied.code], [403, 'denied']);
  });

  test('show a shared cocoon as it says of itself to the other owner, apart from lookups', async () => {
    await using run = await startTestServer();
    const { owner, anna, bert, peer } = await household(run);
    const tom = await newDevice(await newOwner(), run.clock, { name: 'tom' });
    const guests = await newOwner();
    const guest = await newDevice(guests, run.clock, { name: 'guest' });
    const redemption = await newCoOwnRedemption(owner, run, anna.key.peerId, guests);
    const claims = String((await logIn(run, guest.key)).body['access_token']);
    assert.equal((await post(run, '/claims', { redemption }, claims)).code, 'denied');
    const stranger = await tokenOf(run, tom);
    assert.equal((await post(run, '/claims', { redemption }, stranger)).code, 'token_invalid');
    const token = await tokenOf(run, guest);
    const { body } = await post(run, '/claims', { redemption }, token);
    await verifyReceipt(String(body['receipt']), peekGrant(redemption.grant), guests.id);
    await peer.next('share');

    const unseen = await call(run, `/cocoons/${anna.key.peerId}`, { token });
    assert.equal(unseen.code, 'not_found');
    const capabilities = [{ protocol: 'tasks', version: '1.0.0' }];
    const services = [{ name: 'for-guests', type: 'http' } as const];
    const content = { name: 'anna', audience: guests.id, capabilities, services };
    peer.send({ type: 'record', record: await newRecord(anna.key, run.clock, content) });
    await peer.quiet();
    const one = await call(run, `/cocoons/${anna.key.peerId}`, { token });
    assert.deepEqual(one.body, {
      peer_id: anna.key.peerId,
      name: 'anna',
      kind: 'cocoon',
      services,
      capabilities,
      location: null,
      owner: owner.id,
      shared: true,
      online: true,
      load: 0,
      last_seen: seconds(run.clock),
    });
    assert.deepEqual((await call(run, '/cocoons', { token })).body, { cocoons: [one.body] });
    const offered = await call(run, `/cocoons/${anna.key.peerId}/services`, { token });
    assert.deepEqual(offered.body, { services });
    const found = await call(run, '/cocoons/by-capability?protocol=tasks&version=^1.0.0', { token });
    assert.deepEqual(found.body, { cocoons: [] });
    // Other devices of its owner, and the cocoon for others, look like none.
    assert.deepEqual((await call(run, `/cocoons/${bert.key.peerId}`, { token })).body, unseen.body);
    const { body: other } = await call(run, `/cocoons/${anna.key.peerId}`, { token: stranger });
    assert.deepEqual(other, unseen.body);
    const own = await call(run, `/cocoons/${anna.key.peerId}`, { token: await tokenOf(run, bert) });
    assert.deepEqual([own.body['shared'], own.body['location']], [false, 'home']);
  });

  test('give no token for a signature of another address, or for a membership of another device', async () => {
    await using run = await startTestServer();
    const owner = await newOwner();
    const device = await newDevice(owner, run.clock);
    const elsewhere = await logIn(run, device.key, { ...device, signedUrl: 'ws://evil.example/ws' });
    assert.deepEqual([elsewhere.status, elsewhere.code], [401, 'sign_in_failed']);
    const { membership } = await newDevice(owner, run.clock);
    assert.equal((await logIn(run, device.key, { membership })).code, 'membership_invalid');
  });

  test('give no token for a challenge that is too old', async () => {
    await using run = await startTestServer();
    const { key } = await newDevice(await newOwner(), run.clock);
    const nonce = newNonce();
    const { body } = await post(run, '/auth/challenge', { peer_id: key.peerId, nonce });
    const [serverNonce, time] = [String(body['nonce']), Number(body['time'])];
    const signature = await signSignIn(key, run.server.url, nonce, serverNonce, time);
    run.clock.step(defaultLimits.challengeMs);
    const answer = { peer_id: key.peerId, nonce, server_nonce: serverNonce, time, signature };
    assert.equal((await post(run, '/auth/token', answer)).code, 'sign_in_failed');
  });

  test('refuse the token of a device that was revoked since', async () => {
    await using run = await startTestServer();
    const { owner, peer, anna, bert } = await household(run);
    const token = await tokenOf(run, bert);
    const ours = await tokenOf(run, anna);
    assert.equal((await call(run, '/cocoons', { token })).status, 200);
    const list = [
      await signRevocation(owner, [], { kind: 'device', subject: bert.key.peerId, now: seconds(run.clock) }),
    ];
    peer.send({ type: 'revocations', owner: owner.id, list });
    await peer.quiet();
    assert.equal((await call(run, '/cocoons', { token })).code, 'revoked');
    assert.equal((await logIn(run, bert.key, bert)).code, 'revoked');
    const { body } = await call(run, '/cocoons', { token: ours });
    assert.equal((body['cocoons'] as unknown[]).length, 1);
  });

  test('refuse wrong methods, unknown paths and bad bodies with a problem each', async () => {
    await using run = await startTestServer();
    const wrong = await call(run, '/cocoons', { method: 'DELETE' });
    assert.deepEqual([wrong.status, wrong.code], [405, 'method_not_allowed']);
    assert.equal(wrong.headers.get('allow'), 'GET, HEAD');
    assert.equal((await call(run, '/auth/token')).headers.get('allow'), 'POST');
    assert.deepEqual((await call(run, '/nothing')).code, 'not_found');
    assert.deepEqual((await call(run, '/nothing', { method: 'POST', body: 'x' })).code, 'not_found');
    assert.deepEqual((await call(run, '/ws')).code, 'unsupported');
    assert.deepEqual((await call(run, '/auth/challenge', { method: 'POST', body: '{' })).code, 'bad_message');
    assert.deepEqual((await post(run, '/auth/challenge', { peer_id: 'me' })).code, 'bad_message');
    const large = await post(run, '/auth/challenge', { nonce: 'x'.repeat(defaultLimits.maxHttpBodyBytes) });
    assert.deepEqual([large.status, large.code], [413, 'message_too_large']);
  });

  test('are open where they must be: health, metrics, keys', async () => {
    await using run = await startTestServer();
    assert.deepEqual((await call(run, '/healthz')).body, { status: 'ok' });
    const metrics = await fetch(`${run.server.httpUrl}/metrics`);
    assert.match(await metrics.text(), /cocoon_signaling_connections 0/);
    const { keys } = (await call(run, '/.well-known/jwks.json')).body as { keys: Record<string, string>[] };
    assert.equal(keys.length, 1);
    assert.deepEqual([keys[0]?.['kty'], keys[0]?.['crv'], keys[0]?.['d']], ['OKP', 'Ed25519', undefined]);
    const head = await fetch(`${run.server.httpUrl}/healthz`, { method: 'HEAD' });
    assert.deepEqual([head.status, await head.text()], [200, '']);
  });

  test('survive requests that are none', async () => {
    await using run = await startTestServer();
    const raw = async (request: string): Promise<string> => {
      const socket = connect(run.server.port, '127.0.0.1');
      socket.write(request);
      return text(socket);
    };
    assert.match(await raw('NONSENSE\r\n\r\n'), /^HTTP\/1\.1 400 [^]*bad_message/);
    assert.match(
      await raw(`GET / HTTP/1.1\r\nHost: x\r\nX: ${'x'.repeat(defaultLimits.maxHttpHeadBytes)}\r\n\r\n`),
      /^HTTP\/1\.1 431 [^]*header_too_large/,
    );
    assert.match(
      await raw('GET http:// HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'),
      /^HTTP\/1\.1 400 /,
    );
    assert.match(
      await raw('GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: h2c\r\n\r\n'),
      /^HTTP\/1\.1 200 /,
    );
    assert.equal((await call(run, '/healthz')).status, 200);
  });
});

describe('an access token', () => {
  test('names owner, device key, audience and issuer, and ends after 15 minutes or with the membership', async () => {
    await using run = await startTestServer();
    const owner = await newOwner();
    const device = await newDevice(owner, run.clock);
    const token = await tokenOf(run, device);
    assert.deepEqual(Object.keys(decodeProtectedHeader(token)).toSorted(), ['alg', 'kid', 'typ']);
    const claims = decodeJwt(token);
    assert.equal(claims.sub, owner.id);
    assert.equal((claims.exp ?? 0) - (claims.iat ?? 0), 900);
    assert.deepEqual(
      Object.keys(claims).filter((name) => claims[name] === undefined),
      [],
    );
    assert.ok(claims.jti && claims.aud && claims.iss && claims['cnf']);
    run.clock.step(899_000);
    assert.equal((await call(run, '/cocoons', { token })).status, 200);
    run.clock.step(30_000);
    assert.equal((await call(run, '/cocoons', { token })).status, 200);
    run.clock.step(1_000);
    assert.equal((await call(run, '/cocoons', { token })).code, 'unauthorized');

    const expires = seconds(run.clock) + 60;
    const membership = await newMembership(owner, device.key.peerId, run.clock, { expires });
    const { body } = await logIn(run, device.key, { membership });
    assert.equal(body['expires_in'], 60);
  });

  test('comes with every welcome', async () => {
    await using run = await startTestServer();
    const { welcome } = await TestPeer.member(run.server.url, await newDevice(await newOwner(), run.clock));
    assert.equal((await call(run, '/cocoons', { token: welcome.access_token })).status, 200);
  });

  test('is refused when anybody else could have made it', async () => {
    await using run = await startTestServer();
    await using other = await startTestServer();
    const device = await newDevice(await newOwner(), run.clock);
    const token = await tokenOf(run, device);
    const [head = '', payload = '', signature = ''] = token.split('.');
    const jwks = (await call(run, '/.well-known/jwks.json')).body as { keys: { x: string; kid: string }[] };
    const { x = '', kid = '' } = jwks.keys[0] ?? {};
    const json = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');
    const hmacHead = json({ alg: 'HS256', typ: 'access', kid });
    const hmac = (key: Uint8Array | string): string =>
      createHmac('sha256', key).update(`${hmacHead}.${payload}`).digest('base64url');
    const claims = decodeJwt(token);
    const forger = await generateSigningKey();
    const forged = (header: object): Promise<string> =>
      new SignJWT(claims)
        .setProtectedHeader({ alg: 'EdDSA', typ: 'access', kid, ...header })
        .sign(forger.privateKey);
    const attempts: Record<string, string> = {
      'alg none': `${json({ alg: 'none', typ: 'access', kid })}.${payload}.`,
      'alg none with the signature': `${json({ alg: 'none', typ: 'access', kid })}.${payload}.${signature}`,
      'HS256 with the public key': `${hmacHead}.${payload}.${hmac(fromBase64Url(x))}`,
      'HS256 with the public key as text': `${hmacHead}.${payload}.${hmac(x)}`,
      'another key': await forged({}),
      'an unknown kid': await forged({ kid: 'unknown' }),
      'a key of its own in the head': await forged({ jwk: { kty: 'OKP', crv: 'Ed25519', x } }),
      'another payload': `${head}.${json({ ...claims, sub: `own_${'A'.repeat(43)}` })}.${signature}`,
      'no signature': `${head}.${payload}.`,
      'another server': await tokenOf(other, device),
      nothing: '',
      words: 'a.b.c',
    };
    for (const [what, attempt] of Object.entries(attempts)) {
      const { status, code } = await call(run, '/cocoons', { token: attempt });
      assert.deepEqual([status, code], [401, 'unauthorized'], what);
    }
    const huge = await call(run, '/cocoons', { token: 'x'.repeat(5000) });
    assert.equal(huge.code, 'unauthorized');
    const megabyte = await call(run, '/cocoons', { token: 'x'.repeat(1024 * 1024) }).catch(() => null);
    assert.ok(megabyte === null || megabyte.status === 431);
    assert.equal((await call(run, '/cocoons', { token })).status, 200);
  });
});
