/** What `doctor` says of the plugins of this device: which run, which do not, why, and what to do. */

import type { PluginView } from '@cocoon-mesh/plugins';
import { MeshError } from '@cocoon-mesh/protocol';
import type { Finding } from './doctor.ts';
import { bad, ok, warn } from './doctor.ts';

export function pluginFindings(plugins: readonly PluginView[]): Finding[] {
  return plugins.length === 0 ? [ok('plugins', 'none')] : plugins.map(pluginFinding);
}

function pluginFinding({ name, path, state, why, code, pid, restarts }: PluginView): Finding {
  const check = `plugin ${name ?? path}`;
  const again = restarts === 0 ? '' : `, started again ${restarts === 1 ? 'once' : `${restarts} times`}`;
  switch (state) {
    case 'running':
      return ok(check, `runs, pid ${pid}${again}`);
    case 'starting':
      return warn(check, `is starting${again}`, 'Ask again in a moment.');
    case 'waiting':
      return bad(
        check,
        `ended and will be started again${again}: ${why}`,
        'See `cocoon logs` for what it printed. It is tried again by itself, each time a little later.',
      );
    case 'stopped':
      return ok(check, 'is stopped');
    case 'refused':
      return bad(check, `is not used: ${why} (${code})`, hintOf(code));
  }
}

function hintOf(code: PluginView['code']): string {
  const { hint } = new MeshError(code ?? 'bad_manifest');
  return `${hint} Then run \`cocoon plugins add\` with its folder, or start the device again.`;
}
