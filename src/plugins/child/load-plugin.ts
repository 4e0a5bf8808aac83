/** Whether what a plugin's file exports is what its manifest says. */

import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import type { Plugin } from '../plugin-api.ts';
import { handlerOf } from './plugin-runtime.ts';

/** @throws MeshError bad_manifest */
export function loadPlugin(
  exported: unknown,
  declared: readonly { readonly protocol: string; readonly version: string }[],
): Plugin {
  if (!isRecord(exported)) throw bad('main has no default export of definePlugin');
  const { capabilities = {}, queries = {}, start, stop } = exported;
  if (!isRecord(capabilities)) throw bad('`capabilities` is not an object');
  if (!isRecord(queries)) throw bad('`queries` is not an object');
  for (const [key, value] of Object.entries(capabilities)) {
    if (!isRecord(value) || typeof value['handle'] !== 'function') throw bad(`${key} has no \`handle\``);
    if (!declared.some(({ protocol, version }) => key === protocol || key === `${protocol}@${version}`))
      throw bad(`${key} is not in the manifest`);
  }
  for (const [name, value] of Object.entries(queries))
    if (typeof value !== 'function') throw bad(`the query ${name} is no function`);
  for (const [name, value] of Object.entries({ start, stop }))
    if (value !== undefined && typeof value !== 'function') throw bad(`\`${name}\` is no function`);
  const plugin = exported as Plugin;
  for (const one of declared)
    if (!handlerOf(plugin, one))
      throw bad(`the manifest has ${one.protocol} ${one.version}, which is not defined`);
  return plugin;
}

function bad(what: string): MeshError {
  return new MeshError('bad_manifest', what);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}
