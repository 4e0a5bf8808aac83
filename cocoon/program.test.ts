import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import { createProgram } from './program.ts';

async function refusal(...args: string[]): Promise<MeshError> {
  try {
    await createProgram({}).parseAsync(args, { from: 'user' });
  } catch (thrown) {
    return thrown as MeshError;
  }
  throw new Error(`${args.join(' ')} was understood`);
}

describe('a line that is not understood', () => {
  test('is explained by the help of its own command', async () => {
    for (const [args, command] of [
      [['claim'], 'cocoon claim'],
      [['secret'], 'cocoon secret'],
      [['secret', 'rotate', '--nonsense'], 'cocoon secret rotate'],
      [['owners', 'remove'], 'cocoon owners remove'],
      [['fetch', '--nonsense', 'a/b/c'], 'cocoon fetch'],
    ] as const) {
      const { code, hint } = await refusal(...args);
      assert.deepEqual([code, hint], ['usage', `See \`${command} --help\`.`]);
    }
  });
});
