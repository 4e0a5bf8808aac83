/**
 * Plugins as real processes, also bad ones. A plugin that forks without end is out of reach: it runs as the user,
 * and only limits of the system (`ulimit -u`, a cgroup) hold that.
 */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { describe, it } from 'node:test';
import type {
  CapabilityAnswer,
  CapabilityRequest,
  Content,
  Provider,
  ProviderCall,
} from '@cocoon-mesh/capabilities';
import type { Json } from '@cocoon-mesh/protocol';
import { MeshError, limits, systemClock } from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import type { PluginHostOptions } from './plugin-host.node.ts';
import { PluginHost } from './plugin-host.node.ts';
import {
  callOf,
  hostOptions,
  isRunning,
  makeFolder,
  packageJson,
  pluginSource,
  untilList,
  writeFiles,
} from './plugin-doubles.contract.ts';

const isWaiting = ([plugin]: Parameters<typeof isRunning>[0]): boolean => plugin?.state === 'waiting';

interface Parts {
  readonly host: PluginHost;
  readonly provider: Provider;
  readonly logs: string[];
  readonly home: string;
}

const limited = { timeout: 60_000 };
const asker = { id: 'asker-id', name: 'asker' };

async function withPlugin(
  files: Readonly<Record<string, string>>,
  body: (parts: Parts) => Promise<void>,
  more: Partial<PluginHostOptions> = {},
): Promise<void> {
  await using folder = await makeFolder();
  const plugin = await writeFiles(join(folder.path, 'demo'), { 'package.json': packageJson(), ...files });
  const logs: string[] = [];
  const home = join(folder.path, 'home');
  const log = (_level: string, message: string): void => void logs.push(message);
  const host = new PluginHost(hostOptions(home, systemClock, { flags: [plugin], log, ...more }));
  // Timers of the clock hold no process.
  const keepAlive = setInterval(() => undefined, 60_000);
  try {
    await host.start();
    const [provider] = host.providers();
    assert.ok(provider, host.list()[0]?.why ?? 'it offers nothing');
    await body({ host, provider, logs, home });
  } finally {
    await host.close();
    clearInterval(keepAlive);
  }
}

async function whole(provider: Provider, payload: Json, signal?: AbortSignal): Promise<Json> {
  return (await contentOf(provider, callOf(payload, signal ? { signal } : {}))).payload;
}

/** What it answers in one piece. */
async function contentOf(provider: Provider, call: ProviderCall): Promise<Content> {
  const answer = provider.handle(call);
  if (!(Symbol.asyncIterator in answer)) return answer;
  const first = await answer[Symbol.asyncIterator]().next();
  assert.equal(first.done, true);
  return first.value as Content;
}

function streamOf(provider: Provider, payload: Json, signal?: AbortSignal): AsyncIterator<Content> {
  const answer = provider.handle(callOf(payload, signal ? { signal } : {}));
  assert.ok(Symbol.asyncIterator in answer);
  return answer[Symbol.asyncIterator]();
}

