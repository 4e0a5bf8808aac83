import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { TaskFiles, taskFolders } from './task-files.node.ts';
import { TaskLog } from './task-log.node.ts';

const id = '01900000-0000-7000-8000-000000000001';
let root = '';

before(async () => {
  root = join(await mkdtemp(join(tmpdir(), 'cocoon-task-files-')), 'tasks');
});
after(() => rm(join(root, '..'), { recursive: true }));

async function modeOf(path: string): Promise<number> {
  return (await stat(path)).mode & 0o777;
}

describe('the files of a task', () => {
  test('lie in a folder of its id, and nothing else becomes a path', () => {
    assert.equal(new TaskFiles(root, id).folder, join(root, id));
    for (const bad of ['..', '../../etc', '', `${id}/..`, `${id}\0`, id.toUpperCase().replace('8', 'A'), '/'])
      assert.throws(() => new TaskFiles(root, bad), bad);
  });

  test('are read by nobody else, whatever the umask', async () => {
    const before = process.umask(0);
    try {
      const files = new TaskFiles(root, id);
      await files.prepare('{"secret":1}');
      await files.writeProcess({ pid: 4_000_000, start_time: null });
      await files.writeEnd({ status: 'completed', exitCode: 0, error: null, output: null });
      const log = new TaskLog(files.log);
      log.append(Buffer.from('secret'));
      await log.close();
      for (const folder of [root, files.folder, files.work, files.log])
        assert.equal(await modeOf(folder), 0o700, folder);
      const first = join(files.log, `${'0'.repeat(16)}.log`);
      for (const name of [
        files.input,
        join(files.folder, 'process.json'),
        join(files.folder, 'end.json'),
        first,
      ])
        assert.equal(await modeOf(name), 0o600, name);
    } finally {
      process.umask(before);
    }
  });

  test('of an earlier result are gone before the next run', async () => {
    const files = new TaskFiles(root, id);
    await files.prepare('1');
    await writeFile(files.result, '"old"');
    await files.prepare('2');
    await assert.rejects(readFile(files.result), { code: 'ENOENT' });
    assert.equal(await readFile(files.input, 'utf8'), '2');
  });

  test('name a group only when it could be one: 1 and below would mean everybody', async () => {
    const files = new TaskFiles(root, id);
    await files.writeProcess({ pid: 4_000_000, start_time: 'x' });
    assert.deepEqual(await files.readProcess(), { pid: 4_000_000, start_time: 'x' });
    for (const pid of [1, 0, -1, 1.5, '7', null]) {
      await writeFile(join(files.folder, 'process.json'), JSON.stringify({ pid, start_time: 'x' }));
      assert.equal(await files.readProcess(), null, String(pid));
    }
    await writeFile(join(files.folder, 'process.json'), '{"pid":');
    assert.equal(await files.readProcess(), null);
  });

  test('are looked for where a task is, and nowhere else', async () => {
    await mkdir(join(root, 'notes'), { recursive: true });
    await mkdir(join(root, id), { recursive: true });
    assert.deepEqual(await taskFolders(root), [id]);
    assert.deepEqual(await taskFolders(join(root, 'missing')), []);
  });
});
