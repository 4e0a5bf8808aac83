/** This installation once more, in a folder of its own, without one of its packages. */

import { cp, mkdir, mkdtemp, readdir, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join, relative, resolve } from 'node:path';
import { realpathSync } from 'node:fs';

const root = resolve(import.meta.dirname, '../..');
/** Ours are copied, since they look for packages from where they lie. Those of others are linked. */
const copied = ['cocoon', 'protocol', 'signaling', 'src', 'package.json'];
const ownScope = '@cocoon-mesh';

export interface OtherInstallation extends AsyncDisposable {
  /** The command. */
  readonly program: string;
}

export async function installedWithout(absent: string): Promise<OtherInstallation> {
  const folder = await mkdtemp(join(tmpdir(), 'cocoon-installed-'));
  for (const name of copied) {
    const filter = (path: string): boolean => basename(path) !== 'node_modules';
    await cp(join(root, name), join(folder, name), { recursive: true, filter });
  }
  const packages = join(folder, 'node_modules');
  await mkdir(join(packages, ownScope), { recursive: true });
  for (const name of await readdir(join(root, 'node_modules'))) {
    if (name === absent || name === ownScope || name.startsWith('.')) continue;
    await symlink(join(root, 'node_modules', name), join(packages, name));
  }
  for (const name of await readdir(join(root, 'node_modules', ownScope))) {
    const real = realpathSync(join(root, 'node_modules', ownScope, name));
    await symlink(join(folder, relative(root, real)), join(packages, ownScope, name));
  }
  // Of one workspace only, where two need different versions.
  for (const place of ['src', '.'])
    for (const name of await readdir(join(root, place))) {
      const own = join(root, place, name, 'node_modules');
      if (!copied.includes(place === '.' ? name : place)) continue;
      const there = await readdir(own).catch(() => []);
      if (there.length > 0) await symlink(own, join(folder, place, name, 'node_modules'));
    }
  return {
    program: join(packages, ownScope, 'cocoon/bin/cocoon'),
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
  };
}
