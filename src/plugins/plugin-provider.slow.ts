import { join } from 'node:path';
import type { ProviderUnderTest } from '@cocoon-mesh/capabilities/provider.contract.ts';
import { providerContract } from '@cocoon-mesh/capabilities/provider.contract.ts';
import { systemClock } from '@cocoon-mesh/protocol';
import {
  hostOptions,
  isRunning,
  makeFolder,
  packageJson,
  pluginSource,
  untilList,
  writeFiles,
} from './plugin-doubles.contract.ts';
import { PluginHost } from './plugin-host.node.ts';

const payload = { enum: ['good', 'long'] };
const untilCancelled = `
  if (payload === 'long') await new Promise((_, reject) =>
    context.signal.addEventListener('abort', () => reject(context.signal.reason), { once: true }));`;
const streaming = `
  import { definePlugin } from 'cocoon/plugin';
  export default definePlugin({
    capabilities: {
      'demo.work': {
        async *handle(payload, context) {
          ${untilCancelled}
          yield payload;
          yield payload;
        },
      },
    },
  });`;

async function open(capability: object, source: string): Promise<ProviderUnderTest> {
  const folder = await makeFolder();
  const plugin = await writeFiles(join(folder.path, 'demo'), {
    'package.json': packageJson({
      capabilities: [{ protocol: 'demo.work', version: '1.0.0', payload, ...capability }],
    }),
    'plugin.ts': source,
  });
  const host = new PluginHost(hostOptions(join(folder.path, 'home'), systemClock, { flags: [plugin] }));
  // Timers of the clock hold no process.
  const keepAlive = setInterval(() => undefined, 60_000);
  await host.start();
  await untilList(host, isRunning);
  const [provider] = host.providers();
  if (!provider) throw new Error('The plugin offers nothing');
  const content = (payload: string) => ({ payload, parts: [] });
  return {
    provider,
    good: content('good'),
    long: content('long'),
    bad: content('bad'),
    async release() {
      await host.close();
      clearInterval(keepAlive);
      await folder[Symbol.asyncDispose]();
    },
  };
}

providerContract('a plugin that answers in one piece', async () =>
  open({}, pluginSource(`${untilCancelled} return payload;`)),
);
providerContract('a plugin that streams', async () => open({ chunk: true }, streaming));
