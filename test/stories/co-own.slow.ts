import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { CocoonProcess, command, enroll, failure, json, sees } from './cocoon-process.ts';
import { bytesThroughSignaling } from './signaling-metrics.ts';
import { Origin } from './origin.ts';
import { foreignName, listedAs } from './shares.ts';

interface OwnersRow {
  readonly owner: string;
  readonly cocoons: readonly { readonly name: string; readonly provisional: boolean }[];
}

describe('sharing a cocoon with another owner', () => {
  const parts = new AsyncDisposableStack();
  let origin: Origin;
  let signaling: CocoonProcess;
  let laptop: CocoonProcess;
  let box: CocoonProcess;

  before(async () => {
    origin = parts.use(await Origin.start());
    signaling = parts.use(await CocoonProcess.start({ command: 'signaling', args: ['--port', '0'] }));
    laptop = parts.use(await alone('laptop'));
    box = parts.use(
      await enroll(laptop, {
        name: 'box',
        engine: 'libdatachannel',
        args: ['--service', `web:${origin.port}`],
      }),
    );
    await sees(laptop, 'box', 'web');
  });

  after(async () => {
    await parts.disposeAsync();
  });

  async function alone(name: string, extra: readonly string[] = [], input = ''): Promise<CocoonProcess> {
    return CocoonProcess.start({
      command: 'run',
      args: ['--name', name, '--gateway-port', '0', '--signaling', signaling.signaling, ...extra],
      engine: 'libdatachannel',
      input,
    });
  }

  async function coOwnToken(...args: readonly string[]): Promise<string> {
    const made = await laptop.json<{ token: string; scope: string }>(
      'generate-token',
      '--scope',
      'co-own',
      '--cocoon',
      'box',
      ...args,
    );
    assert.equal(made.scope, 'co-own');
    return made.token;
  }

  test('a teammate claims it with a token and then all of her devices reach it, and only it', async () => {
    await using anna = await alone('anna');
    const claimed = await anna.command(['claim', '-', '--json'], {
      input: await coOwnToken('--expires', '1h'),
    });
    assert.equal(claimed.code, 0, claimed.stderr);
    const name = await foreignName(anna, box.peerId);
    assert.match(name, /^box@[\w-]{8}$/);
    assert.equal((await anna.command(['fetch', `${name}/web/hello`])).stdout, 'hello from /hello');
    await using phone = await enroll(anna, { name: 'phone', engine: 'werift' });
    assert.equal(await foreignName(phone, box.peerId), name);
    assert.equal((await phone.command(['fetch', `${name}/web/phone`])).stdout, 'hello from /phone');
    // The bare name is her own devices' alone, and the owner's other device is nobody to her.
    assert.equal((await failure(phone.home, ['ping', 'box'])).code, 'device_not_found');
    assert.equal((await failure(phone.home, ['ping', laptop.peerId])).code, 'device_not_found');
    assert.equal(await listedAs(anna, laptop.peerId), null);
    // One way only: the cocoon does not see hers.
    assert.equal(await listedAs(box, anna.peerId), null);
  });

  test('the claim becomes lasting when a device with the owner’s secret meets it', async () => {
    await using anna = await alone('anna');
    const { owner } = await anna.json<{ owner: string }>('status');
    assert.equal((await anna.command(['claim', '-'], { input: await coOwnToken() })).code, 0);
    for (const end = Date.now() + 20_000; Date.now() < end;) {
      const row = (await box.json<OwnersRow[]>('owners', 'list')).find((entry) => entry.owner === owner);
      if (row?.cocoons[0]?.provisional === false) return;
    }
    assert.fail('the share stayed provisional');
  });

  test('works with signaling stopped after the introduction, and none of it went through signaling', async () => {
    await using own = await CocoonProcess.start({ command: 'signaling', args: ['--port', '0'] });
    const args = ['--gateway-port', '0', '--signaling', own.signaling];
    await using root = await CocoonProcess.start({ command: 'run', args: ['--name', 'root', ...args] });
    await using gpu = await enroll(root, {
      name: 'gpu',
      engine: 'libdatachannel',
      args: ['--service', `web:${origin.port}`],
    });
    await using anna = await CocoonProcess.start({ command: 'run', args: ['--name', 'anna', ...args] });
    await sees(root, 'gpu', 'web');
    const { token } = await root.json<{ token: string }>(
      'generate-token',
      '--scope',
      'co-own',
      '--cocoon',
      'gpu',
    );
    assert.equal((await anna.command(['claim', '-'], { input: token })).code, 0);
    const name = await foreignName(anna, gpu.peerId);
    assert.equal((await anna.command(['ping', name, '--count', '1'])).code, 0);
    const before = await bytesThroughSignaling(own);
    assert.equal((await anna.command(['fetch', `${name}/web/big?bytes=4000000`, '-o', '/dev/null'])).code, 0);
    const moved = (await bytesThroughSignaling(own)) - before;
    assert.ok(moved < 200_000, `${moved} bytes went through signaling`);
    await own.stop();
    assert.equal((await anna.command(['fetch', `${name}/web/later`])).stdout, 'hello from /later');
  });

  test('that is offline when it is claimed lets her in when it comes back, and verifies by itself', async () => {
    await using anna = await alone('anna');
    const token = await coOwnToken();
    await box.stop();
    const claimed = await anna.command(['claim', '-'], { input: token });
    assert.equal(claimed.code, 0, claimed.stderr);
    await box.restart({ input: '' });
    const name = await foreignName(anna, box.peerId);
    await sees(anna, name, 'web');
    assert.equal((await anna.command(['fetch', `${name}/web/back`])).stdout, 'hello from /back');
    await sees(laptop, 'box', 'web');
  });

  test('a token can be given to a device at its start', async () => {
    const token = await coOwnToken();
    await using anna = await alone('anna', ['--token', '-'], token);
    const name = await foreignName(anna, box.peerId);
    assert.equal((await anna.command(['ping', name, '--count', '1'])).code, 0);
    // It is her own owner, with a secret of her own.
    assert.match((await anna.json<{ secret: string }>('secret', 'show')).secret, /^cocoon-secret-/);
    // Given again at the next start it is ignored.
    await anna.restart({ args: ['--name', 'anna', '--gateway-port', '0', '--token', '-'], input: token });
    await sees(anna, name);
  });

  test('a narrow share shows and opens one service, in the list, over the proxy and as a forward', async () => {
    await using bert = await alone('bert');
    await box.json('services', 'add', `other:${origin.port}`);
    const claimed = await bert.command(['claim', '-'], { input: await coOwnToken('--service', 'web') });
    assert.equal(claimed.code, 0, claimed.stderr);
    const name = await foreignName(bert, box.peerId);
    await sees(bert, name, 'web');
    const row = (await bert.json<{ peer_id: string; services: { name: string }[] }[]>('devices')).find(
      ({ peer_id: peerId }) => peerId === box.peerId,
    );
    assert.deepEqual(
      row?.services.map((service) => service.name),
      ['web'],
    );
    assert.equal((await bert.command(['fetch', `${name}/web/x`])).code, 0);
    assert.deepEqual(await failure(bert.home, ['fetch', `${name}/other/x`]), {
      code: 'service_not_found',
      exit: 3,
    });
    assert.equal((await failure(bert.home, ['forward', `${name}/other`])).code, 'service_not_found');
  });

  test('a share until a date ends by itself, with the session', async () => {
    await using carl = await alone('carl');
    const until = new Date(Date.now() + 8_000).toISOString();
    const claimed = await carl.command(['claim', '-'], { input: await coOwnToken('--until', until) });
    assert.equal(claimed.code, 0, claimed.stderr);
    const name = await foreignName(carl, box.peerId);
    assert.equal((await carl.command(['ping', name, '--count', '1'])).code, 0);
    let last = 0;
    for (const end = Date.now() + 30_000; Date.now() < end;) {
      const { code } = await carl.command(['ping', name, '--count', '1']);
      if (code !== 0) break;
      last = Date.now();
    }
    assert.ok(last > 0 && last < Date.parse(until) + 2_000, `reached ${last - Date.parse(until)} ms after`);
  });

  test('is given back by the one it was given to', async () => {
    await using dora = await alone('dora');
    assert.equal((await dora.command(['claim', '-'], { input: await coOwnToken() })).code, 0);
    const { owner } = await dora.json<{ owner: string }>('status');
    const name = await foreignName(dora, box.peerId);
    await dora.json('revoke', name);
    assert.equal((await failure(dora.home, ['ping', name])).code, 'device_not_found');
    for (const end = Date.now() + 20_000; Date.now() < end;)
      if (!(await box.json<OwnersRow[]>('owners', 'list')).some((entry) => entry.owner === owner)) return;
    assert.fail('the cocoon still knows her');
  });

  test('at another signaling server is told at which one the token is good', async () => {
    await using other = await CocoonProcess.start({ command: 'signaling', args: ['--port', '0'] });
    await using far = await CocoonProcess.start({
      command: 'run',
      args: ['--name', 'far', '--gateway-port', '0', '--signaling', other.signaling],
    });
    const claimed = await far.command(['claim', '-', '--json'], { input: await coOwnToken() });
    assert.equal(claimed.code, 4);
    const { error } = JSON.parse(claimed.stderr.trim()) as { error: { code: string; hint: string } };
    assert.equal(error.code, 'token_wrong_signaling');
    assert.ok(error.hint.includes(`--signaling ${signaling.signaling}`), error.hint);
  });

  test('is refused with what is wrong: a token for a device, one’s own token, one used before, none at all', async () => {
    await using eve = await alone('eve');
    const { token: enrolling } = await laptop.json<{ token: string }>('generate-token');
    const claim = async (home: string, token: string): Promise<string> => {
      const done = await command(home, ['claim', '-', '--json'], { input: token });
      const { error } = JSON.parse(done.stderr.trim().split('\n').at(-1) ?? '') as {
        error: { code: string };
      };
      return error.code;
    };
    assert.equal(await claim(eve.home, enrolling), 'token_invalid');
    assert.equal(await claim(eve.home, 'nonsense'), 'token_malformed');
    const until = new Date(Date.now() + 1_500);
    const short = await coOwnToken('--until', until.toISOString());
    while (Date.now() < until.getTime()) await command(eve.home, ['status']);
    assert.equal(await claim(eve.home, short), 'token_expired');
    const token = await coOwnToken();
    assert.equal(await claim(laptop.home, token), 'token_invalid');
    await using first = await alone('first');
    assert.equal((await first.command(['claim', '-'], { input: token })).code, 0);
    assert.equal(await claim(eve.home, token), 'token_used');
    const shown = await first.command(['claim', token]);
    assert.match(shown.stderr, /argument/);
    assert.equal((await failure(laptop.home, ['generate-token', '--scope', 'co-own'])).code, 'usage');
    assert.equal(
      (await failure(laptop.home, ['generate-token', '--scope', 'co-own', '--cocoon', 'nobody'])).code,
      'device_not_found',
    );
    assert.equal((await failure(laptop.home, ['owners', 'remove', 'own_nobody'])).code, 'owner_not_found');
  });

  test('nobody who was given it can pass it on', async () => {
    await using anna = await alone('anna');
    assert.equal((await anna.command(['claim', '-'], { input: await coOwnToken() })).code, 0);
    const name = await foreignName(anna, box.peerId);
    const passed = await failure(anna.home, ['generate-token', '--scope', 'co-own', '--cocoon', name]);
    assert.equal(passed.exit, 4, passed.code);
    assert.deepEqual(await json<unknown[]>(anna.home, ['owners', 'list']), []);
  });
});
