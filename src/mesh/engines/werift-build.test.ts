import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { MeshError } from '@cocoon-mesh/protocol';
import { loadWerift } from './werift-build.node.ts';

const unavailable = (error: unknown): boolean =>
  error instanceof MeshError && error.code === 'engine_unavailable';

describe('loading werift', () => {
  it('gives the installed build, which is the reviewed one', async () => {
    assert.equal(typeof (await loadWerift()).Connection, 'function');
  });

  it('refuses any other build, without running it', async () => {
    const build = await readFile(fileURLToPath(import.meta.resolve('werift')), 'utf8');
    const folder = await mkdtemp(join(tmpdir(), 'cocoon-werift-'));
    try {
      const files = { other: 'globalThis.unreviewedRan = true;', changed: `${build} ` };
      for (const [name, text] of Object.entries(files)) {
        const path = join(folder, `${name}.mjs`);
        await writeFile(path, text);
        await assert.rejects(
          loadWerift(() => pathToFileURL(path).href),
          unavailable,
        );
      }
      assert.equal('unreviewedRan' in globalThis, false);
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it('says so when it is not installed', async () => {
    await assert.rejects(
      loadWerift(() => import.meta.resolve('werift-that-is-not-there')),
      unavailable,
    );
  });
});
