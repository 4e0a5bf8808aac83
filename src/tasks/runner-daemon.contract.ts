/**
 * A process with a runner, to be killed: runs the task that its arguments name and tells when it has begun. With
 * `hold` the process is started but never told to go, as if the daemon died in between.
 */

import { systemClock } from '@cocoon-mesh/protocol';
import type { Task } from '@cocoon-mesh/protocol';
import { noFacts, TasksInMemory } from './runner-doubles.contract.ts';
import { TaskRunner } from './runner.node.ts';
import { startProcess } from './task-process.node.ts';

const [home = '', task = '', hold] = process.argv.slice(2);
const tasks = new TasksInMemory();
const runner = await TaskRunner.start({
  tasks,
  home,
  clock: systemClock,
  environment: process.env,
  facts: noFacts,
  policy: 'any',
  start: async (spec, onOutput) => {
    const started = await startProcess(spec, onOutput);
    return hold === undefined ? started : { ...started, go: () => undefined };
  },
});
await runner.run(tasks.add(JSON.parse(task) as Task));
process.send?.('begun');
