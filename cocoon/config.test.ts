import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { deviceSettings, nameFromHost, parsePort, parseSignalingUrl, readConfigFile } from './config.ts';

describe('the settings of a device', () => {
  test('take a flag before a variable, a variable before the file, and the file before the default', () => {
    const flags = { name: 'flag' };
    const environment = { COCOON_NAME: 'variable', COCOON_GATEWAY_PORT: '1111' };
    const file = { name: 'file', gateway_port: '2222', location: 'attic' };
    assert.equal(deviceSettings(flags, environment, file).name, 'flag');
    assert.equal(deviceSettings({}, environment, file).name, 'variable');
    assert.equal(deviceSettings({}, {}, file).name, 'file');
    assert.equal(deviceSettings({}, environment, file).gatewayPort, 1111);
    assert.equal(deviceSettings({}, {}, file).gatewayPort, 2222);
    assert.equal(deviceSettings({}, {}, {}).gatewayPort, 7401);
    assert.equal(deviceSettings({}, environment, file).location, 'attic');
  });

  test('say how long the first word of a chat may take', () => {
    assert.equal(deviceSettings({}, {}, {}).firstTokenMs, null);
    assert.equal(deviceSettings({}, { COCOON_LLM_FIRST_TOKEN: '5s' }, {}).firstTokenMs, 5_000);
    assert.equal(deviceSettings({}, {}, { llm_first_token: '2m' }).firstTokenMs, 120_000);
    for (const time of ['5', 'soon', '11m'])
      assert.throws(() => deviceSettings({}, { COCOON_LLM_FIRST_TOKEN: time }, {}), { exitCode: 2 }, time);
  });

  test('take an empty variable for none', () => {
    assert.equal(deviceSettings({}, { COCOON_NAME: '' }, { name: 'file' }).name, 'file');
  });

  test('take services from one place only, the strongest that names any', () => {
    const environment = { COCOON_SERVICES: 'flowmap-api:8092, postgres:5432' };
    const byVariable = deviceSettings({}, environment, { services: ['other:1'] });
    assert.deepEqual(byVariable.services, [
      { name: 'flowmap-api', port: 8092, type: 'http' },
      { name: 'postgres', port: 5432, type: 'tcp' },
    ]);
    assert.equal(byVariable.servicesByFlag, false);
    const byFlag = deviceSettings({ service: ['web:80'] }, environment, {});
    assert.deepEqual(
      byFlag.services.map(({ name }) => name),
      ['web'],
    );
    assert.equal(byFlag.servicesByFlag, true);
  });

  test('refuse names that are none, and two services of one name', () => {
    for (const name of ['Web', 'a--b', '-a', 'a-', 'xn--a', 'a_b', 'a.b', '', 'a'.repeat(32)])
      assert.throws(() => deviceSettings({ name }, {}, {}), { code: 'bad_name' }, name);
    assert.throws(() => deviceSettings({ service: ['web:1', 'web:2'] }, {}, {}), { code: 'bad_service' });
  });

  test('refuse what is no port, no log level, no list of ICE servers', () => {
    for (const gatewayPort of ['-1', '65536', 'x', '80a', ''])
      assert.throws(() => deviceSettings({ gatewayPort }, {}, {}), { code: 'usage' }, gatewayPort);
    assert.throws(() => deviceSettings({}, { COCOON_LOG_LEVEL: 'loud' }, {}), { code: 'usage' });
    for (const servers of ['http://x', 'stun:', '[{"urls":"x"}]', '[', '{}'])
      assert.throws(
        () => deviceSettings({}, { COCOON_ICE_SERVERS: servers }, {}),
        { code: 'bad_ice_servers' },
        servers,
      );
  });

  test('let others run tasks only where the file names them', () => {
    assert.deepEqual(deviceSettings({}, {}, {}).remoteTasks, []);
    const file = { remote_tasks: ['co-owner', 'browser'] };
    assert.deepEqual(deviceSettings({}, {}, file).remoteTasks, ['co-owner', 'browser']);
    assert.deepEqual(deviceSettings({}, {}, { remote_tasks: 'guest' }).remoteTasks, ['guest']);
    for (const remote_tasks of ['everybody', 'owner', '*', 'Guest'])
      assert.throws(() => deviceSettings({}, {}, { remote_tasks }), { code: 'bad_config' }, remote_tasks);
  });

  test('say where tasks are kept, which commands they may run, and how many at once', () => {
    const byDefault = deviceSettings({}, {}, {});
    assert.deepEqual(
      [byDefault.databaseUrl, byDefault.taskCommands, byDefault.taskLabels, byDefault.taskConcurrency],
      [null, 'any', [], null],
    );
    const settings = deviceSettings(
      {},
      { COCOON_DATABASE_URL: 'postgres://user@host/tasks' },
      {
        database_url: 'sqlite:/x/tasks.db',
        task_commands: ['./backup.sh', 'git *'],
        task_labels: ['fast', 'gpu/a100'],
        task_concurrency: '3',
      },
    );
    assert.equal(settings.databaseUrl, 'postgres://user@host/tasks');
    assert.deepEqual(settings.taskCommands, ['./backup.sh', 'git *']);
    assert.deepEqual(settings.taskLabels, ['fast', 'gpu/a100']);
    assert.equal(settings.taskConcurrency, 3);
    assert.equal(deviceSettings({}, {}, { task_commands: 'none' }).taskCommands, 'none');
    for (const file of [
      { database_url: 'mysql://secret@host' },
      { database_url: 'sqlite:' },
      { task_commands: ['any', 'ls'] },
      { task_labels: ['Not A Label'] },
      { task_concurrency: '0' },
    ])
      assert.throws(() => deviceSettings({}, {}, file), { code: 'bad_config' }, JSON.stringify(file));
    // It may hold a password.
    assert.throws(
      () => deviceSettings({}, { COCOON_DATABASE_URL: 'mysql://user:secret@host' }, {}),
      (error: Error) => !error.message.includes('secret'),
    );
  });

  test('read ICE servers as URLs and as JSON with credentials', () => {
    const servers = (text: string) => deviceSettings({}, { COCOON_ICE_SERVERS: text }, {}).iceServers;
    assert.deepEqual(servers('stun:a.example:3478, turn:b.example?transport=tcp'), [
      { urls: ['stun:a.example:3478'] },
      { urls: ['turn:b.example?transport=tcp'] },
    ]);
    assert.deepEqual(servers('[{"urls":["turn:c.example"],"username":"u","credential":"p"}]'), [
      { urls: ['turn:c.example'], username: 'u', credential: 'p' },
    ]);
  });
});

