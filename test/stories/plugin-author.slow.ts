/*
 * Somebody who writes plugins and has nothing but docs/plugins.md: its files are put into an empty folder outside of
 * this project, its commands are run there as they stand.
 */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join, resolve } from 'node:path';
import { after, before, test } from 'node:test';
import { writeFiles } from '../../src/plugins/plugin-doubles.contract.ts';
import { CocoonProcess } from './cocoon-process.ts';
import { ask, offers, plugin } from './plugin-cocoon.ts';

const root = resolve(import.meta.dirname, '../..');

let page: string;
let folder: string;
let cocoon: CocoonProcess;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cocoon-author-'));
  page = (await readFile(join(root, 'docs/plugins.md'), 'utf8')).replaceAll('/path/to/cocoon', root);
  await writeFiles(folder, filesOf(page));
  cocoon = await CocoonProcess.start({
    command: 'up',
    args: ['--no-web', '--port', '0', '--gateway-port', '0', '--name', 'laptop'],
  });
});

after(async () => {
  await cocoon?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

/** Each block that has the name of its file above it. */
function filesOf(text: string): Record<string, string> {
  const named = text.matchAll(/^`([\w./-]+)`\n\n```\w+\n([\s\S]*?)^```$/gm);
  return Object.fromEntries([...named].map(([, name, content]) => [name ?? '', content ?? '']));
}

/** Blocks of a language that are no file. */
function blocks(language: string): string[] {
  const all = page.matchAll(
    new RegExp(`(?<!^\`[\\w./-]+\`\\n\\n)^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\`$`, 'gm'),
  );
  return [...all].map(([, content]) => content ?? '');
}

interface Said {
  readonly code: number | null;
  readonly text: string;
}

async function shell(line: string): Promise<Said> {
  const child = spawn('sh', ['-c', line], {
    cwd: folder,
    env: {
      HOME: folder,
      PATH: [join(root, 'node_modules/.bin'), process.env['PATH']].join(delimiter),
      COCOON_HOME: cocoon.home,
      COCOON_GATEWAY_PORT: new URL(cocoon.gateway).port,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let text = '';
  child.stdout.on('data', (piece: Buffer) => (text += piece.toString()));
  child.stderr.on('data', (piece: Buffer) => (text += piece.toString()));
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, text };
}

test('the page names every file that its commands need', () => {
  assert.deepEqual(Object.keys(filesOf(page)), [
    'greeter/package.json',
    'greeter/plugin.ts',
    'greeter/test/greeter.ts',
    'greeter/tsconfig.json',
    'clock/cocoon-plugin.toml',
    'clock/clock.js',
    'plugin-settings/greeter.toml',
    'relay/plugin.ts',
    'ask.ts',
  ]);
});

test('what the first five minutes say works, line by line', async () => {
  const [first = ''] = blocks('sh');
  const said: Record<string, string> = {};
  for (const line of first.trim().split('\n')) {
    const { code, text } = await shell(line);
    assert.equal(code, 0, `${line}: ${text}`);
    said[line.split(' ').slice(1, 3).join(' ')] = text;
    if (line.includes('plugins add')) await plugin(cocoon, 'greeter');
  }
  assert.match(
    said['plugins list'] ?? '',
    /^greeter +1\.0\.0 +running +greet\.hello 1\.0\.0, greet\.count 1\.0\.0/m,
  );
  assert.match(said['request greet.hello'] ?? '', /"text": "Hello, Anna!"/);
  assert.match(said['request greet.count'] ?? '', /^1\n2\n3\n/);
  assert.match(said['query custom'] ?? '', /"name": "Anna",\s+"askedBy": "laptop"/);
});

test('its types hold: what fits passes, and what does not is found', async () => {
  const read = (path: string) => readFile(join(folder, path), 'utf8');
  const manifest = JSON.parse(await read('greeter/package.json')) as object;
  const capabilities = [{ protocol: 'greet.twice', version: '1.0.0' }];
  await writeFiles(join(folder, 'relay'), {
    'package.json': JSON.stringify({ ...manifest, name: 'relay', cocoon: { capabilities } }),
    'tsconfig.json': await read('greeter/tsconfig.json'),
    'ask.ts': await read('ask.ts'),
  });
  for (const name of ['greeter', 'relay']) {
    const { code, text } = await shell(`tsc -p ${name}`);
    assert.equal(code, 0, text);
  }
  const relay = join(folder, 'relay/plugin.ts');
  const right = await readFile(relay, 'utf8');
  for (const [from, to, found] of [
    ['result.text}`', 'result.txet}`', /'txet' does not exist/],
    ['{ name }, { signal }', '{ name: 5 }, { signal }', /'number' is not assignable to type 'string'/],
  ] as const) {
    assert.ok(right.includes(from));
    await writeFile(relay, right.replace(from, to));
    const { code, text } = await shell('tsc -p relay');
    assert.notEqual(code, 0);
    assert.match(text, found);
  }
  await writeFile(relay, right);
});

test('its settings, its manifest in TOML, and its questions of a plugin and of a program work', async () => {
  await writeFiles(cocoon.home, {
    'plugin-settings/greeter.toml': await readFile(join(folder, 'plugin-settings/greeter.toml'), 'utf8'),
  });
  for (const line of [
    'cocoon plugins remove greeter',
    'cocoon plugins add greeter',
    'cocoon plugins add clock',
    'cocoon plugins add relay',
  ]) {
    const { code, text } = await shell(line);
    assert.equal(code, 0, text);
  }
  for (const protocol of ['greet.hello', 'time.now', 'greet.twice']) await offers(cocoon, 'laptop', protocol);
  const twice = await ask(cocoon, 'greet.twice', { name: 'Anna' });
  assert.deepEqual(twice.body.result, { text: 'Good morning, Anna! Good morning, Anna!', by: 'laptop' });
  const { now } = (await ask(cocoon, 'time.now', null)).body.result as { now: string };
  assert.ok(Math.abs(Date.parse(now) - Date.now()) < 60_000, now);
  const program = await shell(`node --import ${join(root, 'cocoon/register.ts')} ask.ts`);
  assert.deepEqual(program, { code: 0, text: '{"text":"Good morning, Ben!"}\nlaptop true\n' });
});

test('its other pieces run', async () => {
  const [short = '', started = ''] = blocks('ts');
  await writeFile(join(folder, 'short.ts'), `${short}\nassertShort('a'.repeat(1001));`);
  await writeFile(join(folder, 'started.ts'), started);
  const hook = `node --import ${join(root, 'cocoon/register.ts')}`;
  const thrown = await shell(`${hook} short.ts`);
  assert.match(thrown.text, /PluginError: At most 1000 characters are greeted/);
  const answered = await shell(`${hook} started.ts`);
  assert.deepEqual(answered, { code: 0, text: "{ text: 'Hi. Hi.', by: 'tests' }\n" });
});

test('the tests of a plugin turn red when it is broken', async () => {
  const source = join(folder, 'greeter/plugin.ts');
  const right = await readFile(source, 'utf8');
  const hook = join(root, 'cocoon/register.ts');
  const only = (name: string) => `cd greeter && node --import ${hook} --test --test-name-pattern='${name}'`;
  for (const [from, to, found, line] of [
    [
      '}, ${name}!`',
      '}. ${name}!`',
      /✖ greet\.hello answers .* as its schemas say/,
      only('as its schemas say'),
    ],
    ['return { text:', 'return { txet:', /breaks its schema: text: /, only('as its schemas say')],
    ["'greet.count'", "'greet.cuont'", /greet\.cuont is not in the manifest/, 'cocoon plugins test greeter'],
    [
      'queries: {',
      'stop: () => new Promise(() => undefined),\n  queries: {',
      /it had to be killed/,
      only('stops by itself'),
    ],
  ] as const) {
    assert.ok(right.includes(from), from);
    await writeFile(source, right.replace(from, to));
    const { code, text } = await shell(line);
    assert.equal(code, 1, `${to}: ${text}`);
    assert.match(text, found);
  }
  await writeFile(source, right);
});
