/** The commands about tasks, queries, capabilities and the knowledge base, as commander sees them. */

import type { Command } from 'commander';
import { action } from './command-context.ts';
import * as kb from './commands/kb.ts';
import { addPluginCommands } from './commands/plugins.ts';
import * as query from './commands/query.ts';
import * as request from './commands/request.ts';
import * as tasksAdd from './commands/tasks-add.ts';
import * as tasksLogs from './commands/tasks-logs.ts';
import * as tasks from './commands/tasks.ts';
import type { Environment } from './environment.ts';

/** A new command with an example in its help. */
type Add = (parent: Command, name: string, example: string) => Command;

export function addFeatureCommands(program: Command, environment: Environment, add: Add): void {
  addTasks(program, environment, add);
  addPluginCommands(program, environment, add);

  const queryCommand = add(
    program,
    'query',
    `cocoon query search_tasks --params '{"text": "backup"}' --json`,
  );
  query.describe(queryCommand);
  action(queryCommand, environment, query.query);

  const requestCommand = add(
    program,
    'request',
    `cocoon request embeddings@^1.0.0 '{"input": ["hello"]}' --json`,
  );
  request.describe(requestCommand);
  action(requestCommand, environment, request.request);

  const kbCommand = add(program, 'kb', 'cocoon kb add ~/notes').description(
    'The knowledge base: text and Markdown files, indexed where they lie.',
  );
  const addCommand = add(kbCommand, 'add', 'cocoon kb add ~/notes docs/README.md --watch');
  kb.describeAdd(addCommand);
  action(addCommand, environment, kb.kbAdd);
  const searchCommand = add(kbCommand, 'search', 'cocoon kb search how to restore a backup');
  kb.describeSearch(searchCommand);
  action(searchCommand, environment, kb.kbSearch);
  const listCommand = add(kbCommand, 'list', 'cocoon kb list').description('What this device has indexed.');
  action(listCommand, environment, kb.kbList);
  const removeCommand = add(kbCommand, 'remove', 'cocoon kb remove ~/notes')
    .description('Forget what was indexed there; the files stay.')
    .argument('<path...>');
  action(removeCommand, environment, kb.kbRemove);
}

function addTasks(program: Command, environment: Environment, add: Add): void {
  const command = add(program, 'tasks', 'cocoon tasks list --all').description(
    'Work that a device keeps, and runs when it is told to.',
  );
  const listCommand = add(command, 'list', 'cocoon tasks list --all --status pending');
  tasks.describeList(listCommand);
  action(listCommand, environment, tasks.tasksList);

  const addCommand = add(
    command,
    'add',
    `cocoon tasks add --title 'Nightly backup' --command '~/bin/backup.sh' --requires docker --run`,
  );
  tasksAdd.describeAdd(addCommand);
  action(addCommand, environment, tasksAdd.tasksAdd);

  const id = '0193b5a0-7c1e-7a33-9c55-0f3c1de1a001';
  const ofOne = (name: string, text: string): Command =>
    tasks.withDevice(add(command, name, `cocoon tasks ${name} ${id}`).description(text).argument('<id>'));
  action(ofOne('show', 'All about a task.'), environment, tasks.tasksShow);
  action(ofOne('run', 'Run the command of a pending task.'), environment, tasks.tasksRun);
  action(ofOne('cancel', 'End a task that runs or waits.'), environment, tasks.tasksCancel);
  const logsCommand = add(command, 'logs', `cocoon tasks logs ${id} --follow`);
  tasksLogs.describeLogs(logsCommand);
  action(logsCommand, environment, tasksLogs.tasksLogs);
  action(ofOne('rm', 'Remove a task and its log.'), environment, tasks.tasksRemove);

  const statsCommand = add(command, 'stats', 'cocoon tasks stats --all');
  tasks.describeStats(statsCommand);
  action(statsCommand, environment, tasks.tasksStats);
}