describe('a signaling address', () => {
  test('is a ws:// or wss:// URL, and gets the usual path when it has none', () => {
    assert.equal(parseSignalingUrl('ws://192.168.1.10:7400'), 'ws://192.168.1.10:7400/ws');
    assert.equal(parseSignalingUrl('wss://mesh.example/other'), 'wss://mesh.example/other');
    for (const text of [
      'nonsense',
      'http//x',
      'ftp://host/ws',
      'http://host/ws',
      'ws://',
      'ws://user:word@host/ws',
    ])
      assert.throws(() => parseSignalingUrl(text), { code: 'bad_signaling_url' }, text);
  });
});

describe('the name from the host', () => {
  test('is always legal', () => {
    assert.equal(nameFromHost("Anna's MacBook.local"), 'anna-s-macbook');
    assert.equal(nameFromHost('XN--Bcher-kva'), 'bcher-kva');
    assert.equal(nameFromHost('---'), 'cocoon');
    assert.equal(nameFromHost('日本'), 'cocoon');
    for (const host of ['a'.repeat(40), `${'a'.repeat(30)}-b`, 'DESKTOP_42', '9', 'xn', 'xnxn--x', '-_-x-_-'])
      assert.doesNotThrow(() => deviceSettings({ name: nameFromHost(host) }, {}, {}), host);
  });
});

describe('config.toml', () => {
  test('may be missing, and is refused when it is not TOML or has a key that is not known', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'cocoon-config-'));
    const path = join(folder, 'config.toml');
    try {
      assert.deepEqual(await readConfigFile(path), {});
      await writeFile(path, 'name = "server"\ngateway_port = 7500\nservices = ["web:80"]\n');
      assert.deepEqual(await readConfigFile(path), {
        name: 'server',
        gateway_port: '7500',
        services: ['web:80'],
      });
      for (const text of ['name = ', 'nmae = "x"', 'name = { a = 1 }']) {
        await writeFile(path, text);
        await assert.rejects(readConfigFile(path), { code: 'bad_config' }, text);
      }
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});

test('a port is a number from 0 to 65535', () => {
  assert.equal(parsePort('0', 1), 0);
  assert.equal(parsePort(undefined, 7), 7);
});
