import assert from 'node:assert/strict';
import { chmod, mkdir, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { readManifest } from './manifest.node.ts';
import { makeFolder, packageJson, writeFiles } from './plugin-doubles.contract.ts';

const main = { 'plugin.ts': 'export default {};' };

async function refused(files: Readonly<Record<string, string>>, message: RegExp): Promise<void> {
  await using folder = await makeFolder();
  await writeFiles(folder.path, files);
  await assert.rejects(readManifest(folder.path), { code: 'bad_manifest', message });
}

function withCapabilities(...capabilities: readonly object[]): Record<string, string> {
  return { ...main, 'package.json': packageJson({ capabilities }) };
}

describe('a manifest', () => {
  it('stands in a package.json', async () => {
    await using folder = await makeFolder();
    const schema = { type: 'object', properties: { text: { type: 'string' } } };
    await writeFiles(folder.path, {
      ...main,
      'package.json': packageJson({
        capabilities: [
          { protocol: 'demo.work', version: '1.0.0', payload: schema, limit: 3, features: ['model:tiny'] },
          { protocol: 'demo.work', version: '2.0.0-beta.1', answer: true },
          { protocol: 'demo.work', version: '3.0.0', answer: true, chunk: true },
          { protocol: 'demo.work', version: '4.0.0', chunk: false },
        ],
        memory_mb: 64,
      }),
    });
    const { name, version, memoryMb, capabilities, mainUrl } = await readManifest(folder.path);
    assert.deepEqual({ name, version, memoryMb }, { name: 'demo', version: '1.0.0', memoryMb: 64 });
    assert.match(mainUrl, /^file:.*plugin\.ts$/);
    const [first, ...others] = capabilities;
    assert.deepEqual(first, {
      protocol: 'demo.work',
      version: '1.0.0',
      payload: schema,
      answer: null,
      chunk: null,
      streams: true,
      limit: 3,
      features: ['model:tiny'],
    });
    assert.deepEqual(
      others.map(({ streams }) => streams),
      [false, true, false],
    );
  });

  it('or in a cocoon-plugin.toml', async () => {
    await using folder = await makeFolder();
    await writeFiles(folder.path, {
      ...main,
      'package.json': JSON.stringify({ name: 'of-something-else' }),
      'cocoon-plugin.toml': `
name = "demo"
version = "1.2.3"
main = "plugin.ts"
[[capabilities]]
protocol = "demo.work"
version = "1.0.0"
[capabilities.payload]
type = "string"
[[capabilities]]
protocol = "demo.rest"
version = "1.0.0"`,
    });
    const manifest = await readManifest(folder.path);
    assert.equal(manifest.version, '1.2.3');
    assert.deepEqual(
      manifest.capabilities.map(({ protocol, payload }) => [protocol, payload]),
      [
        ['demo.work', { type: 'string' }],
        ['demo.rest', null],
      ],
    );
  });

  it('is not there twice', () =>
    refused({ ...main, 'package.json': packageJson(), 'cocoon-plugin.toml': '' }, /two manifests/));

  it('is missing by name', () => refused(main, /neither a cocoon-plugin\.toml nor "cocoon"/));

  it('that is no JSON is refused with its path', () =>
    refused({ ...main, 'package.json': '{' }, /package\.json: it could not be read/));

  it('that is no TOML is refused with the place', () =>
    refused({ ...main, 'cocoon-plugin.toml': 'name = ' }, /cocoon-plugin\.toml: it could not be read/));

  it('of a folder that is not there is refused', async () => {
    await assert.rejects(readManifest('/there/is/nothing'), {
      code: 'bad_manifest',
      message: /no such folder/,
    });
  });
});

describe('a field of a manifest', () => {
  it('version is a full one, of the plugin and of each capability', async () => {
    await refused(
      { ...main, 'package.json': packageJson({}, { version: '1.0' }) },
      /version is not "1\.0": it is a full version/,
    );
    await refused(
      withCapabilities({ protocol: 'demo.work', version: '^1.0.0' }),
      /capabilities\.0\.version is not "\^1\.0\.0"/,
    );
    await refused(withCapabilities({ protocol: 'demo.work', version: '01.0.0' }), /01\.0\.0/);
  });

  it('capabilities has none twice', () =>
    refused(
      withCapabilities(
        { protocol: 'demo.work', version: '1.0.0' },
        { protocol: 'demo.work', version: '1.0.0' },
      ),
      /demo\.work 1\.0\.0 stands in it twice/,
    ));

  it('protocol is a legal name', () =>
    refused(
      withCapabilities({ protocol: 'Demo Work', version: '1.0.0' }),
      /capabilities\.0\.protocol is not "Demo Work"/,
    ));

  it('that is not known is named', () =>
    refused(
      withCapabilities({ protocol: 'demo.work', version: '1.0.0', payloads: {} }),
      /has payloads, which is not known/,
    ));

  it('name, version, main and capabilities have defaults', async () => {
    await using folder = await makeFolder();
    const clock = join(folder.path, 'clock');
    await mkdir(clock);
    await writeFiles(clock, {
      'index.ts': '',
      'plugin.ts': '',
      'cocoon-plugin.toml': 'description = "Tells the time"',
    });
    const { name, version, mainUrl, capabilities } = await readManifest(clock);
    assert.deepEqual([name, version, capabilities], ['clock', '0.0.0', []]);
    assert.match(mainUrl, /clock\/plugin\.ts$/);
    await refused({ 'cocoon-plugin.toml': 'name = "x"' }, /main is missing/);
  });

  it('name, if not said, is made of that of the folder, whatever that is', async () => {
    await using folder = await makeFolder();
    for (const [called, name] of [
      ['Odd Name', 'odd-name'],
      ['Gerät №1', 'gerat-no1'],
      ['_x.', 'x'],
      ['时钟', 'plugin'],
      ['a'.repeat(100), 'a'.repeat(64)],
    ] as const) {
      const odd = join(folder.path, called);
      await mkdir(odd);
      await writeFiles(odd, { ...main, 'cocoon-plugin.toml': '' });
      assert.equal((await readManifest(odd)).name, name);
    }
  });

  it('main names a file that exists', () =>
    refused({ 'package.json': packageJson() }, /main names plugin\.ts, which is not there/));

  it('main stays inside of the folder, by its text and by symbolic links', async () => {
    await using outside = await makeFolder();
    await writeFiles(outside.path, main);
    await refused(
      { 'package.json': packageJson({}, { main: '../plugin.ts' }) },
      /outside of the plugin's folder/,
    );
    await refused({ 'package.json': packageJson({}, { main: join(outside.path, 'plugin.ts') }) }, /outside/);
    await using folder = await makeFolder();
    await writeFiles(folder.path, { 'package.json': packageJson() });
    await symlink(join(outside.path, 'plugin.ts'), join(folder.path, 'plugin.ts'));
    await assert.rejects(readManifest(folder.path), { code: 'bad_manifest', message: /outside/ });
  });

  it('payload is a JSON Schema that is understood', async () => {
    const withPayload = (payload: unknown) =>
      withCapabilities({ protocol: 'demo.work', version: '1.0.0', payload });
    await refused(withPayload({ type: 'nonsense' }), /capabilities\.0\.payload: .*type must be/);
    await refused(withPayload({ type: 'string', pattern: '(' }), /capabilities\.0\.payload/);
    await refused(withPayload({ type: 'array', uniqItems: true }), /unknown keyword: "uniqItems"/);
    await refused(withPayload('text'), /capabilities\.0\.payload/);
  });
});

describe('code that others could have changed', () => {
  it('is not run', async () => {
    await using folder = await makeFolder();
    await writeFiles(folder.path, { ...main, 'package.json': packageJson() });
    await chmod(join(folder.path, 'plugin.ts'), 0o666);
    await assert.rejects(readManifest(folder.path), {
      code: 'bad_manifest',
      message: /plugin\.ts: everybody on this machine can change it/,
    });
  });
});
