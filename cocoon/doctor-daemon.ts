/** What only the running daemon can tell `doctor`: its engine, its sign-in, its clock, its ways to others. */

import { networkInterfaces } from 'node:os';
import { checkEmbeddings } from '@cocoon-mesh/ai';
import type { LocalCapabilities } from '@cocoon-mesh/capabilities';
import type { Engine, IceServer, Mesh } from '@cocoon-mesh/mesh';
import type { Clock } from '@cocoon-mesh/protocol';
import { MeshError, deadline, limits, toMeshError } from '@cocoon-mesh/protocol';
import type { Finding } from './doctor.ts';
import { bad, checkHome, checkIpv6, ok, warn } from './doctor.ts';
import { pluginFindings } from './doctor-plugins.ts';
import { runtimeFinding } from './doctor-runtime.ts';
import type { FeatureParts } from './feature-parts.ts';
import type { Home } from './home.ts';

const gatherLimitMs = 5_000;

export interface DaemonState {
  readonly mesh: Mesh;
  readonly engine: Engine;
  readonly engineReason: string;
  readonly iceServers: readonly IceServer[];
  readonly signalingUrl: string;
  readonly gatewayUrl: string;
  readonly home: Home;
  readonly version: string;
  readonly clock: Clock;
  readonly features: Pick<FeatureParts, 'taskTotal' | 'embeddings'> & {
    readonly plugins: Pick<FeatureParts['plugins'], 'list'>;
  };
  readonly local: Pick<LocalCapabilities, 'all' | 'problems'>;
}

export async function examine(state: DaemonState): Promise<Finding[]> {
  return [
    ok('version', `cocoon ${state.version} on Node ${process.versions.node}, pid ${process.pid}`),
    ...(await checkHome(state.home)),
    engineFinding(state),
    signalingFinding(state),
    ...clockFinding(state),
    await checkIpv6(),
    ok('gateway', state.gatewayUrl),
    await tasksFinding(state),
    ...servedFindings(state),
    await embeddingsFinding(state),
    await runtimeFinding(state.clock),
    ...pluginFindings(state.features.plugins.list().plugins),
    ...problemFindings(state),
    ...(await candidateFindings(state)),
    ...deviceFindings(state),
  ];
}

function engineFinding({ engine, engineReason }: DaemonState): Finding {
  const detail = `${engine.name}: ${engineReason}`;
  return engine.name === 'libdatachannel'
    ? ok('webrtc engine', detail)
    : warn(
        'webrtc engine',
        detail,
        'It works and is slower. libdatachannel needs its prebuilt binary for this system.',
      );
}

function signalingFinding({ mesh, signalingUrl }: DaemonState): Finding {
  const state = mesh.signaling;
  switch (state.state) {
    case 'connected':
      return ok('signaling', `signed in at ${signalingUrl}`);
    case 'refused':
      return bad(
        'signaling',
        `${signalingUrl} refuses this device: ${state.message} (${state.code})`,
        new MeshError(state.code).hint,
      );
    case 'waiting':
      return bad(
        'signaling',
        `${signalingUrl}: ${state.message} (${state.code})`,
        new MeshError(state.code).hint,
      );
    default:
      return warn('signaling', `${signalingUrl} is being connected to`, 'Ask again in a moment.');
  }
}

async function tasksFinding({ features }: DaemonState): Promise<Finding> {
  try {
    const total = await features.taskTotal();
    return ok(
      'tasks',
      total === null ? 'switched off' : `${total === 1 ? '1 task is' : `${total} tasks are`} kept`,
    );
  } catch (thrown) {
    const { code, message, hint } = toMeshError(thrown);
    return bad('tasks', `they cannot be kept: ${message} (${code})`, hint);
  }
}

async function embeddingsFinding({ features, clock }: DaemonState): Promise<Finding> {
  const { embeddings } = features;
  if (!embeddings) return ok('embeddings', 'switched off');
  const found = await checkEmbeddings(embeddings, clock);
  if ('problem' in found)
    return bad(
      'embeddings',
      found.problem,
      'Correct COCOON_EMBEDDING_MODEL, or take it away to have texts compared by their words.',
    );
  return ok(
    'embeddings',
    found.semantic
      ? `${found.model} works, ${found.dimensions} dimensions`
      : `${found.model}, which compares words and not their meaning: COCOON_EMBEDDING_MODEL names a model that does`,
  );
}

