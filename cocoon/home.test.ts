import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtemp, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { controlSocketPath } from './control/socket-path.ts';
import { openGatewayToken } from './gateway/token.ts';
import { Home, homeOf } from './home.ts';
import { lockHome } from './home-lock.ts';
import { openIdentityKey } from './identity-key.ts';
import { OwnersFile } from './mesh-store.ts';
import { readSecretArgument } from './token-source.ts';

let folder: string;
let home: Home;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cocoon-home-'));
  home = new Home(join(folder, 'home'));
  await home.create();
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

describe('a home', () => {
  test('is the flag, else the variable, else ~/.cocoon', () => {
    assert.equal(homeOf('/a', { COCOON_HOME: '/b' }).path, '/a');
    assert.equal(homeOf(undefined, { COCOON_HOME: '/b' }).path, '/b');
    assert.match(homeOf(undefined, {}).path, /\.cocoon$/);
  });

  test('is made for its user alone', async () => {
    assert.equal((await stat(home.path)).mode & 0o777, 0o700);
  });

  test('is held by one daemon at a time, and free again when that lets go', () => {
    const release = lockHome(home.lock, home);
    assert.throws(() => lockHome(home.lock, home), { code: 'already_running' });
    release();
    lockHome(home.lock, home)();
  });

  test('has its control socket inside, or elsewhere when its path is too long for one', () => {
    assert.equal(controlSocketPath(home), join(home.path, 'control.sock'));
    const deep = new Home(join(folder, 'x'.repeat(100)));
    const path = controlSocketPath(deep);
    assert.ok(Buffer.byteLength(path) < 104, path);
    assert.equal(controlSocketPath(new Home(deep.path)), path);
    assert.notEqual(controlSocketPath(new Home(`${deep.path}y`)), path);
  });
});

describe('a key file', () => {
  test('is made private, and holds the same key the next time', async () => {
    const first = await openIdentityKey(home.identityKey);
    assert.equal((await stat(home.identityKey)).mode & 0o777, 0o600);
    assert.equal((await openIdentityKey(home.identityKey)).peerId, first.peerId);
  });

  test('that others can read is refused and left as it is', async () => {
    await openIdentityKey(home.identityKey);
    const before = await readFile(home.identityKey);
    for (const mode of [0o644, 0o640, 0o604, 0o620]) {
      await chmod(home.identityKey, mode);
      await assert.rejects(openIdentityKey(home.identityKey), { code: 'key_exposed' }, mode.toString(8));
    }
    assert.deepEqual(await readFile(home.identityKey), before);
  });

  test('that holds something else, or a damaged key, is refused and left as it is', async () => {
    await openIdentityKey(home.identityKey);
    const text = await readFile(home.identityKey, 'utf8');
    const at = text.indexOf('.') + 5;
    const flipped = text.slice(0, at) + (text[at] === 'A' ? 'B' : 'A') + text.slice(at + 1);
    for (const wrong of ['not a key', '', text.slice(0, -6), flipped]) {
      await writeFile(home.identityKey, wrong);
      await assert.rejects(openIdentityKey(home.identityKey), { code: 'key_corrupt' }, wrong);
      assert.equal(await readFile(home.identityKey, 'utf8'), wrong);
    }
  });

  test('that cannot be read is an error of its own', async () => {
    await mkdir(home.identityKey, { mode: 0o700 });
    await assert.rejects(openIdentityKey(home.identityKey), { code: 'key_unreadable' });
    await symlink(join(home.identityKey, 'x'), home.gatewayToken);
    await symlink(home.secret, home.secret);
    await assert.rejects(openIdentityKey(home.secret), { code: 'key_unreadable' });
  });

  test('of the gateway is made once and refused when it is damaged', async () => {
    const token = await openGatewayToken(home.gatewayToken);
    assert.equal((await stat(home.gatewayToken)).mode & 0o777, 0o600);
    assert.equal(await openGatewayToken(home.gatewayToken), token);
    await writeFile(home.gatewayToken, 'short');
    await assert.rejects(openGatewayToken(home.gatewayToken), { code: 'key_corrupt' });
  });
});

describe('the owners file', () => {
  test('that is damaged or newer is refused and left as it is', async () => {
    for (const [text, code] of [
      ['{', 'database_corrupt'],
      ['null', 'database_corrupt'],
      ['{"v":1,"membership":{},"redeemed":[],"pins":{}}', 'database_corrupt'],
      ['{"v":1,"membership":null,"redeemed":[],"pins":{"a":1}}', 'database_corrupt'],
      ['{"v":2}', 'database_newer'],
    ] as const) {
      await writeFile(home.owners, text, { mode: 0o600 });
      await assert.rejects(OwnersFile.open(home.owners), { code }, text);
      assert.equal(await readFile(home.owners, 'utf8'), text);
    }
  });

  test('keeps what is written at once in order, privately', async () => {
    const owners = await OwnersFile.open(home.owners);
    await Promise.all([1, 2, 3].map((n) => owners.savePins({ a: `peer-${n}` })));
    assert.equal((await stat(home.owners)).mode & 0o777, 0o600);
    assert.deepEqual(await (await OwnersFile.open(home.owners)).loadPins(), { a: 'peer-3' });
  });
});

describe('a token argument', () => {
  test('may name a file; as it is, it counts as exposed', async () => {
    const path = join(folder, 'token');
    await writeFile(path, ' secret-words \n');
    assert.deepEqual(await readSecretArgument(`@${path}`), { text: 'secret-words', exposed: false });
    assert.deepEqual(await readSecretArgument('secret-words'), { text: 'secret-words', exposed: true });
    await assert.rejects(readSecretArgument(`@${path}.not`), { code: 'usage' });
  });
});
