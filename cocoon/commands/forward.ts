/** `cocoon forward`: a local port for a service of a device, until this command ends. */

import type { Command } from 'commander';
import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import type { CommandContext } from '../command-context.ts';
import { parsePort } from '../config.ts';
import { ControlClient } from '../control/client.ts';
import type { ForwardEvent } from '../forward.ts';
import { fired, untilEnded } from '../until-ended.ts';

export function describe(command: Command): void {
  command
    .description(
      'A local port for a service of a device: HTTP, WebSocket, any TCP. Runs until it is interrupted.',
    )
    .argument('<device/service>')
    .option('--port <port>', 'the local port (default: a free one)');
}

export async function forward(
  { home, output }: CommandContext,
  options: { port?: string },
  [target = '']: readonly string[],
): Promise<void> {
  const [device = '', service = '', ...rest] = target.split('/');
  if (device === '' || service === '' || rest.length > 0)
    throw new MeshError('usage', 'Name a device and a service', {
      hint: 'Example: cocoon forward server/postgres --port 15432',
    });
  const port = parsePort(options.port, 0);
  const client = new ControlClient(home);
  await untilEnded(async (ended) => {
    const request = await client.open('/forwards', {
      method: 'POST',
      headers: { 'cocoon-device': device, 'cocoon-service': service, 'cocoon-port': String(port) },
    });
    // The daemon frees the port at the end of our request, and then ends its answer: nothing is left behind.
    void fired(ended).then(() => request.end());
    try {
      for await (const event of client.lines<ForwardEvent>(request)) {
        if (event.event === 'listening')
          output.say(event, `${target} is at ${event.addresses.join(' and ')}. Ctrl-C ends it.`);
        else output.note(`A connection failed: ${event.message} (${event.code})`);
      }
    } catch (thrown) {
      if (thrown instanceof MeshError) throw thrown;
      throw new MeshError('not_running', 'The cocoon has ended, and with it the forward', { cause: thrown });
    }
    if (!ended.aborted) throw new MeshError('not_running', 'The cocoon has ended, and with it the forward');
  });
}
