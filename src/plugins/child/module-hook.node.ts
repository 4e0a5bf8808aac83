/**
 * Loaded before a plugin: `cocoon/plugin` and `cocoon/client` are our files, wherever the plugin lies. No package of
 * that name has to be installed, and none that is takes their place.
 */

import { registerHooks } from 'node:module';

const ours: Readonly<Record<string, string>> = {
  'cocoon/plugin': new URL('../plugin-api.ts', import.meta.url).href,
  'cocoon/plugin/testing': new URL('../plugin-testing.node.ts', import.meta.url).href,
  'cocoon/client': new URL('../client.node.ts', import.meta.url).href,
};

registerHooks({
  resolve(specifier, context, nextResolve) {
    const url = Object.hasOwn(ours, specifier) ? ours[specifier] : undefined;
    return url === undefined ? nextResolve(specifier, context) : { url, shortCircuit: true };
  },
});
