import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { CocoonProcess, command, enroll, failure, sees } from './cocoon-process.ts';
import { Origin } from './origin.ts';
import { foreignName, listedAs } from './shares.ts';

describe('the secret', () => {
  let origin: Origin;
  let signaling: CocoonProcess;
  let args: readonly string[];

  before(async () => {
    origin = await Origin.start();
    signaling = await CocoonProcess.start({ command: 'signaling', args: ['--port', '0'] });
    args = ['--gateway-port', '0', '--signaling', signaling.signaling];
  });

  after(async () => {
    await signaling[Symbol.asyncDispose]();
    await origin[Symbol.asyncDispose]();
  });

  async function owner(name: string): Promise<{ device: CocoonProcess; recoveryCode: string }> {
    const device = await CocoonProcess.start({ command: 'run', args: ['--name', name, ...args] });
    const created = device.events.find(({ event }) => event === 'owner_created');
    return { device, recoveryCode: String(created?.['recovery_code']) };
  }

  test('makes another device the same owner: by `secret use`, and by COCOON_SECRET', async () => {
    const { device: laptop } = await owner('laptop');
    await using _laptop = laptop;
    const { secret } = await laptop.json<{ secret: string }>('secret', 'show');
    const home = await mkdtemp(join(tmpdir(), 'cocoon-'));
    try {
      const used = await command(home, ['secret', 'use'], { input: `${secret}\n` });
      assert.equal(used.code, 0, used.stderr);
      assert.doesNotMatch(used.stdout + used.stderr, new RegExp(secret.slice(20, 60)));
      await using desk = await CocoonProcess.start({
        command: 'run',
        home,
        args: ['--name', 'desk', ...args],
      });
      await using gpu = await CocoonProcess.start({
        command: 'run',
        args: ['--name', 'gpu', ...args],
        env: { COCOON_SECRET: secret },
      });
      for (const device of ['desk', 'gpu']) await sees(laptop, device);
      const status = async (cocoon: CocoonProcess): Promise<{ owner: string; holds_secret: boolean }> =>
        cocoon.json('status');
      const { owner: mine } = await status(laptop);
      for (const cocoon of [desk, gpu])
        assert.deepEqual(
          { owner: (await status(cocoon)).owner, holds: (await status(cocoon)).holds_secret },
          { owner: mine, holds: true },
        );
      // Each of them signs.
      assert.equal((await gpu.command(['generate-token'])).code, 0);
      assert.equal((await failure(desk.home, ['secret', 'use'])).code, 'already_running');
    } finally {
      await rm(home, { recursive: true, force: true });
    }
  });

  test('is refused with what is wrong when it is malformed, mistyped, cut off or weak', async () => {
    const { device: laptop } = await owner('laptop');
    await using _laptop = laptop;
    const { secret } = await laptop.json<{ secret: string }>('secret', 'show');
    const home = await mkdtemp(join(tmpdir(), 'cocoon-'));
    try {
      const other = secret.at(-6) === 'A' ? 'B' : 'A';
      const wrong: readonly (readonly [string, RegExp])[] = [
        ['', /starts with/],
        ['hunter2', /starts with/],
        [secret.slice(0, -10), /not complete/],
        [`${secret}AAAA`, /too long/],
        [`${secret.slice(0, -6)}${other}${secret.slice(-5)}`, /typing error/],
        [secret.replace('.', '.*'), /characters/],
        [await weakSecret(), /weak/],
      ];
      for (const [text, why] of wrong) {
        const done = await command(home, ['secret', 'use', '--json'], { input: text });
        const line = done.stderr.trim().split('\n').at(-1) ?? '{}';
        const { error } = JSON.parse(line) as { error: { code: string; message: string } };
        assert.equal(error.code, 'key_corrupt', text.slice(0, 20));
        assert.match(error.message, why);
        assert.ok(text === '' || !done.stderr.includes(text.slice(20) || text), 'the secret was repeated');
      }
      await using _control = await CocoonProcess.start({
        command: 'run',
        home,
        args: ['--name', 'fresh', ...args],
      });
    } finally {
      await rm(home, { recursive: true, force: true });
    }
  });

  test('is rotated after a leak: devices and guests stay, the thief and the old tokens are out', async () => {
    const { device: laptop, recoveryCode } = await owner('laptop');
    await using _laptop = laptop;
    await using box = await enroll(laptop, {
      name: 'box',
      engine: 'libdatachannel',
      args: ['--service', `web:${origin.port}`],
    });
    await sees(laptop, 'box', 'web');
    await using anna = await CocoonProcess.start({ command: 'run', args: ['--name', 'anna', ...args] });
    const shared = await laptop.json<{ token: string }>(
      'generate-token',
      '--scope',
      'co-own',
      '--cocoon',
      'box',
    );
    assert.equal((await anna.command(['claim', '-'], { input: shared.token })).code, 0);
    const name = await foreignName(anna, box.peerId);
    const { secret: leaked } = await laptop.json<{ secret: string }>('secret', 'show');
    const kept = await laptop.json<{ token: string; jti: string }>('generate-token');
    const dropped = await laptop.json<{ token: string }>('generate-token');
    const { owner: before } = await laptop.json<{ owner: string }>('status');
    // A device that is off meanwhile.
    await box.stop();

    assert.equal((await failure(laptop.home, ['secret', 'rotate'])).code, 'key_corrupt');
    const rotated = await laptop.command(['secret', 'rotate', '--keep', kept.jti, '--json'], {
      input: recoveryCode,
    });
    assert.equal(rotated.code, 0, rotated.stderr);
    const { recovery_code: nextCode } = JSON.parse(rotated.stdout) as { recovery_code: string };
    assert.match(nextCode, /^cocoon-recovery-1\./);
    assert.notEqual(nextCode, recoveryCode);
    const { secret: fresh } = await laptop.json<{ secret: string }>('secret', 'show');
    assert.notEqual(fresh, leaked);
    const { owner: still } = await laptop.json<{ owner: string }>('status');
    assert.equal(still, before);

    // Devices and guests stay.
    await box.restart({ input: '' });
    await sees(laptop, 'box', 'web');
    assert.equal((await laptop.command(['fetch', 'box/web/after'])).stdout, 'hello from /after');
    await sees(anna, name, 'web');
    assert.equal((await anna.command(['fetch', `${name}/web/guest`])).stdout, 'hello from /guest');

    // The thief is nobody, with a device of his own as well as with the memberships he signs.
    await using thief = await CocoonProcess.start({
      command: 'run',
      args: ['--name', 'thief', ...args],
      env: { COCOON_SECRET: leaked },
    });
    assert.equal(await listedAs(laptop, thief.peerId), null);
    assert.equal(await listedAs(thief, box.peerId), null);
    assert.notEqual((await thief.command(['ping', box.peerId, '--count', '1'])).code, 0);

    // Of the old tokens only the one that was kept.
    await assert.rejects(
      CocoonProcess.start({
        command: 'run',
        args: ['--name', 'late', ...args, '--token', '-'],
        input: dropped.token,
      }),
      /token_invalid|token_void|membership_invalid/,
    );
    await using invited = await CocoonProcess.start({
      command: 'run',
      args: ['--name', 'invited', ...args, '--token', '-'],
      input: kept.token,
    });
    await sees(laptop, 'invited');
    assert.equal((await invited.command(['fetch', 'box/web/invited'])).stdout, 'hello from /invited');

    // The new secret works elsewhere, without signaling's help in reading it.
    await using _desk = await CocoonProcess.start({
      command: 'run',
      args: ['--name', 'desk', ...args],
      env: { COCOON_SECRET: fresh },
    });
    await sees(laptop, 'desk');
    const restarted = await laptop.json<{ owner: string; holds_secret: boolean }>('status');
    assert.deepEqual(restarted.owner, before);
    await laptop.restart();
    assert.equal((await laptop.json<{ holds_secret: boolean }>('status')).holds_secret, true);
    await sees(laptop, 'box', 'web');
  });

  test('of an old epoch makes a device that held it a plain member, which says so', async () => {
    const { device: laptop, recoveryCode } = await owner('laptop');
    await using _laptop = laptop;
    const { secret } = await laptop.json<{ secret: string }>('secret', 'show');
    await using desk = await CocoonProcess.start({
      command: 'run',
      args: ['--name', 'desk', ...args],
      env: { COCOON_SECRET: secret },
    });
    await sees(laptop, 'desk');
    const rotated = await laptop.command(['secret', 'rotate', '--json'], { input: recoveryCode });
    assert.equal(rotated.code, 0, rotated.stderr);
    for (const end = Date.now() + 20_000; Date.now() < end;)
      if (!(await desk.json<{ holds_secret: boolean }>('status')).holds_secret) break;
    assert.equal((await desk.json<{ holds_secret: boolean }>('status')).holds_secret, false);
    await sees(desk, 'laptop');
    assert.equal((await desk.command(['ping', 'laptop', '--count', '1'])).code, 0);
    assert.equal((await failure(desk.home, ['generate-token'])).exit, 4);
  });
});

/** Well formed, with the right checksum, and made up by hand. */
async function weakSecret(): Promise<string> {
  const bytes = new Uint8Array(64).fill(7);
  const sum = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes)).slice(0, 4);
  return `cocoon-secret-1.${Buffer.concat([bytes, sum]).toString('base64url')}`;
}
