/*
 * A disk that is full: the home of an installed cocoon lies on a small one of its own (a tmpfs that only this file
 * and what it starts can see). Nothing is lost or damaged, everybody is told, and with room again all goes on.
 */

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  closeSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  statfsSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import Database from 'better-sqlite3';
import type { Task } from '@cocoon-mesh/protocol';
import { CocoonProcess } from './cocoon-process.ts';
import { TaskClient } from './task-client.ts';

const MiB = 1024 * 1024;
const diskBytes = 24 * MiB;
const limitMs = 60_000;
/** Where the small disk is, for the process that sees it. */
const variable = 'STORY_SMALL_DISK';

/** In a mount namespace, which nobody but root makes without a user namespace around it. */
function withSmallDisk(line: readonly string[], folder: string): readonly [string, string[]] {
  const spaces = process.getuid?.() === 0 ? ['--mount'] : ['--map-root-user', '--mount'];
  const mount = `mount -t tmpfs -o size=${diskBytes},mode=700 tmpfs "$0" && exec "$@"`;
  return ['unshare', [...spaces, '--', 'sh', '-c', mount, folder, ...line]];
}

function canMount(): boolean {
  const folder = mkdtempSync(join(tmpdir(), 'cocoon-disk-'));
  const { status } = spawnSync(...withSmallDisk(['true'], folder));
  rmSync(folder, { recursive: true });
  return status === 0;
}

const home = process.env[variable];
const possible = home !== undefined || canMount();
if (home === undefined && possible) {
  // The whole file again, where the disk is.
  const folder = mkdtempSync(join(tmpdir(), 'cocoon-disk-'));
  const line = [process.execPath, ...process.execArgv, import.meta.filename];
  const { status } = spawnSync(...withSmallDisk(line, folder), {
    stdio: 'inherit',
    env: { ...process.env, [variable]: folder },
  });
  rmSync(folder, { recursive: true });
  process.exit(status ?? 1);
}

