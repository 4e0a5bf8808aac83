import assert from 'node:assert/strict';
import { symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { findPlugins } from './discovery.node.ts';
import { splitPaths } from './path-list.node.ts';
import { makeFolder, packageJson, writeFiles } from './plugin-doubles.contract.ts';

const good = { 'package.json': packageJson(), 'plugin.ts': 'export default {};' };

describe('plugins', () => {
  it('are found by flag, by variable and in the home, in that order', async () => {
    await using folder = await makeFolder();
    const home = join(folder.path, 'home');
    for (const name of ['flag', 'variable', 'home/b', 'home/a'])
      await writeFiles(join(folder.path, name), good);
    await symlink(join(folder.path, 'flag'), join(home, 'again'));
    await writeFiles(home, { 'README.md': 'no plugin', '.git/config': '' });
    const found = await findPlugins({
      flags: [join(folder.path, 'flag')],
      variable: [join(folder.path, 'variable')],
      home,
    });
    assert.deepEqual(
      found.map(({ path, origin }) => [path.slice(folder.path.length + 1), origin]),
      [
        ['flag', 'flag'],
        ['variable', 'variable'],
        ['home/a', 'home'],
        ['home/b', 'home'],
      ],
    );
  });

  it('that cannot be used are found with the reason', async () => {
    await using folder = await makeFolder();
    await writeFiles(join(folder.path, 'home/broken'), { 'package.json': '{' });
    await symlink('/there/is/nothing', join(folder.path, 'home/dangling'));
    const found = await findPlugins({ flags: ['/nor/here'], variable: [], home: join(folder.path, 'home') });
    assert.deepEqual(
      found.map(({ manifest, problem }) => [manifest, problem?.code]),
      [
        [null, 'bad_manifest'],
        [null, 'bad_manifest'],
        [null, 'bad_manifest'],
      ],
    );
  });

  it('need no folder in the home', async () => {
    assert.deepEqual(await findPlugins({ flags: [], variable: [], home: '/there/is/nothing' }), []);
  });
});

it('COCOON_PLUGINS is a list of paths', () => {
  assert.deepEqual(splitPaths('/a:/b c, /d:'), ['/a', '/b c', '/d']);
  assert.deepEqual(splitPaths(undefined), []);
});
