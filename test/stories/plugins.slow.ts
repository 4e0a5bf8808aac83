/*
 * Plugins as their users and authors meet them: folders outside of this project, without any package beside them, run
 * by installed cocoons, found in each place, asked from other devices, and refused where they are not as they have to be.
 */

import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { packageJson, writeFiles } from '../../src/plugins/plugin-doubles.contract.ts';
import { CocoonProcess, failure, sees } from './cocoon-process.ts';
import { ask, channelsOf, offers, plugin, pluginsOf, until } from './plugin-cocoon.ts';

const text = { type: 'object', properties: { text: { type: 'string' } }, required: ['text'] };

/** Two versions of one protocol; what its requests tell it; an answer that breaks its own schema. */
const tools = {
  'package.json': packageJson(
    {
      capabilities: [
        { protocol: 'demo.upper', version: '1.4.0', payload: text, answer: text },
        { protocol: 'demo.upper', version: '2.0.0', payload: text },
        { protocol: 'demo.told', version: '1.0.0' },
        { protocol: 'demo.wrong', version: '1.0.0', answer: text },
        { protocol: 'demo.count', version: '1.0.0', chunk: { type: 'integer' } },
        { protocol: 'demo.off', version: '1.0.0' },
      ],
      settings: {
        type: 'object',
        properties: { mark: { type: 'string' }, times: { type: 'integer', default: 3 } },
      },
    },
    { name: 'tools' },
  ),
  'plugin.ts': `
    import { existsSync, writeFileSync } from 'node:fs';
    import { join } from 'node:path';
    import { definePlugin, type RequestContext } from 'cocoon/plugin';
    import { connect } from 'cocoon/client';

    interface Text { readonly text: string }

    export default definePlugin({
      capabilities: {
        'demo.upper@1.4.0': { handle: ({ text }: Text) => ({ text: text.toUpperCase() }) },
        'demo.upper@2.0.0': { handle: async ({ text }: Text) => text.toUpperCase() },
        'demo.told': {
          handle(_payload: null, { from, settings, dataDir, log }: RequestContext) {
            const file = join(dataDir, 'kept');
            const kept = existsSync(file);
            writeFileSync(file, 'kept');
            log.warn('The plugin was told something', { by: from.name });
            return { from, settings, dataDir, kept, client: typeof connect, environment: process.env };
          },
        },
        'demo.wrong': { handle: () => ({ text: 5 }) },
        'demo.count': {
          async *handle({ to }: { to: number }, { signal, dataDir }: RequestContext) {
            try {
              for (let at = 1; at <= to; at++) yield at;
            } finally {
              if (signal.aborted) writeFileSync(join(dataDir, 'left'), 'left');
            }
          },
        },
        'demo.off': { handle: () => null },
      },
    });`,
};

/** In TOML; its query is answered by every device that has it. */
const notes = (device: string, marks: readonly number[]) => ({
  'cocoon-plugin.toml': `
    name = "notes"
    version = "0.2.0"
    main = "notes.ts"
    [[capabilities]]
    protocol = "demo.left"
    version = "1.0.0"
    [[capabilities]]
    protocol = "demo.relay"
    version = "1.0.0"`,
  'notes.ts': `
    import { PluginError, definePlugin, ranked } from 'cocoon/plugin';
    const upper = {
      protocol: 'demo.upper', version: '^1.0.0',
      payload: ${JSON.stringify(text)}, answer: ${JSON.stringify(text)},
    } as const;
    export default definePlugin({
      capabilities: {
        'demo.left': { handle: () => null },
        'demo.relay': {
          async handle(payload: { text: string }, context) {
            const { result, source } = await context.requestCapability(upper, payload, { signal: context.signal });
            // By its schema this is a text, also for the compiler.
            const said: string = result.text;
            return { said, device: source.device };
          },
        },
      },
      queries: {
        notes({ least }, { from }) {
          if (least !== undefined && typeof least !== 'number') throw new PluginError('bad_filter', 'least: no number');
          return ${JSON.stringify(marks)}
            .filter((mark) => mark >= (least ?? 0))
            .map((mark) => ranked(mark, { mark, on: ${JSON.stringify(device)}, for: from.name, id: from.id }));
        },
      },
    });`,
});

