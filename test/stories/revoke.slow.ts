import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { HostileSignaling } from '../doubles/hostile-signaling.ts';
import { CocoonProcess, StartError, enginePairs, enroll, failure, full, sees } from './cocoon-process.ts';
import { get } from './gateway-client.ts';
import { Origin } from './origin.ts';
import { foreignName, listedAs } from './shares.ts';
import { WirePeer } from './wire-peer.ts';

/** How long a session of somebody who was revoked may live on. */
const cutWithinMs = 2_000;

describe('revoking', () => {
  let origin: Origin;

  before(async () => {
    origin = await Origin.start();
  });

  after(async () => {
    await origin[Symbol.asyncDispose]();
  });

  interface Mesh extends AsyncDisposable {
    readonly signaling: CocoonProcess;
    readonly laptop: CocoonProcess;
    readonly box: CocoonProcess;
    readonly args: readonly string[];
  }

  /** The owner's `laptop` with the secret, its `box` with a service, and a signaling server beside them. */
  async function mesh(
    engines: (typeof enginePairs)[number] = ['libdatachannel', 'libdatachannel'],
  ): Promise<Mesh> {
    const parts = new AsyncDisposableStack();
    const signaling = parts.use(await CocoonProcess.start({ command: 'signaling', args: ['--port', '0'] }));
    const args = ['--gateway-port', '0', '--signaling', signaling.signaling];
    const laptop = parts.use(
      await CocoonProcess.start({ command: 'run', args: ['--name', 'laptop', ...args], engine: engines[0] }),
    );
    const box = parts.use(
      await enroll(laptop, { name: 'box', engine: engines[1], args: ['--service', `web:${origin.port}`] }),
    );
    await sees(laptop, 'box', 'web');
    return { signaling, laptop, box, args, [Symbol.asyncDispose]: () => parts.disposeAsync() };
  }

  async function guest({ laptop, box, args }: Mesh, name: string): Promise<CocoonProcess> {
    const device = await CocoonProcess.start({ command: 'run', args: ['--name', name, ...args] });
    const { token } = await laptop.json<{ token: string }>(
      'generate-token',
      '--scope',
      'co-own',
      '--cocoon',
      'box',
    );
    const claimed = await device.command(['claim', '-'], { input: token });
    assert.equal(claimed.code, 0, claimed.stderr);
    await foreignName(device, box.peerId);
    return device;
  }

  /** A download that never ends by itself: when its last byte came after `act`, in milliseconds. */
  async function cutAfter(who: CocoonProcess, device: string, act: () => Promise<unknown>): Promise<number> {
    const response = await get(who, `${device}/web/endless`);
    let acted = 0;
    let acting: Promise<unknown> | null = null;
    try {
      for await (const _ of response) acting ??= act().then(() => (acted = Date.now()));
    } catch {
      // Broken off, as it must be.
    }
    const ended = Date.now();
    await acting;
    return ended - acted;
  }

  // Engines differ in how a connection ends; the mixed pair has both.
  for (const engines of full ? enginePairs : enginePairs.slice(-1))
    test(`a device cuts its live sessions within two seconds, whoever of the others it has them with (${engines.join(' and ')})`, async (t) => {
      await using owned = await mesh(engines);
      const { laptop, box } = owned;
      await using thief = await enroll(laptop, { name: 'thief', engine: engines[0] });
      await sees(thief, 'box', 'web');
      const ms = await cutAfter(thief, 'box', () => laptop.json('revoke', 'thief'));
      t.diagnostic(`cut after ${ms} ms`);
      assert.ok(ms < cutWithinMs, `${ms} ms`);
      assert.equal(await listedAs(box, thief.peerId), null);
      assert.equal(await listedAs(laptop, thief.peerId), null);
      const { signaling } = await thief.json<{ signaling: { problem: { code: string } } }>('status');
      assert.equal(signaling.problem.code, 'revoked');
    });

  test('an owner cuts the live sessions of all of its devices within two seconds', async (t) => {
    await using owned = await mesh();
    await using anna = await guest(owned, 'anna');
    const { owner } = await anna.json<{ owner: string }>('status');
    const name = await foreignName(anna, owned.box.peerId);
    const ms = await cutAfter(anna, name, () => owned.laptop.json('owners', 'remove', owner));
    t.diagnostic(`cut after ${ms} ms`);
    assert.ok(ms < cutWithinMs, `${ms} ms`);
    assert.equal((await failure(anna.home, ['ping', name])).code, 'device_not_found');
    assert.deepEqual(await owned.box.json<unknown[]>('owners', 'list'), []);
    // Invited again, she is back: what was taken is what was given before.
    const { token } = await owned.laptop.json<{ token: string }>(
      'generate-token',
      '--scope',
      'co-own',
      '--cocoon',
      'box',
    );
    assert.equal((await anna.command(['claim', '-'], { input: token })).code, 0);
    await sees(anna, await foreignName(anna, owned.box.peerId), 'web');
  });

  test('cuts with signaling stopped, too, over the sessions that are there', async (t) => {
    await using owned = await mesh();
    const { laptop, box, signaling } = owned;
    await using thief = await enroll(laptop, { name: 'thief', engine: 'libdatachannel' });
    await sees(thief, 'box', 'web');
    assert.equal((await laptop.command(['ping', 'box', '--count', '1'])).code, 0);
    const ms = await cutAfter(thief, 'box', async () => {
      await signaling.stop();
      await laptop.json('revoke', 'thief');
    });
    t.diagnostic(`cut after ${ms} ms`);
    assert.ok(ms < cutWithinMs, `${ms} ms`);
    const { stdout } = await box.command(['audit', '--json']);
    assert.match(stdout, /device\.revoked/);
  });

  test('survives restarts of everything', async () => {
    await using owned = await mesh();
    const { laptop, box, signaling } = owned;
    await using thief = await enroll(laptop, { name: 'thief', engine: 'libdatachannel' });
    await using anna = await guest(owned, 'anna');
    await sees(thief, 'box', 'web');
    const { owner } = await anna.json<{ owner: string }>('status');
    await laptop.json('revoke', 'thief');
    await laptop.json('owners', 'remove', owner);
    const port = new URL(signaling.signaling).port;
    await signaling.restart({ args: ['--port', port] });
    for (const cocoon of [laptop, box]) await cocoon.restart({ input: '' });
    await sees(laptop, 'box', 'web');
    await assert.rejects(thief.restart({ input: '' }), (error: StartError) => error.code === 'revoked');
    await anna.restart({ input: '' });
    assert.equal(await listedAs(anna, box.peerId), null);
    assert.equal((await failure(anna.home, ['ping', box.peerId])).code, 'device_not_found');
    assert.equal((await laptop.command(['fetch', 'box/web/still'])).stdout, 'hello from /still');
  });

  test('a device that was off learns it before it serves the one who was revoked', async () => {
    await using owned = await mesh();
    const { laptop, box } = owned;
    await using thief = await enroll(laptop, { name: 'thief', engine: 'libdatachannel' });
    await sees(thief, 'box', 'web');
    await box.stop();
    await laptop.json('revoke', 'thief');
    await box.restart({ input: '' });
    await sees(laptop, 'box', 'web');
    const { stdout } = await box.command(['audit', '--json']);
    assert.match(stdout, /device\.revoked/);
    assert.equal(await listedAs(box, thief.peerId), null);
  });

  test('a device that was off learns it from an informed peer when signaling has forgotten', async () => {
    await using owned = await mesh();
    const { laptop, box, signaling } = owned;
    await using thief = await enroll(laptop, { name: 'thief', engine: 'libdatachannel' });
    await sees(thief, 'box', 'web');
    await box.stop();
    await laptop.json('revoke', 'thief');
    const port = new URL(signaling.signaling).port;
    await signaling.stop();
    for (const file of ['signaling.db', 'signaling.db-wal', 'signaling.db-shm'])
      await rm(join(signaling.home, file), { force: true });
    await signaling.restart({ args: ['--port', port] });
    await box.restart({ input: '' });
    await sees(laptop, 'box', 'web');
    for (const end = Date.now() + 20_000; Date.now() < end;)
      if (/device\.revoked/.test((await box.command(['audit', '--json'])).stdout)) return;
    assert.fail('the box never learned it');
  });

  test('a device that hostile signaling keeps in the dark learns it at its first contact with an informed peer', async () => {
    await using owned = await mesh();
    const { laptop, box } = owned;
    const honest = await WirePeer.of(laptop, 'thief');
    await box.stop();
    await laptop.json('revoke', 'thief');
    const hostile = await HostileSignaling.start();
    try {
      const away = (name: string) => ({
        args: ['--name', name, '--gateway-port', '0', '--signaling', hostile.url],
        input: '',
      });
      await box.restart(away('box'));
      await laptop.restart(away('laptop'));
      await using thief = await honest.elsewhere(hostile.url);
      await hostile.online(box.peerId, laptop.peerId, thief.peerId);
      await thief.sees(box.peerId);
      // In the dark it serves the thief; this is what remains, and it ends here:
      assert.equal(await thief.session(box.peerId), 'ok');
      assert.equal((await laptop.command(['ping', 'box', '--count', '1'])).code, 0);
      for (const end = Date.now() + cutWithinMs; Date.now() < end;)
        if ((await box.json<{ sessions: number }>('status')).sessions === 1) break;
      assert.equal((await box.json<{ sessions: number }>('status')).sessions, 1);
      assert.notEqual(await thief.session(box.peerId), 'ok');
    } finally {
      await hostile.close();
    }
  });

  test('an admin device ends the tokens that it had made, and spares who joined by one before', async () => {
    await using owned = await mesh();
    const { laptop, args } = owned;
    const join = async (name: string, token: string): Promise<CocoonProcess> =>
      CocoonProcess.start({ command: 'run', args: ['--name', name, ...args, '--token', '-'], input: token });
    const made = async (by: CocoonProcess, ...options: readonly string[]): Promise<string> =>
      (await by.json<{ token: string }>('generate-token', ...options)).token;
    await using admin = await join('admin', await made(laptop, '--admin'));
    await sees(admin, 'laptop');
    // An admin asks the device with the secret, from anywhere.
    await using _joined = await join('joined', await made(admin));
    await sees(laptop, 'joined');
    const wayBack = await made(admin, '--admin', '--expires', '1d');
    const shared = await made(admin, '--scope', 'co-own', '--cocoon', 'box');
    const others = await made(laptop);
    await laptop.json('revoke', 'admin');
    await assert.rejects(join('again', wayBack), (error: StartError) => error.code === 'revoked');
    await using anna = await CocoonProcess.start({ command: 'run', args: ['--name', 'anna', ...args] });
    const claimed = await anna.command(['claim', '-', '--json'], { input: shared });
    assert.match(claimed.stderr, /"code":"revoked"/);
    assert.deepEqual(await failure(admin.home, ['generate-token']), { code: 'revoked', exit: 4 });
    assert.equal((await laptop.command(['ping', 'joined', '--count', '1'])).code, 0);
    await using _other = await join('other', others);
    const { stdout } = await laptop.command(['audit', '--json']);
    assert.equal(stdout.split('token.revoked').length - 1, 2);
  });

  test('a setup token voids just that one, by its name or by itself, also from a device that asks', async () => {
    await using owned = await mesh();
    const { laptop, args } = owned;
    const join = async (name: string, token: string): Promise<CocoonProcess> =>
      CocoonProcess.start({ command: 'run', args: ['--name', name, ...args, '--token', '-'], input: token });
    const made = async (by: CocoonProcess, ...options: readonly string[]) =>
      by.json<{ token: string; jti: string }>('generate-token', ...options);
    const isRevoked = (error: StartError): boolean => error.code === 'revoked';
    await using admin = await join('admin', (await made(laptop, '--admin')).token);
    await sees(admin, 'laptop');
    const [first, second, other] = [await made(laptop), await made(admin), await made(laptop)];
    assert.deepEqual(await laptop.json('revoke', `--token=${first.jti}`), {
      jti: first.jti,
      kind: 'token',
      put_out: null,
    });
    const asked = await admin.command(['revoke', '--token', '-'], { input: second.token });
    assert.equal(asked.code, 0, asked.stderr);
    await assert.rejects(join('late', first.token), isRevoked);
    await assert.rejects(join('later', second.token), isRevoked);
    await using _joined = await join('joined', other.token);
    await sees(laptop, 'joined');
    // Who has joined by it goes with it, if that is meant.
    assert.equal((await failure(laptop.home, ['revoke', `--token=${other.jti}`])).code, 'usage');
    await laptop.json('revoke', `--token=${other.jti}`, '--yes');
    assert.equal((await failure(laptop.home, ['ping', 'joined'])).code, 'device_not_found');
  });

  test('with no device that holds the secret says which ones do', async () => {
    await using owned = await mesh();
    const { laptop, args } = owned;
    await using admin = await CocoonProcess.start({
      command: 'run',
      args: ['--name', 'admin', ...args, '--token', '-'],
      input: (await laptop.json<{ token: string }>('generate-token', '--admin')).token,
    });
    await sees(admin, 'laptop');
    assert.equal((await admin.command(['generate-token'])).code, 0);
    await laptop.stop();
    const done = await admin.command(['generate-token', '--json']);
    const { error } = JSON.parse(done.stderr.trim().split('\n').at(-1) ?? '') as {
      error: { code: string; message: string; hint: string };
    };
    assert.equal(error.code, 'owner_key_offline');
    assert.match(`${error.message} ${error.hint}`, /laptop/);
  });
});
