/** The flags of a device, the same for `cocoon run` and `cocoon up`. */

import type { Command } from 'commander';
import { collect } from './command-context.ts';

export function withDeviceFlags(command: Command): Command {
  return command
    .option('--name <name>', 'what this device is called (default: from the host name)')
    .option(
      '--service <name:port[:http|tcp][:/health]>',
      'a local port to offer; may stand several times',
      collect,
    )
    .option('--plugin <path>', 'a plugin to load; may stand several times', collect)
    .option('--disable-capability <protocol>', 'a capability not to offer; may stand several times', collect)
    .option('--gateway-port <port>', 'port of the gateway for local programs (default: 7401)');
}
