/** Runs every benchmark, one after the other: `npm run bench`. Each prints one table. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';

const programs: readonly (readonly string[])[] = [
  ['session.ts', '--engine', 'libdatachannel,werift'],
  ['engines.ts'],
  ['connect.ts'],
  ['daemon.ts'],
  ['signaling.ts'],
  ['tasks.ts'],
  ['query.ts'],
  ['capabilities.ts'],
  ['embeddings.ts'],
  ['chat.ts'],
  ['knowledge.ts'],
];

for (const [program = '', ...args] of programs) {
  console.log(`\n${program} ${args.join(' ')}`);
  const child = spawn(process.execPath, [`${import.meta.dirname}/${program}`, ...args], { stdio: 'inherit' });
  const [code] = (await once(child, 'close')) as [number | null];
  if (code !== 0) process.exitCode = 1;
}
