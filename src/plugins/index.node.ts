/** Plugins: found, checked, each kept running in a process of its own. Node only. */

export type { FoundPlugin, PluginOrigin } from './discovery.node.ts';
export { readManifest } from './manifest.node.ts';
export type { PluginManifest } from './manifest.node.ts';
export { splitPaths } from './path-list.node.ts';
export { PluginHost } from './plugin-host.node.ts';
export type { PluginHostOptions, PluginView } from './plugin-host.node.ts';
export type { CustomAnswerer } from './query-answerer.ts';
