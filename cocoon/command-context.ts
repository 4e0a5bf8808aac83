/**
 * What every command has: the home, the environment, the output; and the one place where a command's failure
 * becomes a message and an exit code.
 */

import type { Command } from 'commander';
import { MeshError, toMeshError } from '@cocoon-mesh/protocol/errors.ts';
import type { Environment } from './environment.ts';
import type { Home } from './home.ts';
import { homeOf } from './home.ts';
import { Output } from './output.ts';

export interface CommandContext {
  readonly home: Home;
  readonly environment: Environment;
  readonly output: Output;
}

export type Action<Options> = (
  context: CommandContext,
  options: Options,
  args: readonly string[],
) => Promise<void>;

/** Attaches what a command does. Rejections end the process with the exit code of their error. */
export function action<Options extends object>(
  command: Command,
  environment: Environment,
  run: Action<Options>,
): Command {
  return command.action(async () => {
    const options = command.optsWithGlobals<Options & { json?: boolean; home?: string }>();
    const output = new Output(options.json === true);
    try {
      await run({ home: homeOf(options.home, environment), environment, output }, options, command.args);
    } catch (thrown) {
      fail(output, thrown);
    }
  });
}

export function fail(output: Output, thrown: unknown): void {
  const error = toMeshError(thrown);
  output.error(error.code === 'internal' ? internal(thrown) : error);
  process.exitCode = error.exitCode;
}

/** An error nobody foresaw says what happened; the stack is for those who ask. */
function internal(thrown: unknown): MeshError {
  if (thrown instanceof MeshError) return thrown;
  const detail = thrown instanceof Error ? thrown.message : String(thrown);
  if (process.env['COCOON_LOG_LEVEL'] === 'debug') console.error(thrown);
  return new MeshError('internal', `Something went wrong inside: ${detail}`, { cause: thrown });
}

/** `--service` and the like may stand several times. */
export function collect(value: string, before: readonly string[] | undefined): readonly string[] {
  return [...(before ?? []), value];
}
