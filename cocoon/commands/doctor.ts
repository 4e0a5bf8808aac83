/** `cocoon doctor`: what works, what does not, why, and what to change. Also without a running daemon. */

import type { CommandContext } from '../command-context.ts';
import { deviceSettings, defaultSignalingUrl, readConfigFile } from '../config.ts';
import { ControlClient } from '../control/client.ts';
import type { Finding } from '../doctor.ts';
import { bad, checkHome, checkIpv6, checkPortFree, checkSignalingHttp, ok, warn } from '../doctor.ts';
import { systemClock } from '@cocoon-mesh/protocol/clock.ts';
import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import { printableLine } from '../terminal-text.ts';
import { cocoonVersion } from '../version.ts';

const signalingLimitMs = 5_000;

export async function doctor(context: CommandContext): Promise<void> {
  const { output } = context;
  const findings = await findingsOf(context);
  output.say({ findings }, findings.map(findingText).join('\n'));
  if (findings.some(({ state }) => state === 'fail')) process.exitCode = 1;
}

async function findingsOf(context: CommandContext): Promise<readonly Finding[]> {
  try {
    const client = new ControlClient(context.home);
    return (await client.ask<{ findings: readonly Finding[] }>('GET', '/doctor')).findings;
  } catch (thrown) {
    if (thrown instanceof MeshError && thrown.code === 'not_running') return withoutDaemon(context);
    throw thrown;
  }
}

async function withoutDaemon({ home, environment }: CommandContext): Promise<Finding[]> {
  // Only here: what it takes to compute is no part of other commands.
  const { runtimeFinding } = await import('../doctor-runtime.ts');
  const findings = [
    ok('version', `cocoon ${cocoonVersion()} on Node ${process.versions.node}`),
    warn(
      'daemon',
      `no cocoon is running with the home ${home.path}`,
      'Start one with `cocoon up` or `cocoon run`.',
    ),
    ...(await checkHome(home)),
    await checkIpv6(),
    await runtimeFinding(systemClock),
  ];
  try {
    const settings = deviceSettings({}, environment, await readConfigFile(home.config));
    const { selectEngine } = await import('@cocoon-mesh/mesh/engines/select.node.ts');
    const { engine, reason } = await selectEngine(settings.engine);
    findings.push(ok('webrtc engine', `${engine.name}: ${reason}`));
    findings.push(await checkPortFree('gateway', settings.gatewayPort));
    findings.push(
      await checkSignalingHttp(
        settings.signalingUrl ?? defaultSignalingUrl,
        AbortSignal.timeout(signalingLimitMs),
      ),
    );
  } catch (thrown) {
    if (!(thrown instanceof MeshError)) throw thrown;
    findings.push(bad('configuration', `${thrown.message} (${thrown.code})`, thrown.hint));
  }
  return findings;
}

function findingText({ check, state, detail, hint }: Finding): string {
  const mark = { ok: 'ok  ', warn: 'WARN', fail: 'FAIL' }[state];
  return `${mark}  ${printableLine(`${check}: ${detail}`)}${hint === '' ? '' : `\n      → ${printableLine(hint)}`}`;
}
