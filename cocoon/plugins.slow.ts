import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { LocalCapabilities } from '@cocoon-mesh/capabilities';
import type { CapabilityAnswerMessage, Json } from '@cocoon-mesh/protocol';
import { MeshError, systemClock } from '@cocoon-mesh/protocol';
import { Home } from './home.ts';
import { Plugins } from './plugins.ts';

const example = new URL('../examples/shout', import.meta.url).pathname;
const cli = new URL('./cli.ts', import.meta.url).pathname;
const limited = { timeout: 120_000 };

interface Parts {
  readonly plugins: Plugins;
  readonly local: LocalCapabilities;
  readonly offered: (wanted: readonly string[]) => Promise<void>;
  readonly ask: (protocol: string, payload: Json) => Promise<CapabilityAnswerMessage[]>;
}

async function withExample(
  body: (parts: Parts) => Promise<void>,
  disabled: readonly string[] = [],
): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'cocoon-plugins-'));
  const log = (): void => undefined;
  const local = new LocalCapabilities({ clock: systemClock, log, disabled });
  const plugins = new Plugins({
    home: new Home(folder),
    settings: { pluginFlags: [example], pluginPaths: [], disabledCapabilities: disabled },
    local,
    clock: systemClock,
    log,
    self: () => ({ peerId: 'own-id', name: 'own' }),
    requestCapability: () => {
      throw new MeshError('capability_not_found');
    },
  });
  const keepAlive = setInterval(() => undefined, 60_000);
  const names = (): string[] => local.advertised().map(({ protocol }) => protocol);
  try {
    plugins.start();
    await body({
      plugins,
      local,
      offered: async (wanted) => {
        const { promise, resolve } = Promise.withResolvers<void>();
        const look = (): void => {
          if (JSON.stringify(names()) === JSON.stringify(wanted)) resolve();
        };
        const forget = local.onChange(look);
        look();
        await promise;
        forget();
      },
      ask: async (protocol, payload) => {
        const from = { id: 'id', name: 'laptop' };
        const call = { payload, parts: [], session: null, features: [], from, timeoutMs: 5_000 };
        const messages: CapabilityAnswerMessage[] = [];
        const wanted = { protocol, version: '^1.0.0', features: [] };
        for await (const message of local.answer(wanted, call, new AbortController().signal))
          messages.push(message);
        return messages;
      },
    });
  } finally {
    await plugins.close();
    clearInterval(keepAlive);
    await rm(folder, { recursive: true, force: true });
  }
}

describe('the example of a plugin', () => {
  it('passes its own tests, run as its author runs them', limited, async () => {
    const child = spawn(process.execPath, [cli, 'plugins', 'test', example], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let output = '';
    child.stdout.on('data', (piece: Buffer) => (output += piece.toString()));
    child.stderr.on('data', (piece: Buffer) => (output += piece.toString()));
    const [code] = await once(child, 'exit');
    assert.equal(code, 0, output);
  });

  it('is offered and answers, whole and streaming, and its query too', limited, async () => {
    await withExample(async ({ offered, ask, plugins }) => {
      await offered(['text.shout', 'text.echo']);
      const [end] = await ask('text.shout', { text: 'hello' });
      assert.ok(end?.kind === 'end');
      assert.deepEqual(end.payload, { text: 'HELLO!' });
      const stream = await ask('text.echo', { text: 'ho', times: 2 });
      assert.deepEqual(
        stream.map((message) => (message.kind === 'error' ? message.code : message.payload)),
        ['ho', 'ho', { times: 2 }],
      );
      const request = {
        type: 'custom' as const,
        params: { name: 'shouted' },
        limit: 10,
        after: null,
        timeout_ms: 1_000,
        max_bytes: 10_000,
      };
      const rows = [];
      for await (const { value } of plugins.answerer(request, new AbortController().signal, null))
        rows.push(value);
      assert.deepEqual(rows, [{ text: 'HELLO!' }]);
      const unknown = { ...request, params: { name: 'nothing' } };
      assert.throws(() => plugins.answerer(unknown, new AbortController().signal, null), {
        code: 'unsupported',
      });
    });
  });

  it('is not offered while its process is gone, and offered again when it is back', limited, async () => {
    await withExample(async ({ offered, ask, plugins }) => {
      await offered(['text.shout', 'text.echo']);
      process.kill(plugins.list().plugins[0]?.pid ?? 0, 'SIGKILL');
      await offered([]);
      const [refused] = await ask('text.shout', { text: 'hello' });
      assert.ok(refused?.kind === 'error');
      assert.equal(refused.code, 'plugin_failed');
      await offered(['text.shout', 'text.echo']);
    });
  });

  it('offers only what was not switched off, and nothing once it is removed', limited, async () => {
    await withExample(
      async ({ offered, plugins, local }) => {
        await offered(['text.shout']);
        await plugins.remove('shout');
        assert.deepEqual(local.all(), []);
      },
      ['text.echo'],
    );
  });
});
