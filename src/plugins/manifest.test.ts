import assert from 'node:assert/strict';
import { chmod, symlink } from 'node:fs/promises';
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
          { protocol: 'demo.work', version: '1.0.0', request: schema, limit: 3, features: ['model:tiny'] },
          { protocol: 'demo.work', version: '2.0.0-beta.1', chunk: true },
        ],
        memory_mb: 64,
      }),
    });
    const { name, version, memoryMb, capabilities, mainUrl } = await readManifest(folder.path);
    assert.deepEqual({ name, version, memoryMb }, { name: 'demo', version: '1.0.0', memoryMb: 64 });
    assert.match(mainUrl, /^file:.*plugin\.ts$/);
    const [first, second] = capabilities;
    assert.deepEqual(first, {
      protocol: 'demo.work',
      version: '1.0.0',
      request: schema,
      answer: null,
      chunk: null,
      streams: false,
      limit: 3,
      features: ['model:tiny'],
    });
    assert.equal(second?.streams, true);
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
[capabilities.request]
type = "string"
[[capabilities]]
protocol = "demo.rest"
version = "1.0.0"`,
    });
    const manifest = await readManifest(folder.path);
    assert.equal(manifest.version, '1.2.3');
    assert.deepEqual(
      manifest.capabilities.map(({ protocol, request }) => [protocol, request]),
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

  it('capabilities has to be there', () =>
    refused(
      {
        ...main,
        'package.json': JSON.stringify({ name: 'x', version: '1.0.0', main: 'plugin.ts', cocoon: {} }),
      },
      /capabilities is missing/,
    ));

  it('protocol is a legal name', () =>
    refused(
      withCapabilities({ protocol: 'Demo Work', version: '1.0.0' }),
      /capabilities\.0\.protocol is not "Demo Work"/,
    ));

  it('that is not known is named', () =>
    refused(
      withCapabilities({ protocol: 'demo.work', version: '1.0.0', requests: {} }),
      /has requests, which is not known/,
    ));

  it('main has to be there', () =>
    refused({ ...main, 'package.json': packageJson({}, { main: undefined }) }, /main is missing/));

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

  it('request is a JSON Schema that is understood', async () => {
    const withRequest = (request: unknown) =>
      withCapabilities({ protocol: 'demo.work', version: '1.0.0', request });
    await refused(withRequest({ type: 'nonsense' }), /capabilities\.0\.request: .*nonsense/);
    await refused(withRequest({ type: 'string', pattern: '(' }), /capabilities\.0\.request/);
    await refused(withRequest({ type: 'array', uniqueItems: true }), /uniqueItems, which is not held/);
    await refused(withRequest('text'), /capabilities\.0\.request/);
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
