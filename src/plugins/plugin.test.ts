import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
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

async function scripted(
  body: (parts: { host: PluginHost; clock: SteppedClock; processes: ScriptedProcesses }) => Promise<void>,
): Promise<void> {
  await using folder = await makeFolder();
  const plugin = await writeFiles(`${folder.path}/demo`, { 'package.json': packageJson(), 'plugin.ts': '' });
  const clock = new SteppedClock();
  const processes = new ScriptedProcesses();
  const host = new PluginHost(
    hostOptions(`${folder.path}/home`, clock, { flags: [plugin], startProcess: processes.start }),
  );
  await host.start();
  try {
    await body({ host, clock, processes });
  } finally {
    await host.close();
    assert.equal(clock.pendingTimers, 0);
  }
}

const isWaiting = ([plugin]: Parameters<typeof isRunning>[0]): boolean => plugin?.state === 'waiting';

describe('a plugin that ends', () => {
  it('is started again after 1 s, then after twice as long each time, at most 60 s', async () => {
    await scripted(async ({ host, clock, processes }) => {
      const delays: number[] = [];
      for (let round = 0; round < 8; round++) {
        const before = processes.all.length;
        processes.last.end('It ended');
        await untilList(host, isWaiting);
        let seconds = 0;
        for (; processes.all.length === before; seconds++) clock.step(1_000);
        delays.push(seconds);
      }
      assert.deepEqual(delays, [1, 2, 4, 8, 16, 32, 60, 60]);
      assert.equal(host.list()[0]?.restarts, 8);
    });
  });

  it('after it ran well for 60 s waits only 1 s again', async () => {
    await scripted(async ({ host, clock, processes }) => {
      for (let round = 0; round < 4; round++) {
        processes.last.end('It ended');
        await untilList(host, isWaiting);
        clock.step(60_000);
      }
      processes.last.beReady();
      await untilList(host, isRunning);
      clock.step(60_000);
      processes.last.end('It ended');
      await untilList(host, isWaiting);
      const before = processes.all.length;
      clock.step(1_000);
      assert.equal(processes.all.length, before + 1);
    });
  });

  it('takes its capabilities away meanwhile, with the reason, and tells when they are back', async () => {
    await scripted(async ({ host, clock, processes }) => {
      const [provider] = host.providers();
      assert.ok(provider);
      const states: (string | null)[] = [];
      provider.onChange(() => states.push(provider.state.problem));
      processes.last.beReady();
      await untilList(host, isRunning);
      assert.deepEqual([provider.state.problem, provider.state.warm], [null, true]);
      processes.last.end('It was ended by SIGKILL');
      await untilList(host, isWaiting);
      assert.deepEqual(
        [provider.state.problem, provider.state.problemCode],
        ['The plugin demo ended and will be started again: It was ended by SIGKILL', 'plugin_failed'],
      );
      assert.equal(host.list()[0]?.why, 'It was ended by SIGKILL');
      clock.step(1_000);
      assert.equal(provider.state.problem, 'The plugin demo is starting');
      processes.last.beReady();
      await untilList(host, isRunning);
      assert.equal(provider.state.problem, null);
      assert.equal(states.length, 4);
    });
  });

  it('is not started again once the host is closed', async () => {
    await scripted(async ({ host, clock, processes }) => {
      processes.last.end('It ended');
      await untilList(host, isWaiting);
      await host.close();
      clock.step(120_000);
      assert.equal(processes.all.length, 1);
      assert.equal(host.list()[0]?.state, 'stopped');
    });
  });

  it('whose process cannot even be made waits like one that ended', async () => {
    await using folder = await makeFolder();
    const plugin = await writeFiles(`${folder.path}/demo`, {
      'package.json': packageJson(),
      'plugin.ts': '',
    });
    const startProcess = (): never => {
      throw new Error('EAGAIN');
    };
    const clock = new SteppedClock();
    const host = new PluginHost(hostOptions(`${folder.path}/home`, clock, { flags: [plugin], startProcess }));
    await host.start();
    assert.deepEqual(
      host.list().map(({ state, why }) => [state, why]),
      [['waiting', 'It could not be started: EAGAIN']],
    );
    await host.close();
  });
});
