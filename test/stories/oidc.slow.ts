import assert from 'node:assert/strict';
import { createSign, generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { CocoonProcess, StartError, failure, sees } from './cocoon-process.ts';

const audience = 'https://mesh.example';
const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });

/** A token of RFC 7519, signed as identity providers do. */
function idToken(issuer: string, change: Record<string, unknown> = {}): string {
  const now = Math.floor(Date.now() / 1000);
  const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  const payload = {
    iss: issuer,
    aud: audience,
    sub: 'anna@example.com',
    iat: now,
    exp: now + 600,
    ...change,
  };
  const content = `${part({ alg: 'RS256', kid: 'one', typ: 'JWT' })}.${part(payload)}`;
  return `${content}.${createSign('RSA-SHA256').update(content).sign(privateKey).toString('base64url')}`;
}

test('a signaling server with an identity provider lets in whom it knows, and a member it does not know stays out', async () => {
  const provider = createServer((request, response) => {
    const jwk = { ...publicKey.export({ format: 'jwk' }), kid: 'one', alg: 'RS256', use: 'sig' };
    const answers: Record<string, unknown> = {
      '/.well-known/openid-configuration': { issuer, jwks_uri: `${issuer}/keys` },
      '/keys': { keys: [jwk] },
    };
    response.end(JSON.stringify(answers[request.url ?? ''] ?? {}));
  });
  provider.listen(0, '127.0.0.1');
  await once(provider, 'listening');
  const issuer = `http://127.0.0.1:${(provider.address() as AddressInfo).port}`;
  const folder = await mkdtemp(join(tmpdir(), 'cocoon-'));
  try {
    await using signaling = await CocoonProcess.start({
      command: 'signaling',
      args: ['--port', '0'],
      env: { SIGNALING_OIDC_ISSUER: issuer, SIGNALING_OIDC_AUDIENCE: audience },
    });
    const args = ['--gateway-port', '0', '--signaling', signaling.signaling];
    const run = async (name: string, token: string | null, input?: string): Promise<CocoonProcess> =>
      CocoonProcess.start({
        command: 'run',
        args: ['--name', name, ...args, ...(input === undefined ? [] : ['--token', '-'])],
        env: token === null ? {} : { COCOON_OIDC_TOKEN: token },
        ...(input === undefined ? {} : { input }),
      });

    const file = join(folder, 'id-token');
    await writeFile(file, idToken(issuer));
    await using laptop = await run('laptop', `@${file}`);
    const { token } = await laptop.json<{ token: string }>('generate-token');
    await using box = await run('box', idToken(issuer), token);
    await sees(laptop, 'box');

    // With a setup token of the owner, but unknown to the provider: nobody, and the token is not used up.
    const { token: second } = await laptop.json<{ token: string }>('generate-token');
    for (const wrong of [null, idToken(issuer, { exp: 1 }), idToken(issuer, { aud: 'https://else.example' })])
      await assert.rejects(
        run('late', wrong, second),
        (error: StartError) => error.code === 'oidc_required',
        String(wrong),
      );
    // Known to the provider, but without a membership: an owner of his own, who sees nothing.
    await using stranger = await run('stranger', idToken(issuer, { sub: 'eve@example.com' }));
    assert.equal((await stranger.json<unknown[]>('devices')).length, 1);
    assert.equal((await failure(stranger.home, ['ping', box.peerId])).code, 'device_not_found');
    await using late = await run('late', idToken(issuer), second);
    await sees(laptop, late.name);
  } finally {
    provider.close();
    provider.closeAllConnections();
    await rm(folder, { recursive: true, force: true });
  }
});
