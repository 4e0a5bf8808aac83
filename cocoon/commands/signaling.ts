/** `cocoon signaling`: the server alone. */

import type { Command } from 'commander';
import type { CommandContext } from '../command-context.ts';
import type { ServerFlags } from '../own-signaling.ts';

export function describe(command: Command): void {
  command
    .description('The signaling server alone: introduces devices and sees nothing of what they do.')
    .option('--port <port>', 'port to listen on (default: 7400)')
    .option('--host <host>', 'address to listen on (default: 127.0.0.1)')
    .option('--no-web', 'without the web page')
    .option('--tls-cert <file>', 'certificate, PEM')
    .option('--tls-key <file>', 'its key, PEM');
}

export async function signaling(
  { home, environment, output }: CommandContext,
  flags: ServerFlags,
): Promise<void> {
  const { startSignaling } = await import('@cocoon-mesh/signaling');
  const { AuditLog } = await import('@cocoon-mesh/audit');
  const { systemClock } = await import('@cocoon-mesh/protocol/clock.ts');
  const { lockHome } = await import('../home-lock.ts');
  const { openLog } = await import('../logs.ts');
  const own = await import('../own-signaling.ts');
  const { fired, untilEnded } = await import('../until-ended.ts');
  const settings = await own.serverSettings(flags, environment, home);
  process.umask(0o077);
  await home.create();
  await untilEnded(async (ended) => {
    await using parts = new AsyncDisposableStack();
    parts.adopt(lockHome(home.signalingLock, home), (release) => release());
    const { log } = parts.adopt(
      openLog(home.signalingLog, 'info', (level, message) => {
        if (level === 'warn' || level === 'error') output.note(message);
      }),
      (open) => open.close(),
    );
    const audit = parts.adopt(
      await AuditLog.open(home.signalingAudit, systemClock, (message) => log('warn', message)),
      (open) => open.close(),
    );
    const server = await startSignaling({
      ...settings,
      clock: systemClock,
      log: own.serverLog(log),
      audit,
    });
    parts.defer(() => server.close());
    const twin = await own.holdIpv6Loopback(settings, server.port);
    parts.defer(() => void twin?.close());
    const url = own.reachableUrl(settings, server.port);
    const web = own.webUrl(settings, server.port);
    output.say(
      { event: 'ready', signaling: url, ...(web === null ? {} : { web }) },
      `Signaling listens. Devices join with:\n  cocoon run --signaling ${url}`,
    );
    await fired(ended);
  });
}
