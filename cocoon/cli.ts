/**
 * `cocoon`: reads the command line and runs one command. Exit codes: 0 ok, 1 failed, 2 usage, 3 not found,
 * 4 denied, 5 unreachable or timed out.
 */

import { CommanderError } from 'commander';
import { fail } from './command-context.ts';
import { takeEnvironment } from './environment.ts';
import { Output } from './output.ts';
import { createProgram, usageError } from './program.ts';

const environment = takeEnvironment();

// Whoever reads our output may stop reading: `cocoon devices | head -1`.
process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1));

try {
  await createProgram(environment).parseAsync();
} catch (thrown) {
  const error = thrown instanceof CommanderError ? usageError(thrown) : thrown;
  // The flag may not have been read when the line was not understood.
  if (error !== null) fail(new Output(process.argv.includes('--json')), error);
}