/** Why each is refused. */
const bad: Readonly<Record<string, readonly [Readonly<Record<string, string>>, RegExp]>> = {
  version: [
    {
      'package.json': packageJson(
        { capabilities: [{ protocol: 'demo.a', version: '1' }] },
        { name: 'version' },
      ),
      'plugin.ts': '',
    },
    /capabilities\.0\.version is not "1": it is a full version/,
  ],
  twice: [
    {
      'package.json': packageJson(
        {
          capabilities: [
            { protocol: 'demo.a', version: '1.0.0' },
            { protocol: 'demo.a', version: '1.0.0' },
          ],
        },
        { name: 'twice' },
      ),
      'plugin.ts': '',
    },
    /demo\.a 1\.0\.0 stands in it twice/,
  ],
  protocol: [
    {
      'package.json': packageJson(
        { capabilities: [{ protocol: 'Demo A', version: '1.0.0' }] },
        { name: 'protocol' },
      ),
      'plugin.ts': '',
    },
    /capabilities\.0\.protocol is not "Demo A"/,
  ],
  main: [{ 'package.json': packageJson({}, { name: 'main' }) }, /main names plugin\.ts, which is not there/],
  json: [{ 'package.json': '{ "name": ' }, /package\.json: it could not be read/],
  toml: [{ 'cocoon-plugin.toml': 'name = \n[[' }, /cocoon-plugin\.toml: it could not be read/],
  schema: [
    {
      'package.json': packageJson(
        { capabilities: [{ protocol: 'demo.a', version: '1.0.0', payload: { type: 'strnig' } }] },
        { name: 'schema' },
      ),
      'plugin.ts': '',
    },
    /capabilities\.0\.payload: /,
  ],
  'same-name': [
    { 'package.json': packageJson({}, { name: 'tools' }), 'plugin.ts': '' },
    /A plugin of the name tools is there already/,
  ],
  reserved: [
    {
      'package.json': packageJson(
        { capabilities: [{ protocol: 'tasks', version: '1.0.0' }] },
        { name: 'reserved' },
      ),
      'plugin.ts': '',
    },
    /tasks is offered by the device itself/,
  ],
};

let folder: string;
let laptop: CocoonProcess;
let box: CocoonProcess;
let phone: CocoonProcess;

/** What the box is started with and no plugin may see. */
let secrets: Readonly<Record<string, string>>;

async function token(...narrowed: readonly string[]): Promise<string> {
  return (await laptop.json<{ token: string }>('generate-token', ...narrowed)).token;
}

async function joins(name: string, input: string): Promise<CocoonProcess> {
  const args = ['--name', name, '--gateway-port', '0', '--token', '-'];
  return CocoonProcess.start({ command: 'run', args, input });
}

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cocoon-plugins-'));
  const at = (...path: string[]) => join(folder, ...path);
  await writeFiles(at('tools'), tools);
  await writeFiles(at('laptop-notes'), notes('laptop', [3, 1]));
  // Found in the home, without being named.
  await writeFiles(at('box', 'plugins', 'notes'), notes('box', [4, 2]));
  await writeFiles(at('box', 'plugin-settings'), { 'tools.toml': 'mark = "of the user"\n' });
  await writeFiles(at('variable'), {
    'package.json': packageJson(
      { capabilities: [{ protocol: 'demo.plain', version: '1.0.0' }] },
      { name: 'variable' },
    ),
    'plugin.ts': "export default { capabilities: { 'demo.plain': { handle: (payload) => payload } } };",
  });
  for (const [name, [files]] of Object.entries(bad)) await writeFiles(at('bad', name), files);
  laptop = await CocoonProcess.start({
    command: 'up',
    args: [
      '--no-web',
      '--port',
      '0',
      '--name',
      'laptop',
      '--gateway-port',
      '0',
      '--plugin',
      at('laptop-notes'),
    ],
  });
  await writeFiles(at('broken'), {
    'package.json': packageJson({}, { name: 'broken' }),
    'plugin.ts': "throw new RangeError('not today');",
  });
  const paths = [at('variable'), at('broken'), ...Object.keys(bad).map((name) => at('bad', name))];
  secrets = {
    COCOON_SETUP_TOKEN: await token(),
    COCOON_SECRET: (await laptop.json<{ secret: string }>('secret', 'show')).secret,
    COCOON_LLM_API_KEY: 'key-that-no-plugin-may-see',
    COCOON_DATABASE_URL: `sqlite:${at('box', 'own-tasks.db')}`,
    OPENAI_API_KEY: 'another-key-of-the-user',
  };
  box = await CocoonProcess.start({
    command: 'run',
    args: [
      '--name',
      'box',
      '--signaling',
      laptop.signaling,
      '--gateway-port',
      '0',
      '--plugin',
      at('tools'),
      '--disable-capability',
      'demo.off',
    ],
    home: at('box'),
    env: { ...secrets, COCOON_PLUGINS: paths.join(':') },
  });
  phone = await joins('phone', await token());
  await sees(laptop, 'box');
  await sees(laptop, 'phone');
  for (const protocol of ['demo.upper', 'demo.relay', 'demo.plain']) await offers(laptop, 'box', protocol);
  await offers(laptop, 'laptop', 'demo.relay');
});

