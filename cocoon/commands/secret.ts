/** `cocoon secret show`: the secret of the owner, where this device holds it. It never leaves the device otherwise. */

import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import type { CommandContext } from '../command-context.ts';
import { readKeyFile } from '../key-file.ts';

export async function secretShow({ home, output }: CommandContext): Promise<void> {
  const secret = await readKeyFile(home.secret);
  if (secret === null)
    throw new MeshError('not_found', `There is no secret in ${home.path}`, {
      hint: 'An enrolled device holds a membership, not the secret: look on the device on which you ran `cocoon up` first.',
    });
  output.say({ secret }, secret);
  if (!output.json && output.terminal)
    output.note('Whoever has this secret is you. Keep it where you keep passwords.');
}