/** Those that serve, in one line. */
function servedFindings({ local }: DaemonState): Finding[] {
  const serving = local.all().filter(({ problem }) => problem === null);
  const names = serving.map(({ protocol, version }) => `${protocol} ${version}`);
  return names.length === 0 ? [] : [ok('capabilities', names.join(', '))];
}

/** One for each that does not, unless it was told already. */
function problemFindings({ local, features }: DaemonState): Finding[] {
  const ofPlugins = features.plugins.list().plugins.flatMap(({ capabilities }) => capabilities);
  const told = new Set(['embeddings', ...ofPlugins.map(({ protocol }) => protocol)]);
  return local
    .problems()
    .filter(({ protocol }) => !told.has(protocol))
    .map(({ protocol, problem }) =>
      bad(
        `capability ${protocol}`,
        problem,
        'It is offered by itself as soon as that is put right; `cocoon logs` shows when.',
      ),
    );
}

function clockFinding({ mesh }: DaemonState): Finding[] {
  if (mesh.signaling.state !== 'connected') return [];
  const offsetMs = mesh.signaling.clockOffsetMs;
  const detail = `${Math.abs(offsetMs / 1000).toFixed(1)} s ${offsetMs < 0 ? 'ahead of' : 'behind'} signaling`;
  return Math.abs(offsetMs) <= limits.clockSkewMs
    ? [ok('clock', detail)]
    : [
        bad(
          'clock',
          detail,
          'Set the clocks of both machines by the network (NTP): tokens and memberships have dates.',
        ),
      ];
}

/** What a connection of this device could offer to the other side. */
async function candidateFindings({ engine, iceServers, clock }: DaemonState): Promise<Finding[]> {
  const types = new Set<string>();
  const done = Promise.withResolvers<void>();
  const limit = deadline(clock, gatherLimitMs);
  limit.signal.addEventListener('abort', () => done.resolve());
  const connection = engine.connect({
    iceServers,
    onCandidate: (candidate) => {
      if (candidate === null) done.resolve();
      else types.add(/ typ (\w+)/.exec(candidate)?.[1] ?? 'unknown');
    },
  });
  // An engine may keep its candidates until there is another side. This one is told none of them.
  const other = engine.connect({ iceServers: [], onCandidate: () => undefined });
  try {
    await connection.acceptAnswer(await other.acceptOffer(await connection.createOffer()));
    await done.promise;
  } catch (thrown) {
    return [
      bad('network', `no connection can be prepared: ${String(thrown)}`, 'Try COCOON_WEBRTC_ENGINE=werift.'),
    ];
  } finally {
    limit.cancel();
    await Promise.all([connection.close(), other.close()]);
  }
  return [networkFinding(types), ...stunFindings(types, iceServers)];
}

function networkFinding(types: ReadonlySet<string>): Finding {
  const outside = Object.values(networkInterfaces())
    .flat()
    .filter((address) => address && !address.internal).length;
  if (types.size === 0)
    return bad('network', 'no address can be offered', 'Check that a network is up and UDP is allowed.');
  return outside === 0
    ? warn('network', 'only this machine itself can be reached', 'Connect it to a network.')
    : ok('network', `${outside} addresses, candidates: ${[...types].join(', ')}`);
}

function stunFindings(types: ReadonlySet<string>, iceServers: readonly IceServer[]): Finding[] {
  const urls = iceServers.flatMap((server) => server.urls);
  const stun = urls.some((url) => url.startsWith('stun:'));
  const turn = urls.some((url) => url.startsWith('turn'));
  if (urls.length === 0)
    return [
      ok('stun', 'none configured: devices on the same network or with public addresses find each other'),
    ];
  const findings: Finding[] = [];
  if (stun)
    findings.push(
      types.has('srflx')
        ? ok('stun', 'tells this device its address outside')
        : warn(
            'stun',
            'no address outside was told',
            'Check COCOON_ICE_SERVERS, and that UDP may leave this network. A machine with a public address needs none.',
          ),
    );
  if (turn)
    findings.push(
      types.has('relay')
        ? ok('turn', 'relays for this device')
        : bad('turn', 'gives no relay', 'Check its address, user and credential.'),
    );
  return findings;
}

function deviceFindings({ mesh }: DaemonState): Finding[] {
  return mesh
    .devices()
    .filter(({ problem }) => problem !== null)
    .map(({ name, problem }) =>
      bad(`device ${name}`, problem ?? '', `If you replaced it: cocoon devices --accept ${name}`),
    );
}
