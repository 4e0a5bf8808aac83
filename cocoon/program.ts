/**
 * The command line as commander sees it: names, options, help with an example each. A command's own file is
 * loaded when it runs, or when its options are needed: `cocoon status` must not wait for a WebRTC engine.
 */

import { Command, CommanderError } from 'commander';
import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import { action } from './command-context.ts';
import * as audit from './commands/audit.ts';
import * as claim from './commands/claim.ts';
import * as devices from './commands/devices.ts';
import * as doctor from './commands/doctor.ts';
import * as fetch from './commands/fetch.ts';
import * as forward from './commands/forward.ts';
import * as generateToken from './commands/generate-token.ts';
import * as logs from './commands/logs.ts';
import * as open from './commands/open.ts';
import * as owners from './commands/owners.ts';
import * as ping from './commands/ping.ts';
import * as revoke from './commands/revoke.ts';
import * as run from './commands/run.ts';
import * as secret from './commands/secret.ts';
import * as services from './commands/services.ts';
import * as signaling from './commands/signaling.ts';
import * as status from './commands/status.ts';
import * as up from './commands/up.ts';
import * as version from './commands/version.ts';
import type { Environment } from './environment.ts';
import { withDeviceFlags } from './device-flags.ts';
import { addFeatureCommands } from './program-features.ts';
import { cocoonVersion } from './version.ts';

