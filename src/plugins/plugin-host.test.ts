import assert from 'node:assert/strict';
import { readlink, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import type { PluginHostOptions } from './plugin-host.node.ts';
import { PluginHost } from './plugin-host.node.ts';
import {
  ScriptedProcesses,
  hostOptions,
  isRunning,
  makeFolder,
  packageJson,
  untilList,
  writeFiles,
} from './plugin-doubles.contract.ts';

interface Parts {
  readonly folder: string;
  readonly home: string;
  readonly processes: ScriptedProcesses;
  /** A folder with a plugin that offers these. */
  readonly plugin: (name: string, protocols: readonly string[], more?: object) => Promise<string>;
  readonly host: (more?: Partial<PluginHostOptions>) => Promise<PluginHost>;
}

async function withParts(body: (parts: Parts) => Promise<void>): Promise<void> {
  await using folder = await makeFolder();
  const home = join(folder.path, 'home');
  const processes = new ScriptedProcesses();
  const hosts: PluginHost[] = [];
  await body({
    folder: folder.path,
    home,
    processes,
    plugin: (name, protocols, more = {}) =>
      writeFiles(join(folder.path, name.replace('/', '-')), {
        'package.json': packageJson(
          { capabilities: protocols.map((protocol) => ({ protocol, version: '1.0.0' })), ...more },
          { name },
        ),
        'plugin.ts': '',
      }),
    host: async (more) => {
      const host = new PluginHost(
        hostOptions(home, new SteppedClock(), { startProcess: processes.start, ...more }),
      );
      hosts.push(host);
      await host.start();
      return host;
    },
  });
  for (const host of hosts) await host.close();
}

describe('the plugins of a device', () => {
  it('are listed with what they offer, also those that were refused, with the reason', async () => {
    await withParts(async ({ plugin, host, processes }) => {
      const one = await plugin('one', ['demo.one']);
      const all = await host({ flags: [one, '/there/is/nothing'] });
      processes.last.beReady(['asked']);
      const [first, second] = await untilList(all, isRunning);
      assert.deepEqual(first, {
        name: 'one',
        version: '1.0.0',
        state: 'running',
        why: null,
        code: null,
        path: one,
        origin: 'flag',
        capabilities: [{ protocol: 'demo.one', version: '1.0.0', disabled: false }],
        queries: ['asked'],
        pid: 1,
        restarts: 0,
      });
      assert.deepEqual(
        [second?.state, second?.why, second?.code],
        ['refused', '/there/is/nothing: there is no such folder', 'bad_manifest'],
      );
      assert.notEqual(all.customQuery('asked'), null);
      assert.equal(all.customQuery('another'), null);
    });
  });

  it('offer nothing that was disabled', async () => {
    await withParts(async ({ plugin, host }) => {
      const all = await host({
        flags: [await plugin('one', ['demo.one', 'llm.chat'])],
        disabled: ['llm.chat'],
      });
      assert.deepEqual(
        all.providers().map(({ protocol }) => protocol),
        ['demo.one'],
      );
      assert.deepEqual(
        all.list()[0]?.capabilities.map(({ disabled }) => disabled),
        [false, true],
      );
    });
  });

  it('never take the place of what the device itself offers, nor of each other', async () => {
    await withParts(async ({ plugin, host, folder }) => {
      await writeFiles(join(folder, 'same'), {
        'package.json': packageJson({}, { name: 'one' }),
        'plugin.ts': '',
      });
      const all = await host({
        flags: [
          await plugin('one', ['demo.one']),
          await plugin('two', ['demo.one']),
          await plugin('three', ['tasks']),
          join(folder, 'same'),
        ],
      });
      assert.deepEqual(
        all.list().map(({ state, why }) => [state, why]),
        [
          ['starting', null],
          ['refused', 'The plugin one offers demo.one 1.0.0 already'],
          ['refused', 'tasks is offered by the device itself'],
          ['refused', `A plugin of the name one is there already: ${join(folder, 'one')}`],
        ],
      );
    });
  });

  it('each have a data folder that only the user can read, and settings with defaults', async () => {
    await withParts(async ({ plugin, host, home, processes }) => {
      const settings = {
        type: 'object',
        properties: { mark: { type: 'string', default: '!' }, times: { type: 'integer' } },
      };
      const one = await plugin('@anna/one', ['demo.one'], { settings });
      await writeFiles(home, { 'plugin-settings/anna+one.toml': 'times = 3' });
      await host({ flags: [one] });
      const { dataDir, settings: given } = processes.last.options;
      assert.equal(dataDir, join(home, 'plugin-data', 'anna+one'));
      assert.equal((await stat(dataDir)).mode & 0o777, 0o700);
      assert.deepEqual(given, { mark: '!', times: 3 });
    });
  });

  it('are not started with settings that break their schema', async () => {
    await withParts(async ({ plugin, host, home, processes }) => {
      const settings = { type: 'object', properties: { times: { type: 'integer' } } };
      const one = await plugin('one', ['demo.one'], { settings });
      await writeFiles(home, { 'plugin-settings/one.toml': 'times = "often"' });
      const all = await host({ flags: [one] });
      assert.match(all.list()[0]?.why ?? '', /one\.toml: times: /);
      assert.equal(processes.all.length, 0);
    });
  });
});

describe('at run time', () => {
  it('a plugin that is added runs, and is found at the next start', async () => {
    await withParts(async ({ plugin, host, home, processes }) => {
      const one = await plugin('one', ['demo.one']);
      const all = await host();
      const added = await all.add(one);
      assert.deepEqual([added.name, added.state], ['one', 'starting']);
      assert.equal(await readlink(join(home, 'plugins', 'one')), one);
      await all.close();
      const next = await host();
      assert.deepEqual(
        next.list().map(({ name, origin }) => [name, origin]),
        [['one', 'home']],
      );
      assert.equal(processes.all.length, 2);
    });
  });

  it('one that is removed is stopped and forgotten', async () => {
    await withParts(async ({ plugin, host, processes }) => {
      const all = await host();
      await all.add(await plugin('one', ['demo.one']));
      const [provider] = all.providers();
      assert.deepEqual(await all.remove('one'), { name: 'one', stays: null });
      assert.equal(processes.last.isStopped, true);
      assert.notEqual(provider?.state.problem, null);
      assert.deepEqual([all.list(), all.providers(), (await host()).list()], [[], [], []]);
    });
  });

  it('one whose folder lies in the home is stopped; its folder is left to the user', async () => {
    await withParts(async ({ host, home }) => {
      const path = await writeFiles(join(home, 'plugins', 'one'), {
        'package.json': packageJson({}, { name: 'one' }),
        'plugin.ts': '',
      });
      assert.deepEqual(await (await host()).remove('one'), { name: 'one', stays: path });
    });
  });

  it('a bad one is refused with its reason and changes nothing', async () => {
    await withParts(async ({ plugin, host }) => {
      const all = await host({ flags: [await plugin('one', ['demo.one'])] });
      await assert.rejects(all.add('/there/is/nothing'), { code: 'bad_manifest' });
      await assert.rejects(all.add(await plugin('two', ['demo.one'])), { code: 'bad_manifest' });
      await assert.rejects(all.remove('two'), { code: 'not_found' });
      assert.equal(all.list().length, 1);
    });
  });

  it('one that is added twice at once runs once', async () => {
    await withParts(async ({ plugin, host, processes }) => {
      const one = await plugin('one', ['demo.one']);
      const all = await host();
      const outcomes = await Promise.allSettled([all.add(one), all.add(one)]);
      assert.deepEqual(
        outcomes.map(({ status }) => status),
        ['fulfilled', 'rejected'],
      );
      assert.equal(processes.all.length, 1);
    });
  });
});
