/**
 * What `cocoon run` and `cocoon up` have in common: flags of a device, the token and the secret, the daemon's
 * life, and what is printed about it.
 */

import type { CommandContext } from './command-context.ts';
import type { DeviceFlags } from './config.ts';
import { deviceSettings, readConfigFile } from './config.ts';
import type { Daemon, OwnSignaling, Told } from './daemon.ts';
import { startDaemon } from './daemon.ts';
import type { Log } from './logs.ts';
import type { Output } from './output.ts';
import { readSecretArgument } from './token-source.ts';
import { fired, untilEnded } from './until-ended.ts';

export interface DeviceRun {
  readonly flags: DeviceFlags & { readonly token?: string };
  readonly startSignaling?: (log: Log) => Promise<OwnSignaling>;
  /** For people, after the device is ready; also the rest of the ready event. */
  readonly announce: (
    daemon: Daemon,
  ) => Promise<{ readonly event: Record<string, unknown>; readonly text: string }>;
}

/** Until somebody ends it. @throws MeshError as `startDaemon` */
export async function runDevice(context: CommandContext, run: DeviceRun): Promise<void> {
  const { home, environment, output } = context;
  const file = await readConfigFile(home.config);
  const settings = deviceSettings(run.flags, environment, file);
  const token = await tokenOf(run.flags.token, context);
  await untilEnded(async (ended) => {
    const daemon = await startDaemon(
      {
        home,
        settings,
        token,
        secret: environment['COCOON_SECRET'] || null,
        oidcToken: environment['COCOON_OIDC_TOKEN'] || null,
        ...(run.startSignaling ? { startSignaling: run.startSignaling } : {}),
        tell: (message) => tell(output, message),
      },
      ended,
    );
    try {
      const { event, text } = await run.announce(daemon);
      output.say({ event: 'ready', ...readyEvent(daemon, context), ...event }, text);
      await fired(ended);
    } finally {
      await daemon.close();
    }
  });
}

async function tokenOf(
  flag: string | undefined,
  { environment, output }: CommandContext,
): Promise<string | null> {
  if (flag === undefined) return environment['COCOON_SETUP_TOKEN'] || null;
  const { text, exposed } = await readSecretArgument(flag);
  if (exposed)
    output.note(
      'A token in the argument list can be read by every program of this machine: use `--token -` or `--token @FILE`.',
    );
  return text;
}

function readyEvent(
  { mesh, gateway, signalingUrl }: Daemon,
  { home }: CommandContext,
): Record<string, unknown> {
  return {
    name: mesh.devices().find(({ self }) => self)?.name,
    peer_id: mesh.peerId,
    gateway: gateway.url,
    gateway_token_file: home.gatewayToken,
    signaling: signalingUrl,
  };
}

function tell(output: Output, message: Told): void {
  if (message.kind === 'note') {
    if (output.json) output.say({ event: 'note', level: message.level, message: message.message }, '');
    else output.note(message.message);
  } else if (output.json || output.terminal) {
    output.say(
      { event: 'owner_created', recovery_code: message.recoveryCode },
      recoveryText(message.recoveryCode),
    );
  } else {
    // Standard output goes to a log then, which is no place for it.
    output.note(
      'This device is its own owner now. Its recovery code was not shown, because nobody reads along: without it a leaked secret cannot be replaced. To have one, start a fresh home on a terminal or with --json.',
    );
  }
}

function recoveryText(code: string): string {
  return [
    'This device is its own owner now. Its recovery code, shown this once and kept nowhere:',
    '',
    `  ${code}`,
    '',
    'Write it down: it is the way back after a leak of your secret.',
    '',
  ].join('\n');
}