after(async () => {
  for (const cocoon of [phone, box, laptop]) await cocoon?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

test('plugins are found by flag, by variable and in the home, with either manifest, and run where they lie', async () => {
  const found = (await pluginsOf(box)).filter(({ state }) => state === 'running');
  assert.deepEqual(
    found.map(({ name, origin }) => [name, origin]),
    [
      ['tools', 'flag'],
      ['variable', 'variable'],
      ['notes', 'home'],
    ],
  );
  const { stdout } = await box.command(['plugins', 'list']);
  assert.match(stdout, /^notes +0\.2\.0 +running +demo\.left 1\.0\.0, demo\.relay 1\.0\.0/m);
  assert.match(stdout, /^tools .*demo\.off 1\.0\.0 \(off\)/m);
});

test('each that is not as it has to be is refused with the reason, and nothing else is', async () => {
  const found = await pluginsOf(box);
  const { findings: doctor } = JSON.parse((await box.command(['doctor', '--json'])).stdout) as {
    findings: { check: string; state: string; detail: string; hint: string }[];
  };
  const listed = (await box.command(['plugins', 'list'])).stdout;
  for (const [name, [, why]] of Object.entries(bad)) {
    const one = found.find(({ path }) => path === join(folder, 'bad', name));
    assert.ok(one, name);
    assert.equal(one.state, 'refused');
    assert.equal(one.code, 'bad_manifest', name);
    assert.match(one.why ?? '', why);
    assert.match(listed, why);
    const finding = doctor.find(({ detail }) => why.test(detail));
    assert.equal(finding?.state, 'fail', name);
    assert.match(finding?.hint ?? '', /Correct the field/);
  }
  assert.equal(doctor.find(({ check }) => check === 'plugin notes')?.state, 'ok');
  const broken = await plugin(box, 'broken', 'waiting');
  assert.match(broken.why ?? '', /It could not be started: RangeError: not today/);
  assert.equal(broken.code, 'plugin_failed');
});

describe('a capability of a plugin', () => {
  test('is there in each of its versions, for other devices too', async () => {
    const first = await ask(laptop, 'demo.upper', { text: 'a' }, { version: '^1.0.0' });
    const second = await ask(laptop, 'demo.upper', { text: 'a' }, { version: '^2.0.0' });
    assert.deepEqual([first.device, first.body.result], ['box', { text: 'A' }]);
    assert.deepEqual([second.device, second.body.result], ['box', 'A']);
  });

  test('checks what it is asked, naming the place, for commands and for programs', async () => {
    const done = await laptop.command(['request', 'demo.upper@^1.0.0', '{"text":5}', '--json']);
    assert.equal(done.code, 2);
    const { error } = JSON.parse(done.stderr) as { error: { code: string; message: string } };
    assert.equal(error.code, 'bad_payload');
    assert.match(error.message, /text: /);
    const { status, body } = await ask(laptop, 'demo.upper', {}, { version: '^1.0.0' });
    assert.deepEqual([status, body.code], [400, 'bad_payload']);
    assert.match(body.title ?? '', /text: /);
  });

  test('whose answer breaks its own schema has answered badly', async () => {
    const { status, body } = await ask(laptop, 'demo.wrong', null);
    assert.deepEqual([status, body.code], [502, 'bad_answer']);
    assert.match(body.title ?? '', /demo\.wrong 1\.0\.0 breaks its schema: text: /);
  });

  test('comes as a stream, which whoever leaves it ends', async () => {
    const done = await laptop.command(['request', 'demo.count', '{"to":3}', '--stream', '--json']);
    assert.equal(done.code, 0, done.stderr);
    assert.deepEqual(
      [...done.stdout.matchAll(/"chunk":(\d)/g)].map(([, number]) => number),
      ['1', '2', '3'],
    );
    const leaving = new AbortController();
    const response = await fetch(`${laptop.gateway}/capabilities/demo.count`, {
      method: 'POST',
      headers: {
        authorization: `Bearer ${await laptop.gatewayToken()}`,
        'content-type': 'application/json',
      },
      body: JSON.stringify({ payload: { to: 1e12 } }),
      signal: leaving.signal,
    });
    assert.ok(response.body);
    for await (const _ of response.body) break;
    leaving.abort();
    const left = join(folder, 'box', 'plugin-data', 'tools', 'left');
    await until('the plugin was told', () => readFile(left, 'utf8').catch(() => null));
  });

  test('that was switched off is offered to nobody', async () => {
    assert.deepEqual(await failure(laptop.home, ['request', 'demo.off']), {
      code: 'capability_not_found',
      exit: 3,
    });
    assert.deepEqual(await failure(box.home, ['request', 'demo.off']), {
      code: 'capability_not_found',
      exit: 3,
    });
  });
});

describe('a plugin', () => {
  test('is told who asks, its settings and its folder, and nothing of what is secret', async () => {
    interface Told {
      readonly from: { readonly id: string; readonly name: string };
      readonly settings: unknown;
      readonly dataDir: string;
      readonly kept: boolean;
      readonly client: string;
      readonly environment: Readonly<Record<string, string>>;
    }
    const told = (await ask(laptop, 'demo.told', null)).body.result as Told;
    assert.deepEqual(told.from, { id: laptop.peerId, name: 'laptop' });
    assert.deepEqual(told.settings, { mark: 'of the user', times: 3 });
    assert.equal(told.dataDir, join(folder, 'box', 'plugin-data', 'tools'));
    assert.equal((await stat(told.dataDir)).mode & 0o777, 0o700);
    assert.deepEqual([told.kept, told.client], [false, 'function']);
    const own = (await ask(box, 'demo.told', null)).body.result as Told;
    assert.deepEqual([own.from.name, own.kept], ['box', true]);

    const names = Object.keys(told.environment);
    assert.ok(names.includes('PATH'));
    assert.deepEqual(
      names.filter((name) => /COCOON_(?!PLUGIN_RUN)|SIGNALING|OPENAI|KEY|TOKEN|SECRET|DATABASE/.test(name)),
      [],
    );
    const values = JSON.stringify(told.environment);
    for (const secret of Object.values(secrets)) assert.ok(!values.includes(secret));
    assert.match((await box.command(['logs'])).stdout, /The plugin was told something/);
  });

  test('asks other devices, with types of its own, and gets their errors by code', async () => {
    const { device, body } = await ask(laptop, 'demo.relay', { text: 'far' });
    assert.deepEqual([device, body.result], ['laptop', { said: 'FAR', device: 'box' }]);
    const refused = await ask(laptop, 'demo.relay', { text: 5 });
    assert.equal(refused.body.code, 'bad_payload');
    assert.match(refused.body.title ?? '', /text: /);
  });

  test(
    'holds no channel of another one, nor of its device',
    { skip: process.platform !== 'linux' },
    async () => {
      // The one that is broken is started again and again, and may have a process just now.
      const running = (await pluginsOf(box)).filter(({ state }) => state === 'running');
      assert.equal(running.length, 3);
      const held = await Promise.all([box.pid, ...running.map(({ pid }) => pid ?? 0)].map(channelsOf));
      const all = held.flat();
      assert.ok(all.length > 10);
      assert.deepEqual(
        all.filter((channel, at) => all.indexOf(channel) !== at),
        [],
      );
    },
  );
});

describe('a query of plugins', () => {
  interface Answer {
    readonly rows: readonly {
      readonly device: string;
      readonly value: {
        readonly mark: number;
        readonly on: string;
        readonly for: string;
        readonly id: string;
      };
    }[];
    readonly devices: readonly {
      readonly name: string;
      readonly status: string;
      readonly error?: { code: string };
    }[];
  }

  async function query(asker: CocoonProcess, params: object): Promise<Answer> {
    const { stdout } = await asker.command(['query', 'custom', '--params', JSON.stringify(params), '--json']);
    const lines = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { result?: Answer });
    return lines.at(-1)?.result ?? assert.fail(stdout);
  }

  test('is answered by every device that has it, as one list, and by name where it is not', async () => {
    const { rows, devices } = await query(phone, { name: 'notes' });
    assert.deepEqual(
      rows.map(({ device, value }) => [value.mark, value.on, device === value.on]),
      [
        [4, 'box', true],
        [3, 'laptop', true],
        [2, 'box', true],
        [1, 'laptop', true],
      ],
    );
    for (const { value } of rows) assert.deepEqual([value.for, value.id], ['phone', phone.peerId]);
    const outcomes = devices.map(({ name, status, error }) => [name, [status, error?.code ?? null]] as const);
    assert.deepEqual(Object.fromEntries(outcomes), {
      box: ['ok', null],
      laptop: ['ok', null],
      phone: ['error', 'unsupported'],
    });
    assert.deepEqual((await query(box, { name: 'notes' })).rows[0]?.value.for, 'box');
  });

  test('gets its parameters, and says what is wrong with them', async () => {
    const { rows } = await query(laptop, { name: 'notes', least: 3 });
    assert.deepEqual(
      rows.map(({ value }) => value.mark),
      [4, 3],
    );
    const { devices } = await query(laptop, { name: 'notes', least: 'x' });
    assert.equal(devices.find(({ name }) => name === 'box')?.error?.code, 'bad_filter');
  });

  test('is denied to a device that was given something else', async () => {
    await using guest = await joins('guest', await token('--capability', 'demo.upper'));
    await sees(guest, 'box');
    const { devices } = await query(guest, { name: 'notes' });
    assert.equal(devices.find(({ name }) => name === 'box')?.status, 'denied');
  });
});

test('a plugin that is added runs, also after a restart, until it is removed', async () => {
  const added = await writeFiles(join(folder, 'added'), {
    'package.json': packageJson(
      { capabilities: [{ protocol: 'demo.added', version: '0.1.0' }] },
      { name: 'added' },
    ),
    'plugin.ts': "export default { capabilities: { 'demo.added': { handle: () => 'added' } } };",
  });
  assert.deepEqual(await failure(phone.home, ['plugins', 'add', join(folder, 'bad', 'twice')]), {
    code: 'bad_manifest',
    exit: 2,
  });
  await phone.json('plugins', 'add', added);
  await plugin(phone, 'added');
  await offers(laptop, 'phone', 'demo.added');
  assert.equal((await ask(laptop, 'demo.added', null)).body.result, 'added');
  await phone.restart({ input: '' });
  await plugin(phone, 'added');
  await offers(laptop, 'phone', 'demo.added');
  assert.equal((await ask(laptop, 'demo.added', null)).body.result, 'added');
  await phone.json('plugins', 'remove', 'added');
  await offers(laptop, 'phone', 'demo.added', false);
  assert.equal((await ask(laptop, 'demo.added', null)).body.code, 'capability_not_found');
  await phone.restart({ input: '' });
  assert.deepEqual(await pluginsOf(phone), []);
  assert.deepEqual(await failure(phone.home, ['plugins', 'remove', 'added']), { code: 'not_found', exit: 3 });
});
