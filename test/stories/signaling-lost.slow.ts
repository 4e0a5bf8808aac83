import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { CocoonProcess, StartError, enroll, failure, sees } from './cocoon-process.ts';
import { Origin } from './origin.ts';
import { foreignName, listedAs } from './shares.ts';

test('when signaling’s database is deleted while cocoons run, owners are still enforced, presence comes back, and nothing is granted that was not before', async () => {
  await using origin = await Origin.start();
  await using signaling = await CocoonProcess.start({ command: 'signaling', args: ['--port', '0'] });
  const args = ['--gateway-port', '0', '--signaling', signaling.signaling];
  await using laptop = await CocoonProcess.start({ command: 'run', args: ['--name', 'laptop', ...args] });
  await using box = await enroll(laptop, {
    name: 'box',
    engine: 'libdatachannel',
    args: ['--service', `web:${origin.port}`],
  });
  await using thief = await enroll(laptop, { name: 'thief', engine: 'libdatachannel' });
  await sees(laptop, 'box', 'web');
  await sees(laptop, 'thief');
  const guest = async (name: string): Promise<CocoonProcess> => {
    const device = await CocoonProcess.start({ command: 'run', args: ['--name', name, ...args] });
    const { token } = await laptop.json<{ token: string }>(
      'generate-token',
      '--scope',
      'co-own',
      '--cocoon',
      'box',
    );
    assert.equal((await device.command(['claim', '-'], { input: token })).code, 0);
    await foreignName(device, box.peerId);
    return device;
  };
  await using anna = await guest('anna');
  await using bert = await guest('bert');
  const { owner: bertId } = await bert.json<{ owner: string }>('status');
  await laptop.json('revoke', 'thief');
  await laptop.json('owners', 'remove', bertId);
  const outstanding = await laptop.json<{ token: string }>('generate-token');
  const forOthers = await laptop.json<{ token: string }>(
    'generate-token',
    '--scope',
    'co-own',
    '--cocoon',
    'box',
  );

  const port = new URL(signaling.signaling).port;
  await signaling.stop('SIGKILL');
  for (const file of ['signaling.db', 'signaling.db-wal', 'signaling.db-shm'])
    await rm(join(signaling.home, file), { force: true });
  await signaling.restart({ args: ['--port', port] });

  // Presence and lookup come back by themselves, shares included.
  await sees(laptop, 'box', 'web');
  const name = await foreignName(anna, box.peerId);
  await sees(anna, name, 'web');
  assert.equal((await anna.command(['fetch', `${name}/web/back`])).stdout, 'hello from /back');
  const { cocoons } = (await (
    await fetch(`${laptop.gateway}/cocoons/by-capability?protocol=proxy.http&version=^1.0.0`, {
      headers: { authorization: `Bearer ${await laptop.gatewayToken()}` },
    })
  ).json()) as { cocoons: { name: string }[] };
  assert.ok(cocoons.some((cocoon) => cocoon.name === 'box'));

  // Whoever was put out stays out, although the server knows nothing of it.
  await assert.rejects(thief.restart({ input: '' }), (error: StartError) => error.code === 'revoked');
  await bert.restart({ input: '' });
  assert.equal(await listedAs(bert, box.peerId), null);
  assert.equal((await failure(bert.home, ['ping', box.peerId])).code, 'device_not_found');
  assert.equal(await listedAs(laptop, thief.peerId), null);

  // Tokens were pinned to the key that is gone.
  await assert.rejects(
    CocoonProcess.start({
      command: 'run',
      args: ['--name', 'late', ...args, '--token', '-'],
      input: outstanding.token,
    }),
    /token_wrong_signaling|token_invalid/,
  );
  const refused = await anna.command(['claim', '-'], { input: forOthers.token });
  assert.match(refused.stderr, /lost its database.*\(token_wrong_signaling\)\n.*new token/);
  // The server's own log is where it runs alone.
  assert.match((await signaling.command(['logs'])).stdout, /part=signaling/);
});
