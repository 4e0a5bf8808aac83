/**
 * `cocoon up`: a mesh of one in one process: signaling, the web page and this device. It is, with
 * `cocoon signaling`, the only place that starts the server (docs/decisions/0003).
 */

import type { Command } from 'commander';
import type { CommandContext } from '../command-context.ts';
import type { Daemon, OwnSignaling } from '../daemon.ts';
import type { Log } from '../logs.ts';
import type { ServerFlags, ServerSettings } from '../own-signaling.ts';
import type { DeviceRun } from '../run-device.ts';

type UpFlags = ServerFlags & Omit<DeviceRun['flags'], 'token' | 'signaling'>;

export function describe(command: Command): void {
  command
    .description('Turns this machine into a mesh of one: signaling, web page and device in one process.')
    .option('--port <port>', 'port of signaling and the web page (default: 7400)')
    .option('--host <host>', 'address to listen on; 0.0.0.0 lets other machines join (default: 127.0.0.1)')
    .option('--no-web', 'without the web page')
    .option('--tls-cert <file>', 'certificate, PEM')
    .option('--tls-key <file>', 'its key, PEM');
}

export async function up(context: CommandContext, flags: UpFlags): Promise<void> {
  const { runDevice } = await import('../run-device.ts');
  const { serverSettings } = await import('../own-signaling.ts');
  const settings = await serverSettings(flags, context.environment, context.home);
  await runDevice(context, {
    flags,
    startSignaling: (log) => start(settings, context, log),
    announce: (daemon) => announce(daemon, settings, context),
  });
}

async function start(settings: ServerSettings, { home }: CommandContext, log: Log): Promise<OwnSignaling> {
  const { startSignaling } = await import('@cocoon-mesh/signaling');
  const { AuditLog } = await import('@cocoon-mesh/audit');
  const { systemClock } = await import('@cocoon-mesh/protocol/clock.ts');
  const own = await import('../own-signaling.ts');
  const { lockHome } = await import('../home-lock.ts');
  const parts = new AsyncDisposableStack();
  try {
    parts.adopt(lockHome(home.signalingLock, home), (release) => release());
    const audit = parts.adopt(
      await AuditLog.open(home.signalingAudit, systemClock, (message) => log('warn', message)),
      (open) => open.close(),
    );
    const options = { ...settings, clock: systemClock, log: own.serverLog(log), audit };
    const server = await startOn(settings.port === 0 ? await own.lastPort(home) : settings.port, (port) =>
      startSignaling({ ...options, port }),
    );
    parts.defer(() => server.close());
    const twin = await own.holdIpv6Loopback(settings, server.port);
    parts.defer(() => void twin?.close());
    await own.rememberPort(home, server.port);
    return {
      url: settings.publicUrl === undefined ? server.url : own.reachableUrl(settings, server.port),
      publicUrl: own.reachableUrl(settings, server.port),
      web: own.webUrl(settings, server.port),
      openSocket: own.ownSocket(settings, server.httpUrl),
      close: () => parts.disposeAsync(),
    };
  } catch (thrown) {
    await parts.disposeAsync();
    throw thrown;
  }

  /** A remembered port may be somebody else's by now. */
  async function startOn<T>(port: number, begin: (port: number) => Promise<T>): Promise<T> {
    try {
      return await begin(port);
    } catch (thrown) {
      if (settings.port !== 0 || port === 0) throw thrown;
      return begin(0);
    }
  }
}

async function announce(
  daemon: Daemon,
  settings: ServerSettings,
  context: CommandContext,
): Promise<{ event: Record<string, unknown>; text: string }> {
  const { readyText } = await import('./run.ts');
  const { web } = daemon;
  const { output } = context;
  const link = web !== null && (output.json || output.terminal) ? await signInLink(daemon) : null;
  const event = { ...(web === null ? {} : { web }), ...(link === null ? {} : { web_signin: link }) };
  const text = [
    readyText(daemon, context),
    '',
    webText(web, link, settings),
    '',
    await joinText(daemon, settings),
  ];
  return { event, text: text.join('\n') };
}

/** None on a device that does not hold the secret: a start does not wait for another one, `cocoon open` does. */
async function signInLink({ commands }: Daemon): Promise<string | null> {
  if (!commands.owner.signsHere) return null;
  try {
    return await commands.signInLink();
  } catch {
    return null;
  }
}

function webText(web: string | null, link: string | null, settings: ServerSettings): string {
  if (web === null)
    return settings.webRoot === undefined
      ? 'There is no web page: build it with `npm run build:web` and start again, or leave --no-web out.'
      : 'There is no web page.';
  if (link === null) return `Web page: ${web}   (sign in with \`cocoon open\`)`;
  return `Open ${link}\n(signs in one browser, once, within 10 minutes; \`cocoon open\` makes another)`;
}

async function joinText({ signalingUrl }: Daemon, settings: ServerSettings): Promise<string> {
  const { isLoopbackHost } = await import('../own-signaling.ts');
  if (settings.publicUrl === undefined && isLoopbackHost(settings.host))
    return 'Only this machine can join. To let others join, start with --host 0.0.0.0.';
  return [
    'On the next device, with a token that `cocoon generate-token` prints here:',
    `  cocoon run --token - --signaling ${signalingUrl}`,
  ].join('\n');
}
