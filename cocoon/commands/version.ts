/** `cocoon version`. */

import type { CommandContext } from '../command-context.ts';
import { cocoonVersion } from '../version.ts';

export async function version({ output }: CommandContext): Promise<void> {
  const cocoon = cocoonVersion();
  const node = process.versions.node;
  const platform = `${process.platform}-${process.arch}`;
  output.say({ version: cocoon, node, platform }, `cocoon ${cocoon} (Node ${node}, ${platform})`);
}