describe(
  'a home on a disk that is full',
  { skip: possible ? false : 'a small disk cannot be mounted here (it takes root or user namespaces)' },
  () => {
    const folder = home ?? '';
    const filler = join(folder, 'filler');
    let cocoon: CocoonProcess;
    let tasks: TaskClient;

    before(async () => {
      cocoon = await CocoonProcess.start({
        command: 'up',
        args: ['--port', '0', '--gateway-port', '0', '--name', 'laptop', '--no-web'],
        home: folder,
      });
      tasks = new TaskClient(cocoon);
    });
    after(() => cocoon?.[Symbol.asyncDispose]());

    /** Until so much is left. */
    function fill(leaveBytes: number): void {
      const piece = Buffer.alloc(64 * 1024, 1);
      const file = openSync(filler, 'a');
      try {
        while (freeBytes() > leaveBytes)
          writeSync(file, piece, 0, Math.min(piece.length, freeBytes() - leaveBytes));
      } finally {
        closeSync(file);
      }
    }

    function freeBytes(): number {
      const { bavail, bsize } = statfsSync(folder);
      return bavail * bsize;
    }

    async function shown(id: string): Promise<Task> {
      const { status, body } = await tasks.ask<Task>('GET', `/tasks/${id}`);
      assert.equal(status, 200, JSON.stringify(body));
      return body;
    }

    async function until(what: string, holds: () => Promise<boolean>): Promise<void> {
      for (const end = performance.now() + limitMs; performance.now() < end;) if (await holds()) return;
      assert.fail(`${what} did not come about`);
    }

    test('takes no more tasks and says so, keeps those that it took, and takes more when there is room', async () => {
      const description = 'x'.repeat(60_000);
      fill(2 * MiB);
      const made: string[] = [];
      let refused;
      while (made.length < 1_000) {
        const { status, body } = await tasks.ask<Task & { code?: string; hint?: string }>('POST', '/tasks', {
          title: `task ${made.length}`,
          description,
        });
        if (status !== 201) {
          refused = { status, code: body.code };
          break;
        }
        made.push(body.id);
      }
      assert.deepEqual(refused, { status: 507, code: 'storage_full' });
      assert.ok(made.length > 5);
      fill(0);
      const add = ['tasks', 'add', '--title', 'by hand', '--description', description];
      const done = await cocoon.command([...add, '--json']);
      const { error } = JSON.parse(done.stderr.trim().split('\n').at(-1) ?? '') as {
        error: { code: string; message: string; hint: string };
      };
      assert.deepEqual([done.code, error.code], [1, 'storage_full']);
      assert.match(error.message, /no room/);
      assert.match(error.hint, /space/);
      assert.match((await cocoon.command(add)).stderr, /no room.*storage_full|storage_full.*no room/s);

      for (const [i, id] of made.entries()) {
        const task = await shown(id);
        assert.deepEqual([task.title, task.description], [`task ${i}`, description]);
      }
      const listed = await cocoon.json<{ tasks: readonly { id: string }[] }>(
        'tasks',
        'list',
        '--limit',
        '500',
      );
      assert.deepEqual(
        listed.tasks.map(({ id }) => id),
        made.toReversed(),
      );
      assert.equal((await cocoon.json<{ total: number }>('tasks', 'stats')).total, made.length);

      rmSync(filler);
      const later = await cocoon.json<Task>(...add);
      assert.equal((await shown(later.id)).description, description);
    });

    test('lets a run go on to its end; what it printed and could not be kept is missing, and said', async () => {
      const go = `${folder}-go`;
      const { id } = await cocoon.json<Task>(
        'tasks',
        'add',
        '--title=a run',
        '--run',
        `--command=echo begun; until [ -e ${go} ]; do sleep 0.1; done; yes 0123456789 | head -c 4000000; echo lost; ` +
          `echo over > ${go}; until [ -e ${go}2 ]; do sleep 0.1; done; echo the end`,
      );
      const logs = async () => (await cocoon.command(['tasks', 'logs', id])).stdout;
      await until('its first word', async () => (await logs()).includes('begun'));
      const waiting = await tasks.add('waiting', { command: 'echo ran' });
      const before = await cocoon.residentBytes();
      fill(0);
      try {
        writeFileSync(go, '');
        await until('its last word', async () => statSync(go).size > 0);
        const refused = await tasks.ask<{ code: string }>('POST', `/tasks/${waiting}/run`);
        assert.deepEqual([refused.status, refused.body.code], [507, 'storage_full']);
        writeFileSync(`${go}2`, '');
        // How it ended waits until it can be written down.
        await until('its processes', async () => !isAlive(go));
        assert.equal((await shown(id)).status, 'running');
        const more = (await cocoon.residentBytes()) - before;
        assert.ok(more < 50 * MiB, `${more} bytes more memory`);
      } finally {
        rmSync(filler);
      }
      await until('its end', async () => (await shown(id)).status !== 'running');
      const task = await shown(id);
      assert.deepEqual([task.status, task.exit_code], ['completed', 0]);
      assert.match(task.error ?? '', /^Its log has gaps: (ENOSPC|The disk took only a part)/);
      assert.match(await logs(), /^begun\n/);
      for (const path of [go, `${go}2`]) rmSync(path);
      assert.equal((await shown(waiting)).status, 'pending');
      assert.equal((await tasks.ask('POST', `/tasks/${waiting}/run`)).status, 200);
      await until('the end of the other', async () => (await shown(waiting)).status === 'completed');
      const log = await cocoon.command(['tasks', 'logs', waiting]);
      assert.equal(log.stdout, 'ran\n');
    });

    test('has damaged nothing', async () => {
      assert.equal(await cocoon.stop(), 0);
      const database = new Database(join(folder, 'tasks.db'));
      assert.deepEqual(database.pragma('integrity_check'), [{ integrity_check: 'ok' }]);
      database.exec(`insert into task_text (task_text) values ('integrity-check')`);
      database.close();
      await cocoon.restart();
      assert.ok((await cocoon.json<{ total: number }>('tasks', 'stats')).total > 5);
    });

    /** Is there a process with this among its arguments? */
    function isAlive(text: string): boolean {
      return readdirSync('/proc').some((pid) => {
        try {
          return /^\d+$/.test(pid) && readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes(text);
        } catch {
          return false;
        }
      });
    }
  },
);
