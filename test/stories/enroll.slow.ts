import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { CocoonProcess, StartError, fewPairs, enroll, meshOfTwo, sees } from './cocoon-process.ts';

interface DeviceRow {
  readonly name: string;
  readonly peer_id: string;
  readonly online: boolean;
  readonly this: boolean;
}

for (const engines of fewPairs) {
  describe(`a second device (${engines.join(' and ')})`, () => {
    test('enrolls with a token, appears in the list of the first within two seconds, and answers a ping', async (t) => {
      await using laptop = await CocoonProcess.start({
        command: 'up',
        args: ['--port', '0', '--gateway-port', '0', '--name', 'laptop', '--no-web'],
        engine: engines[0],
      });
      await using server = await enroll(laptop, { name: 'server', engine: engines[1] });
      const began = Date.now();
      await sees(laptop, 'server');
      const took = Date.now() - began;
      t.diagnostic(`from being enrolled to being listed: ${took} ms`);
      assert.ok(took < 2_000);
      const pings = await laptop.command(['ping', 'server', '--count', '3', '--json']);
      assert.equal(pings.code, 0, pings.stderr);
      const lines = pings.stdout
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line) as Record<string, unknown>);
      assert.deepEqual(
        lines.map(({ seq }) => seq),
        [1, 2, 3],
      );
      assert.equal(lines[0]?.['engine'], engines[0]);
      assert.ok(Number(lines[2]?.['rtt_ms']) >= 0);
      const seen = await server.json<DeviceRow[]>('devices');
      assert.deepEqual(
        seen.map(({ name, online, this: own }) => ({ name, online, own })),
        [
          { name: 'server', online: true, own: true },
          { name: 'laptop', online: true, own: false },
        ],
      );
    });
  });
}

describe('a setup token', () => {
  test('works once: a second device that shows it is refused, and nothing is recorded', async () => {
    const { laptop, server } = await meshOfTwo({ engines: ['libdatachannel', 'libdatachannel'] });
    await using _laptop = laptop;
    await using _server = server;
    const { token } = await laptop.json<{ token: string }>('generate-token');
    await using first = await join(laptop, token);
    await sees(laptop, first.name);
    await refused(laptop, token, 'token_used');
  });

  test('that has expired is refused, and nothing is recorded', async () => {
    await using laptop = await up();
    const { token, expires_at: expiresAt } = await laptop.json<{ token: string; expires_at: string }>(
      'generate-token',
      '--expires',
      '1s',
    );
    await delay(Math.max(0, Date.parse(expiresAt) - Date.now()) + 1_100);
    await refused(laptop, token, 'token_expired');
  });

  test('that was changed in any part is refused, and nothing is recorded', async () => {
    await using laptop = await up();
    const { token } = await laptop.json<{ token: string }>('generate-token');
    for (const changed of tamperings(token)) await refused(laptop, changed, 'token_invalid');
    await refused(laptop, token.slice(0, -40), 'token_malformed');
    await refused(laptop, 'nonsense', 'token_malformed');
    // The token itself is still good: nobody used it up.
    await using joined = await join(laptop, token);
    await sees(laptop, joined.name);
  });

  test('that a device has redeemed before is ignored when it starts again', async () => {
    await using laptop = await up();
    const { token } = await laptop.json<{ token: string }>('generate-token');
    await using joined = await join(laptop, token);
    await sees(laptop, joined.name);
    const { peerId } = joined;
    await joined.restart({ input: token });
    assert.equal(joined.peerId, peerId);
    await sees(laptop, joined.name);
  });

  async function up(): Promise<CocoonProcess> {
    return CocoonProcess.start({
      command: 'up',
      args: ['--port', '0', '--gateway-port', '0', '--name', 'laptop', '--no-web'],
    });
  }

  async function join(laptop: CocoonProcess, token: string): Promise<CocoonProcess> {
    return CocoonProcess.start({
      command: 'run',
      args: ['--name', 'server', '--gateway-port', '0', '--token', '-', '--signaling', laptop.signaling],
      input: token,
    });
  }

  /** A device that shows this token ends with the code, and the laptop lists and keeps nothing new. */
  async function refused(laptop: CocoonProcess, token: string, code: string): Promise<void> {
    const before = await laptop.json<DeviceRow[]>('devices');
    await assert.rejects(join(laptop, token), (error: StartError) => {
      assert.ok(error instanceof StartError, String(error));
      assert.equal(error.code, code, error.stderr);
      assert.notEqual(error.exit, 0);
      return true;
    });
    const after = await laptop.json<DeviceRow[]>('devices');
    assert.deepEqual(
      after.map(({ peer_id }) => peer_id),
      before.map(({ peer_id }) => peer_id),
    );
  }
});

/** One change in each part of the token: owner record, grant payload, grant signature, one-time key. */
function tamperings(token: string): string[] {
  const prefix = token.slice(0, token.indexOf('.') + 1);
  const body = JSON.parse(Buffer.from(token.slice(prefix.length), 'base64url').toString()) as {
    records: string[];
    grant: string;
    key: string;
  };
  const seal = (changed: unknown): string =>
    prefix + Buffer.from(JSON.stringify(changed)).toString('base64url');
  const [head = '', payload = '', signature = ''] = body.grant.split('.');
  const terms = JSON.parse(Buffer.from(payload, 'base64url').toString()) as Record<string, unknown>;
  const grant = (change: Record<string, unknown>): string =>
    `${head}.${Buffer.from(JSON.stringify({ ...terms, ...change })).toString('base64url')}.${signature}`;
  return [
    seal({ ...body, grant: grant({ exp: Number(terms['exp']) + 3600 }) }),
    seal({ ...body, grant: grant({ jti: 'A'.repeat(22) }) }),
    seal({ ...body, grant: `${head}.${payload}.${flip(signature)}` }),
    seal({ ...body, key: flip(body.key) }),
    seal({ ...body, records: [flipEnd(body.records[0] ?? '')] }),
  ];
}

function flip(text: string): string {
  return (text.startsWith('A') ? 'B' : 'A') + text.slice(1);
}

/** Changes the signature at the end of a JWS. */
function flipEnd(jws: string): string {
  const at = jws.lastIndexOf('.') + 1;
  return jws.slice(0, at) + flip(jws.slice(at));
}