async function untilGone(pid: number): Promise<void> {
  for (;;) {
    const state = await readFile(`/proc/${pid}/stat`, 'latin1').catch(() => ' Z ');
    if (/\) [ZX] /.test(state) || state === ' Z ') return;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

const streaming = packageJson({ capabilities: [{ protocol: 'demo.work', version: '1.0.0', chunk: true }] });

describe('a plugin', () => {
  it('answers, logs, knows its settings, its data folder and who asks', limited, async () => {
    const source = pluginSource(`
      context.log.info('worked', { on: payload });
      context.log('said');
      return { payload, settings: context.settings, data: context.dataDir, from: context.from, cwd: process.cwd() };`);
    await withPlugin({ 'plugin.ts': source }, async ({ host, provider, logs, home }) => {
      await untilList(host, isRunning);
      const data = join(home, 'plugin-data', 'demo');
      assert.deepEqual(await whole(provider, { a: [1] }), {
        payload: { a: [1] },
        settings: {},
        data,
        from: { id: 'asker-id', name: 'asker' },
        cwd: data,
      });
      assert.equal((await stat(data)).mode & 0o777, 0o700);
      assert.ok(logs.includes('worked') && logs.includes('said'));
    });
  });

  it('sends and gets binary parts', limited, async () => {
    const source = pluginSource(`return withParts(payload, context.parts.map((part) => part.toReversed()));`);
    await withPlugin({ 'plugin.ts': source }, async ({ host, provider }) => {
      await untilList(host, isRunning);
      const part = new Uint8Array(1024 * 1024).map((_, index) => index);
      const answer = await contentOf(provider, callOf(null, { parts: [part, Uint8Array.of(1, 2)] }));
      assert.deepEqual(
        answer.parts.map((one) => new Uint8Array(one)),
        [part.toReversed(), Uint8Array.of(2, 1)],
      );
    });
  });

  it('may have two versions of a protocol', limited, async () => {
    const capabilities = ['1.4.0', '2.0.0'].map((version) => ({ protocol: 'demo.work', version }));
    const source = `import { definePlugin } from 'cocoon/plugin';
      export default definePlugin({ capabilities: {
        'demo.work@1.4.0': { handle: () => 'old' }, 'demo.work': { handle: () => 'new' } } });`;
    await withPlugin(
      { 'package.json': packageJson({ capabilities }), 'plugin.ts': source },
      async ({ host }) => {
        await untilList(host, isRunning);
        const answers = await Promise.all(host.providers().map((provider) => whole(provider, null)));
        assert.deepEqual(answers, ['old', 'new']);
      },
    );
  });

  it('may be JavaScript, and CommonJS', limited, async () => {
    const files = {
      'package.json': packageJson({}, { main: 'plugin.cjs' }),
      'plugin.cjs': `module.exports = { capabilities: { 'demo.work': { handle: () => 'old style' } } };`,
    };
    await withPlugin(files, async ({ host, provider }) => {
      await untilList(host, isRunning);
      assert.equal(await whole(provider, null), 'old style');
    });
  });

  it('may be what TypeScript makes of a default export for CommonJS', limited, async () => {
    const files = {
      'package.json': packageJson({}, { main: 'plugin.cts' }),
      'plugin.cts': `Object.defineProperty(exports, '__esModule', { value: true });
        exports.default = { capabilities: { 'demo.work': { handle: (text: string): string => text } } };`,
    };
    await withPlugin(files, async ({ host, provider }) => {
      await untilList(host, isRunning);
      assert.equal(await whole(provider, 'old style'), 'old style');
    });
  });

  it('needs no `type` in its package.json, and is not told off for it', limited, async () => {
    const files = {
      'package.json': packageJson({}, { type: undefined }),
      'plugin.ts': pluginSource('return payload;'),
    };
    await withPlugin(files, async ({ host, provider, logs }) => {
      await untilList(host, isRunning);
      assert.equal(await whole(provider, 1), 1);
      await host.close();
      assert.deepEqual(
        logs.filter((line) => line.includes('Warning')),
        [],
      );
    });
  });

  it('logs errors and dates as text', limited, async () => {
    const fields: unknown[] = [];
    await withPlugin(
      {
        'plugin.ts': pluginSource(
          `context.log.warn('went wrong', { error: new TypeError('why'), at: new Date(0), none: undefined });`,
        ),
      },
      async ({ host, provider }) => {
        await untilList(host, isRunning);
        await whole(provider, null);
        assert.deepEqual(fields, [
          { plugin: 'demo', fields: { error: 'TypeError: why', at: '1970-01-01T00:00:00.000Z' } },
        ]);
      },
      { log: (level, _message, more) => void (level === 'warn' && fields.push(more)) },
    );
  });

  it('is told nothing secret of the environment', limited, async () => {
    const source = pluginSource('return Object.keys(process.env);');
    const environment = {
      ...process.env,
      COCOON_SECRET: 'x',
      COCOON_HOME: '/x',
      A_TOKEN: 'x',
      NODE_OPTIONS: '',
    };
    await withPlugin(
      { 'plugin.ts': source },
      async ({ host, provider }) => {
        await untilList(host, isRunning);
        const names = (await whole(provider, null)) as string[];
        assert.ok(names.includes('PATH'));
        assert.deepEqual(
          names.filter((name) => /COCOON_(?!PLUGIN_RUN)|TOKEN|SECRET|NODE_OPTIONS|NODE_COMPILE/.test(name)),
          [],
        );
      },
      { environment },
    );
  });

  it('is checked against its schemas both ways', limited, async () => {
    const capabilities = [
      { protocol: 'demo.work', version: '1.0.0', payload: { type: 'integer' }, answer: { type: 'string' } },
    ];
    const files = {
      'package.json': packageJson({ capabilities }),
      'plugin.ts': pluginSource('return payload > 0 ? "yes" : 0;'),
    };
    await withPlugin(files, async ({ host, provider }) => {
      await untilList(host, isRunning);
      assert.equal(await whole(provider, 1), 'yes');
      await assert.rejects(whole(provider, 'text'), {
        code: 'bad_payload',
        message: /demo\.work: the value/,
      });
      await assert.rejects(whole(provider, 0), { code: 'bad_answer', message: /breaks its schema/ });
      assert.equal(await whole(provider, 2), 'yes');
    });
  });

  it('answers custom queries, page by page', limited, async () => {
    const source = pluginSource(
      '',
      'queries: { numbers: ({ to }) => Array.from({ length: to }, (_, i) => i) }',
    );
    await withPlugin({ 'plugin.ts': source }, async ({ host }) => {
      await untilList(host, isRunning);
      const answer = host.customQuery('numbers');
      assert.ok(answer);
      const request = {
        type: 'custom' as const,
        params: { name: 'numbers', to: 5 },
        limit: 10,
        timeout_ms: 1000,
        max_bytes: limits.maxQueryAnswerBytes,
      };
      const page = async (after: string | null) => {
        const rows = [];
        for await (const row of answer({ ...request, after }, new AbortController().signal, asker))
          rows.push(row);
        return rows;
      };
      const all = await page(null);
      assert.deepEqual(
        all.map(({ value }) => value),
        [0, 1, 2, 3, 4],
      );
      assert.deepEqual(
        all.map(({ key }) => key[0]),
        [-1, -2, -3, -4, -5],
      );
      assert.deepEqual(
        (await page(all[2]?.at ?? '')).map(({ value }) => value),
        [3, 4],
      );
      await assert.rejects(page('x'), { code: 'bad_cursor' });
    });
  });

  it('whose exports are not what its manifest says waits, with the reason', limited, async () => {
    for (const [source, why] of [
      ['export default {};', /the manifest has demo\.work 1\.0\.0, which is not defined/],
      ['export const plugin = 1;', /no default export of definePlugin/],
      [pluginSource('', '').replace("'demo.work'", "'demo.other'"), /demo\.other is not in the manifest/],
      ['export default {', /SyntaxError/],
      ["throw new Error('no licence');", /no licence/],
    ] as const)
      await withPlugin({ 'plugin.ts': source }, async ({ host }) => {
        const [plugin] = await untilList(host, ([one]) => one?.state === 'waiting');
        assert.match(plugin?.why ?? '', why);
      });
  });
});

describe('a stream of a plugin', () => {
  it('gives its chunks and what it returns, and its errors after the first chunk too', limited, async () => {
    const source = pluginSource('')
      .replace('async handle', 'async *handle')
      .replace(
        '{  }',
        `{ yield 1; yield 2; if (payload === 'throw') throw new Error('half way'); return 'end'; }`,
      );
    await withPlugin({ 'package.json': streaming, 'plugin.ts': source }, async ({ host, provider }) => {
      await untilList(host, isRunning);
      const good = streamOf(provider, null);
      const values = [await good.next(), await good.next(), await good.next()];
      assert.deepEqual(
        values.map(({ value, done }) => [(value as Content).payload, done]),
        [
          [1, false],
          [2, false],
          ['end', true],
        ],
      );
      const bad = streamOf(provider, 'throw');
      await bad.next();
      await bad.next();
      await assert.rejects(bad.next(), { code: 'plugin_failed', message: /half way/ });
    });
  });

  it('is made no faster than it is read, and ends when its reader leaves', limited, async () => {
    const source = `import { definePlugin } from 'cocoon/plugin';
      let made = 0;
      let ended = Promise.withResolvers();
      export default definePlugin({
        capabilities: { 'demo.work': { async *handle() {
          try { for (;;) { made++; yield 'x'.repeat(1000); } } finally { ended.resolve(made); } } } },
        queries: { made: () => [made], ended: async () => [await ended.promise] },
      });`;
    await withPlugin({ 'package.json': streaming, 'plugin.ts': source }, async ({ host, provider }) => {
      await untilList(host, isRunning);
      const stream = streamOf(provider, null);
      for (let read = 0; read < 1000; read++) await stream.next();
      const made = await queryOne(host, 'made');
      assert.ok(made >= 1000 && made < 1600, `${made} made for 1000 read`);
      await stream.return?.();
      assert.ok((await queryOne(host, 'ended')) < 1600);
    });
  });

  it('that the manifest does not announce is a bad answer', limited, async () => {
    const source = pluginSource('').replace('async handle', 'async *handle').replace('{  }', '{ yield 1; }');
    const capabilities = [{ protocol: 'demo.work', version: '1.0.0', answer: true }];
    const files = { 'plugin.ts': source, 'package.json': packageJson({ capabilities }) };
    await withPlugin(files, async ({ host, provider }) => {
      await untilList(host, isRunning);
      await assert.rejects(whole(provider, null), { code: 'bad_answer', message: /no `chunk`/ });
    });
  });
});

async function queryOne(host: PluginHost, name: string): Promise<number> {
  const answer = host.customQuery(name);
  assert.ok(answer);
  const request = {
    type: 'custom' as const,
    params: { name },
    limit: 1,
    after: null,
    timeout_ms: 1000,
    max_bytes: 1000,
  };
  for await (const { value } of answer(request, new AbortController().signal, asker)) return Number(value);
  throw new Error('There was no row');
}

describe('a plugin that asks', () => {
  /** Answers so many chunks; says how many were taken, and whether it was left. */
  function provider(chunks: number) {
    const seen: CapabilityRequest[] = [];
    let taken = 0;
    const left = Promise.withResolvers<void>();
    const requestCapability = (request: CapabilityRequest): CapabilityAnswer => {
      seen.push(request);
      const source = {
        device: 'gpu',
        deviceId: 'gpu-id',
        version: '1.2.0',
        attempts: 1,
        queueMs: 0,
        totalMs: 1,
        insteadOf: null,
      };
      request.signal?.addEventListener('abort', () => left.resolve());
      const end = Promise.withResolvers<Content & { source: typeof source }>();
      end.promise.catch(() => undefined);
      async function* made(): AsyncGenerator<Content, void, undefined> {
        if (request.protocol === 'demo.none') {
          end.reject(new MeshError('capability_not_found', 'Nobody offers demo.none'));
          throw new MeshError('capability_not_found', 'Nobody offers demo.none');
        }
        for (; taken < chunks; taken++) yield { payload: 'x'.repeat(1000), parts: [] };
        end.resolve({ payload: request.payload, parts: [Uint8Array.of(7)], source });
      }
      return { device: Promise.resolve(source), chunks: made(), end: end.promise };
    };
    return { requestCapability, seen, left: left.promise, taken: () => taken };
  }

  it('gets an answer, its parts, and where it came from', limited, async () => {
    const asked = provider(0);
    const source = pluginSource(`
      const { result, parts, source } = await context.requestCapability(
        { protocol: 'demo.other', version: '^1.0.0' }, payload, { preferDevice: 'gpu', timeoutMs: 1000, parts: [new Uint8Array(3)] });
      return { result, part: parts[0][0], device: source.device };`);
    await withPlugin(
      { 'plugin.ts': source },
      async ({ host, provider: own }) => {
        await untilList(host, isRunning);
        assert.deepEqual(await whole(own, 'hello'), { result: 'hello', part: 7, device: 'gpu' });
        const [request] = asked.seen;
        assert.deepEqual(
          [
            request?.protocol,
            request?.version,
            request?.preferDevice,
            request?.timeoutMs,
            request?.parts[0]?.length,
          ],
          ['demo.other', '^1.0.0', 'gpu', 1000, 3],
        );
      },
      asked,
    );
  });

  it('gets errors with their code', limited, async () => {
    const source = pluginSource(`
      try { await context.requestCapability({ protocol: 'demo.none', version: '*' }, null) }
      catch (error) { return { code: error.code, message: error.message } }`);
    await withPlugin(
      { 'plugin.ts': source },
      async ({ host, provider: own }) => {
        await untilList(host, isRunning);
        assert.deepEqual(await whole(own, null), {
          code: 'capability_not_found',
          message: 'Nobody offers demo.none',
        });
      },
      provider(0),
    );
  });

  it('that is no question is told so, not that its answer is bad', limited, async () => {
    const source = pluginSource(`
      const codes = [];
      for (const wanted of ['demo.none@*', { protocol: 'demo.none' }, { protocol: 'Demo', version: '*' }])
        try { await context.requestCapability(wanted, null) } catch (error) { codes.push(error.code); }
      return codes;`);
    await withPlugin({ 'plugin.ts': source }, async ({ host, provider: own }) => {
      await untilList(host, isRunning);
      assert.deepEqual(await whole(own, null), ['bad_payload', 'bad_payload', 'bad_payload']);
    });
  });

  it('that lets such an error through has failed, and is not missing', limited, async () => {
    const source = pluginSource(
      `return context.requestCapability({ protocol: 'demo.none', version: '*' }, null)`,
    );
    await withPlugin(
      { 'plugin.ts': source },
      async ({ host, provider: own }) => {
        await untilList(host, isRunning);
        await assert.rejects(whole(own, null), { code: 'plugin_failed' });
      },
      provider(0),
    );
  });

  it('is sent no more of a stream than it reads, and leaving it cancels the request', limited, async () => {
    const asked = provider(100_000);
    const source = pluginSource(`
      let read = 0;
      const { chunks } = context.streamCapability({ protocol: 'demo.other', version: '*' }, null);
      for await (const chunk of chunks) if (++read === 500) break;
      return read;`);
    await withPlugin(
      { 'plugin.ts': source },
      async ({ host, provider: own }) => {
        await untilList(host, isRunning);
        assert.equal(await whole(own, null), 500);
        await asked.left;
        assert.ok(asked.taken() < 1200, `${asked.taken()} taken for 500 read`);
      },
      asked,
    );
  });

  it('cancels what it asked when its own request is cancelled', limited, async () => {
    const asked = provider(100_000);
    const source = pluginSource(`
      const { chunks } = context.streamCapability({ protocol: 'demo.other', version: '*' }, null, { signal: context.signal });
      for await (const chunk of chunks) await wait(1);`);
    await withPlugin(
      { 'plugin.ts': source },
      async ({ host, provider: own }) => {
        await untilList(host, isRunning);
        const controller = new AbortController();
        const answer = whole(own, null, controller.signal);
        answer.catch(() => undefined);
        while (asked.taken() === 0) await new Promise((resolve) => setImmediate(resolve));
        controller.abort();
        await assert.rejects(answer, { code: 'cancelled' });
        await asked.left;
      },
      asked,
    );
  });

  it('with schemas is told what does not fit them', limited, async () => {
    const source = pluginSource(`
      const wanted = { protocol: 'demo.other', version: '*', payload: { type: 'string' }, answer: { type: 'integer' } };
      return context.requestCapability(wanted, payload).then(() => 'fits', (error) => error.code)`);
    await withPlugin(
      { 'plugin.ts': source },
      async ({ host, provider: own }) => {
        await untilList(host, isRunning);
        assert.deepEqual([await whole(own, 3), await whole(own, 'three')], ['bad_payload', 'bad_answer']);
      },
      provider(0),
    );
  });
});

describe('a bad plugin', () => {
  it('that throws fails that request alone, whatever it throws', limited, async () => {
    const source = pluginSource(`
      if (payload === 'error') throw new Error('went wrong');
      if (payload === 'text') throw 'just a text';
      if (payload === 'nothing') throw undefined;
      if (payload === 'own') throw new PluginError('not_found', 'no such thing');
      if (payload === 'foreign') throw Object.assign(new Error('I am the router'), { code: 'device_offline' });
      if (payload === 'bigint') return { count: 1n };
      if (payload === 'unreadable') throw { message: { toString() { throw new Error('no'); } } };
      return payload;`);
    await withPlugin({ 'plugin.ts': source }, async ({ host, provider }) => {
      const [before] = await untilList(host, isRunning);
      for (const [payload, code] of [
        ['error', 'plugin_failed'],
        ['text', 'plugin_failed'],
        ['nothing', 'plugin_failed'],
        ['own', 'not_found'],
        ['foreign', 'plugin_failed'],
        ['bigint', 'bad_answer'],
        ['unreadable', 'plugin_failed'],
      ] as const)
        await assert.rejects(whole(provider, payload), { code }, payload);
      assert.equal(await whole(provider, 'well'), 'well');
      assert.equal(host.list()[0]?.pid, before?.pid);
    });
  });

  it(
    'that throws outside of a request is started again, and its other requests are told',
    limited,
    async () => {
      const source = pluginSource(`
      if (payload === 'throw') setTimeout(() => { throw new TypeError('too late') });
      if (payload !== 'well') await new Promise(() => undefined);
      return payload;`);
      await withPlugin({ 'plugin.ts': source }, async ({ host, provider }) => {
        await untilList(host, isRunning);
        const other = whole(provider, 'other');
        const bad = whole(provider, 'throw');
        await assert.rejects(bad, {
          code: 'plugin_failed',
          message: /outside of a request: TypeError: too late/,
        });
        await assert.rejects(other, { code: 'plugin_failed' });
        const [plugin] = await untilList(host, ([one]) => one?.state === 'running' && one.restarts === 1);
        assert.equal(plugin?.why, null);
        assert.equal(await whole(provider, 'well'), 'well');
      });
    },
  );

  it('that exits leaves nothing behind that it started', limited, async () => {
    const source = `import { spawn } from 'node:child_process';
      ${pluginSource(`
        if (payload === 'exit') process.exit(0);
        return spawn('sleep', ['1000'], { stdio: 'ignore' }).pid;`)}`;
    await withPlugin({ 'plugin.ts': source }, async ({ host, provider }) => {
      await untilList(host, isRunning);
      const started = Number(await whole(provider, 'start'));
      await assert.rejects(whole(provider, 'exit'), { code: 'plugin_failed' });
      await untilGone(started);
    });
  });

  it('that exits is started again', limited, async () => {
    const source = pluginSource('if (payload === "exit") process.exit(3); return payload;');
    await withPlugin({ 'plugin.ts': source }, async ({ host, provider }) => {
      await untilList(host, isRunning);
      await assert.rejects(whole(provider, 'exit'), { code: 'plugin_failed', message: /exit code 3/ });
      assert.notEqual(provider.state.problem, null);
      await assert.rejects(whole(provider, 'meanwhile'), { code: 'plugin_failed' });
      await untilList(host, isRunning);
      assert.equal(await whole(provider, 'well'), 'well');
    });
  });

  it(
    'that hangs in a request keeps nobody waiting longer than the signal, and answers others',
    limited,
    async () => {
      const source = pluginSource(
        'if (payload === "hang") await new Promise(() => undefined); return payload;',
      );
      const clock = new SteppedClock();
      await withPlugin(
        { 'plugin.ts': source },
        async ({ host, provider }) => {
          await untilList(host, isRunning);
          const controller = new AbortController();
          const hanging = whole(provider, 'hang', controller.signal);
          const rejected = assert.rejects(hanging, { code: 'timeout' });
          assert.equal(await whole(provider, 'well'), 'well');
          controller.abort(new DOMException('timed out', 'TimeoutError'));
          // Its place is given away when the plugin had time to end.
          clock.step(10_000);
          await rejected;
          assert.equal(await whole(provider, 'well'), 'well');
        },
        { clock },
      );
    },
  );

  it(
    'that ends no request though it is cancelled is started again when there are 16 of them',
    limited,
    async () => {
      const source = pluginSource(
        'if (payload === "hang") await new Promise(() => undefined); return payload;',
      );
      const clock = new SteppedClock();
      await withPlugin(
        { 'plugin.ts': source },
        async ({ host, provider }) => {
          await untilList(host, isRunning);
          const controller = new AbortController();
          const hanging = Array.from({ length: 16 }, () => whole(provider, 'hang', controller.signal));
          const outcomes = Promise.allSettled(hanging);
          assert.equal(await whole(provider, 'well'), 'well');
          controller.abort();
          clock.step(10_000);
          await outcomes;
          const [plugin] = await untilList(host, isWaiting);
          assert.equal(plugin?.why, '16 requests did not end after they were cancelled');
        },
        { clock },
      );
    },
  );

  it('that blocks its event loop for ever is killed and started again', limited, async () => {
    const source = pluginSource('if (payload === "block") for (;;); return payload;');
    const clock = new SteppedClock();
    await withPlugin(
      { 'plugin.ts': source },
      async ({ host, provider }) => {
        await untilList(host, isRunning);
        const blocked = assert.rejects(whole(provider, 'block'), {
          code: 'plugin_failed',
          message: /event loop was blocked/,
        });
        clock.step(18_000);
        await blocked;
        await untilList(host, isWaiting);
        clock.step(1_000);
        await untilList(host, isRunning);
        assert.equal(await whole(provider, 'well'), 'well');
      },
      { clock },
    );
  });

  it('that leaks is ended by its own limit, in objects and in buffers', { timeout: 120_000 }, async () => {
    const source = pluginSource(`
      const kept = [];
      if (payload === 'objects') for (;;) kept.push({ text: 'x'.repeat(100) + kept.length, list: [kept.length] });
      if (payload === 'buffers') for (;;) { kept.push(Buffer.alloc(16 * 1024 * 1024, 1)); await wait(5); }
      return payload;`);
    const files = { 'package.json': packageJson({ memory_mb: 32 }), 'plugin.ts': source };
    await withPlugin(files, async ({ host, provider }) => {
      await untilList(host, isRunning);
      await assert.rejects(whole(provider, 'objects'), {
        code: 'plugin_failed',
        message: /more than its 32 MiB/,
      });
      await untilList(host, isRunning);
      await assert.rejects(whole(provider, 'buffers'), {
        code: 'plugin_failed',
        message: /MiB of memory, more than 544/,
      });
      await untilList(host, isRunning);
      assert.equal(await whole(provider, 'well'), 'well');
    });
  });

  it('that prints garbage without end on stdout and stderr does no harm', limited, async () => {
    const source = pluginSource(`
      const garbage = Buffer.alloc(1024 * 1024, 0xfe);
      const print = (stream, bytes) => new Promise((resolve) => stream.write(bytes, resolve));
      for (let count = 0; count < 20; count++) { await print(process.stdout, garbage); await print(process.stderr, 'x\\n'.repeat(10000)); }
      console.log('\\u001b[31m{"kind":"ready"}');
      return payload;`);
    await withPlugin({ 'plugin.ts': source }, async ({ host, provider, logs }) => {
      await untilList(host, isRunning);
      assert.equal(await whole(provider, 'well'), 'well');
      assert.ok(logs.length < 1_000, `${logs.length} lines`);
      assert.ok(logs.every((line) => line.length <= 1024));
    });
  });

  for (const [name, code] of [
    ['bytes that are no message', 'writeSync(3, Buffer.from([0, 0, 0, 3, 1, 2, 3]));'],
    ['a length of gigabytes', 'writeSync(3, Buffer.from([255, 255, 255, 255]));'],
    [
      'a message of a kind that there is not',
      'writeSync(3, Buffer.concat([Buffer.from([0, 0, 0, 8]), Buffer.from([0x81, 0xa4]), Buffer.from("kind\\xa1x", "latin1").subarray(0, 6)]));',
    ],
    ['random bytes', 'for (let at = 0; at < 100; at++) writeSync(3, randomBytes(1000));'],
  ] as const)
    it(`that sends ${name} to the daemon is ended, and nothing else`, limited, async () => {
      const source = `import { writeSync } from 'node:fs'; import { randomBytes } from 'node:crypto';
        ${pluginSource(`if (payload === 'garbage') { try { ${code} } catch {} await wait(60_000); } return payload;`)}`;
      await withPlugin({ 'plugin.ts': source }, async ({ host, provider }) => {
        await untilList(host, isRunning);
        await assert.rejects(whole(provider, 'garbage'), {
          code: 'plugin_failed',
          message: /sent what is no message/,
        });
        await untilList(host, isRunning);
        assert.equal(await whole(provider, 'well'), 'well');
      });
    });

  it('that answers with millions of values has a bad answer, however small they are', limited, async () => {
    const source = pluginSource('return new Array(payload).fill(0);');
    await withPlugin({ 'plugin.ts': source }, async ({ host, provider }) => {
      const [before] = await untilList(host, isRunning);
      await assert.rejects(whole(provider, 4_000_000), { code: 'bad_answer', message: /500000 values/ });
      assert.equal(((await whole(provider, 400_000)) as readonly Json[]).length, 400_000);
      assert.equal(host.list()[0]?.pid, before?.pid);
    });
  });

  it('that closes its pipe is ended', limited, async () => {
    const source = `import { closeSync } from 'node:fs';
      ${pluginSource('if (payload === "close") { closeSync(3); await wait(60_000); } return payload;')}`;
    await withPlugin({ 'plugin.ts': source }, async ({ host, provider }) => {
      await untilList(host, isRunning);
      await assert.rejects(whole(provider, 'close'), { code: 'plugin_failed' });
    });
  });

  it(
    'that does not want to stop is made to, with what it started, within five seconds',
    limited,
    async () => {
      const source = `import { spawn } from 'node:child_process';
      process.on('SIGTERM', () => undefined);
      ${pluginSource('return spawn("sleep", ["1000"], { stdio: "ignore" }).pid;', 'stop: () => new Promise(() => undefined)')}`;
      await withPlugin({ 'plugin.ts': source }, async ({ host, provider }) => {
        const [plugin] = await untilList(host, isRunning);
        const grandchild = await whole(provider, null);
        const began = performance.now();
        await host.close();
        assert.ok(performance.now() - began < 5_000);
        await untilGone(Number(grandchild));
        await untilGone(plugin?.pid ?? 0);
      });
    },
  );

  it('stops by itself when it can, after its own `stop`', limited, async () => {
    await using folder = await makeFolder();
    const source = `import { writeFileSync } from 'node:fs';
      ${pluginSource('', `stop() { writeFileSync(${JSON.stringify(join(folder.path, 'stopped'))}, 'well') }`)}`;
    await withPlugin({ 'plugin.ts': source }, async ({ host }) => {
      await untilList(host, isRunning);
      await host.close();
      assert.equal(await readFile(join(folder.path, 'stopped'), 'utf8'), 'well');
    });
  });

  it(
    'killed twenty times in the middle of requests: each is answered or told, the next process is well',
    { timeout: 120_000 },
    async () => {
      const source = pluginSource('await wait(5); return payload;');
      const clock = new SteppedClock();
      await withPlugin(
        { 'plugin.ts': source },
        async ({ host, provider }) => {
          for (let round = 0; round < 20; round++) {
            const [plugin] = await untilList(host, isRunning);
            const requests = Array.from({ length: 8 }, (_, index) => whole(provider, index));
            const outcomes = Promise.allSettled(requests);
            if (round % 2 === 0) await requests[0];
            process.kill(plugin?.pid ?? 0, 'SIGKILL');
            for (const outcome of await outcomes)
              if (outcome.status === 'rejected')
                assert.equal((outcome.reason as MeshError).code, 'plugin_failed');
            await untilList(host, isWaiting);
            while (isWaiting(host.list())) clock.step(1_000);
            await untilList(host, isRunning);
            assert.equal(await whole(provider, 'well'), 'well');
          }
        },
        { clock },
      );
    },
  );
});

describe('when the daemon is killed', () => {
  const urlOf = (path: string): string => JSON.stringify(new URL(path, import.meta.url).href);
  /** A host in a process of its own, which prints the pid of its plugin and of what that started. */
  const program = `
    import { PluginHost } from ${urlOf('./plugin-host.node.ts')};
    import { callOf, hostOptions, isRunning, untilList } from ${urlOf('./plugin-doubles.contract.ts')};
    import { systemClock } from ${JSON.stringify(import.meta.resolve('@cocoon-mesh/protocol'))};
    const [home, plugin, payload] = process.argv.slice(2);
    setInterval(() => undefined, 60_000);
    const log = (_level, message) => message === 'busy' && console.log('busy');
    const host = new PluginHost(hostOptions(home, systemClock, { flags: [plugin], log }));
    await host.start();
    const [{ pid }] = await untilList(host, isRunning);
    const ask = (payload) => host.providers()[0].handle(callOf(payload))[Symbol.asyncIterator]().next();
    const { value: grandchild } = await ask(null);
    console.log(JSON.stringify({ pid, grandchild: grandchild.payload }));
    void ask(payload).catch(() => undefined);
  `;

  for (const [name, payload] of [
    ['idle', 'idle'],
    ['in an endless loop', 'block'],
  ] as const)
    it(`a plugin that is ${name} ends with it, and what that started too`, limited, async () => {
      await using folder = await makeFolder();
      const source = `import { spawn } from 'node:child_process';
        ${pluginSource(`
          if (payload === null) return spawn('sleep', ['1000'], { stdio: 'ignore' }).pid;
          context.log.info('busy');
          if (payload === 'block') for (;;);`)}`;
      const files = { 'package.json': packageJson(), 'plugin.ts': source };
      const plugin = await writeFiles(join(folder.path, 'demo'), files);
      await writeFiles(folder.path, { 'daemon.mjs': program });
      const child = spawn(
        process.execPath,
        [join(folder.path, 'daemon.mjs'), join(folder.path, 'home'), plugin, payload],
        { stdio: ['ignore', 'pipe', 'inherit'] },
      );
      const lines: string[] = [];
      for await (const line of createInterface({ input: child.stdout })) {
        lines.push(line);
        if (line === 'busy') break;
      }
      child.kill('SIGKILL');
      if (child.signalCode === null) await once(child, 'exit');
      const { pid, grandchild } = JSON.parse(lines[0] ?? '') as { pid: number; grandchild: number };
      await untilGone(pid);
      await untilGone(grandchild);
    });

  it('leaves no process of these tests behind', async () => {
    const mine: string[] = [];
    for (const pid of await readdir('/proc')) {
      const line = await readFile(`/proc/${pid}/cmdline`, 'latin1').catch(() => '');
      const parent = await readFile(`/proc/${pid}/stat`, 'latin1').catch(() => '');
      if (line.includes('plugins/child/main') && parent.includes(` ${process.pid} `)) mine.push(pid);
    }
    assert.deepEqual(mine, []);
  });
});