export function createProgram(environment: Environment): Command {
  const program = new Command('cocoon')
    .description('Your own devices as one mesh.')
    .option('--json', 'answers as JSON: one document, or one line per event')
    .option('--home <dir>', 'where this device keeps everything (default: COCOON_HOME or ~/.cocoon)')
    .version(cocoonVersion(), '--version', 'which version this is')
    .configureHelp({ showGlobalOptions: true })
    .configureOutput({ outputError: () => undefined })
    .exitOverride();

  const add = (parent: Command, name: string, example: string): Command =>
    withOwnHelp(
      parent.command(name).addHelpText('after', `\nExample:\n  ${example}`).copyInheritedSettings(program),
    );

  const upCommand = add(program, 'up', 'cocoon up --host 0.0.0.0 --service grafana:3000');
  up.describe(upCommand);
  action(withDeviceFlags(upCommand), environment, up.up);

  const runCommand = add(program, 'run', 'cocoon run --token - --name server --service postgres:5432:tcp');
  run.describe(runCommand);
  action(withDeviceFlags(runCommand), environment, run.run);

  const signalingCommand = add(program, 'signaling', 'cocoon signaling --host 0.0.0.0 --port 7400');
  signaling.describe(signalingCommand);
  action(signalingCommand, environment, signaling.signaling);

  const tokenCommand = add(
    program,
    'generate-token',
    'cocoon generate-token --expires 10m --service grafana',
  );
  generateToken.describe(tokenCommand);
  action(tokenCommand, environment, generateToken.generateToken);

  const claimCommand = add(program, 'claim', 'cocoon claim -');
  claim.describe(claimCommand);
  action(claimCommand, environment, claim.claim);

  const secretCommand = add(program, 'secret', 'cocoon secret show').description('The secret of the owner.');
  const showCommand = add(secretCommand, 'show', 'cocoon secret show').description(
    'Print it, to keep it safe.',
  );
  action(showCommand, environment, secret.secretShow);
  const useCommand = add(secretCommand, 'use', 'cocoon secret use @secret.txt');
  secret.describeUse(useCommand);
  action(useCommand, environment, secret.secretUse);
  const rotateCommand = add(secretCommand, 'rotate', 'cocoon secret rotate --without old-phone');
  secret.describeRotate(rotateCommand);
  action(rotateCommand, environment, secret.secretRotate);

  const ownersCommand = add(program, 'owners', 'cocoon owners list').description(
    'Other owners who have access to my cocoons.',
  );
  const ownersListCommand = add(ownersCommand, 'list', 'cocoon owners list').description('Who has access.');
  action(ownersListCommand, environment, owners.ownersList);
  const ownersRemoveCommand = add(ownersCommand, 'remove', 'cocoon owners remove own_k3Jx')
    .description('End what an owner was given until now.')
    .argument('<owner>', 'the id, or its beginning');
  action(ownersRemoveCommand, environment, owners.ownersRemove);

  const revokeCommand = add(program, 'revoke', 'cocoon revoke old-phone');
  revoke.describe(revokeCommand);
  action(revokeCommand, environment, revoke.revoke);

  action(
    add(program, 'status', 'cocoon status --json').description('This device.'),
    environment,
    status.status,
  );

  const devicesCommand = add(program, 'devices', 'cocoon devices --json');
  devices.describe(devicesCommand);
  action(devicesCommand, environment, devices.devices);

  const pingCommand = add(program, 'ping', 'cocoon ping server --count 10');
  ping.describe(pingCommand);
  action(pingCommand, environment, ping.ping);

  const fetchCommand = add(program, 'fetch', 'cocoon fetch server/grafana/api/health -o health.json');
  fetch.describe(fetchCommand);
  action(fetchCommand, environment, fetch.fetchCommand);

  const forwardCommand = add(program, 'forward', 'cocoon forward server/postgres --port 15432');
  forward.describe(forwardCommand);
  action(forwardCommand, environment, forward.forward);

  const openCommand = add(program, 'open', 'cocoon open server/grafana');
  open.describe(openCommand);
  action(openCommand, environment, open.open);

  const servicesCommand = add(
    program,
    'services',
    'cocoon services add grafana:3000:http:/api/health',
  ).description('What this device offers, while it runs.');
  const listCommand = add(servicesCommand, 'list', 'cocoon services list').description('What is offered.');
  action(listCommand, environment, services.servicesList);
  const addCommand = add(servicesCommand, 'add', 'cocoon services add postgres:5432:tcp')
    .description('Offer one more.')
    .argument('<name:port[:http|tcp][:/health]>');
  action(addCommand, environment, services.servicesAdd);
  const removeCommand = add(servicesCommand, 'remove', 'cocoon services remove postgres')
    .description('Offer one no more.')
    .argument('<name>');
  action(removeCommand, environment, services.servicesRemove);

  addFeatureCommands(program, environment, add);

  const doctorCommand = add(program, 'doctor', 'cocoon doctor').description(
    'What works, what does not, why, and what to change.',
  );
  action(doctorCommand, environment, doctor.doctor);

  const logsCommand = add(program, 'logs', 'cocoon logs --follow');
  logs.describe(logsCommand);
  action(logsCommand, environment, logs.logs);

  const auditCommand = add(program, 'audit', 'cocoon audit --verify');
  audit.describe(auditCommand);
  action(auditCommand, environment, audit.audit);

  const versionCommand = add(program, 'version', 'cocoon version').description('Which version this is.');
  action(versionCommand, environment, version.version);
  return program;
}

/** What is wrong with the line of a command is explained by that command's own help. */
function withOwnHelp(command: Command): Command {
  return command.exitOverride((error) => {
    throw usageError(error, pathOf(command)) ?? error;
  });
}

/** `cocoon secret use` */
function pathOf(command: Command): string {
  return command.parent ? `${pathOf(command.parent)} ${command.name()}` : command.name();
}

/**
 * What commander says of a command line, as an error of ours; null when it only showed its help.
 * @param command whose line it is
 */
export function usageError(thrown: CommanderError, command = 'cocoon'): MeshError | null {
  if (thrown.exitCode === 0) return null;
  const hint = `See \`${command} --help\`.`;
  if (thrown.code === 'commander.help') return new MeshError('usage', 'A command is needed', { hint });
  return new MeshError('usage', thrown.message.replace(/^error: /, '').replaceAll('\n', ' '), { hint });
}
