/**
 * The device: the one place that builds its parts, in order, and closes them in reverse. What is printed about it
 * and when it ends are the commands' matter (`commands/run.ts`, `commands/up.ts`).
 */

import { availableParallelism, loadavg } from 'node:os';
import { AuditLog } from '@cocoon-mesh/audit';
import { LocalCapabilities } from '@cocoon-mesh/capabilities';
import type { Mesh, SignalingSocketFactory } from '@cocoon-mesh/mesh';
import { createMesh } from '@cocoon-mesh/mesh';
import { selectEngine } from '@cocoon-mesh/mesh/engines/select.node.ts';
import { nodeAead } from '@cocoon-mesh/mesh/noise-cipher.node.ts';
import { nodeSignalingSocket } from '@cocoon-mesh/mesh/signaling-socket.node.ts';
import type { Clock, ErrorCode } from '@cocoon-mesh/protocol';
import { MeshError, deadline, systemClock } from '@cocoon-mesh/protocol';
import { recordDenied, recordMeshEvents } from './audit-events.ts';
import { Commands } from './commands-api.ts';
import type { DeviceSettings } from './config.ts';
import { defaultSignalingUrl } from './config.ts';
import { ControlServer } from './control/server.ts';
import { controlSocketPath } from './control/socket-path.ts';
import { examine } from './doctor-daemon.ts';
import { FeatureParts } from './feature-parts.ts';
import { Gateway } from './gateway/gateway.ts';
import { openGatewayToken } from './gateway/token.ts';
import type { Home } from './home.ts';
import { lockHome } from './home-lock.ts';
import { openIdentityKey } from './identity-key.ts';
import type { Log } from './logs.ts';
import { openLog } from './logs.ts';
import { OwnersFile } from './mesh-store.ts';
import { oidcTokenSource } from './oidc-token.ts';
import { OwnerKeyring } from './owner-keyring.ts';
import { OwnerParts } from './owner-parts.ts';
import type { Ownership } from './ownership.ts';
import { retireSecret, settleOwnership } from './ownership.ts';
import { Reach } from './reach.ts';
import { remoteTasksPolicy } from './remote-tasks.ts';
import { describeSelf } from './self-description.ts';
import { Services } from './services.ts';
import { cocoonVersion } from './version.ts';

/** A signaling server that lives and ends with this device (`cocoon up`). */
export interface OwnSignaling {
  /** What this device signs in as dialling. */
  readonly url: string;
  /** As other devices reach it. */
  readonly publicUrl: string;
  /** Where it serves the web page. */
  readonly web: string | null;
  readonly openSocket: SignalingSocketFactory;
  close(): Promise<void>;
}

export interface DaemonOptions {
  readonly home: Home;
  readonly settings: DeviceSettings;
  readonly token: string | null;
  readonly secret: string | null;
  /** An ID token or `@FILE`. */
  readonly oidcToken?: string | null;
  readonly startSignaling?: (log: Log) => Promise<OwnSignaling>;
  /** What the user should read at once: warnings, and the recovery code, which is told here and nowhere else. */
  readonly tell: (message: Told) => void;
  readonly clock?: Clock;
}

export type Told =
  | { readonly kind: 'owner_created'; readonly recoveryCode: string }
  | { readonly kind: 'note'; readonly level: 'warn' | 'error' | 'info'; readonly message: string };

/** How long a device that was given a token tries to redeem it before the start fails. */
const redeemLimitMs = 15_000;
/** How long any other device waits for signaling before it goes on without it. */
const firstSignInLimitMs = 5_000;

export interface Daemon {
  readonly mesh: Mesh;
  readonly commands: Commands;
  readonly gateway: Gateway;
  readonly signalingUrl: string;
  readonly web: string | null;
  /** Ends everything, within five seconds. Idempotent. */
  close(): Promise<void>;
}

/**
 * @param signal gives the start up
 * @throws MeshError already_running | port_in_use | key_… | already_owned | token_… | unknown_engine | …
 */
export async function startDaemon(options: DaemonOptions, signal: AbortSignal): Promise<Daemon> {
  const parts = new AsyncDisposableStack();
  try {
    const daemon = await build(options, parts);
    await firstSignIn(daemon.mesh, daemon.ownership, options, signal);
    await daemon.modelsKnown;
    if (daemon.ownership.claim) await daemon.commands.owner.claimToken(daemon.ownership.claim);
    return { ...daemon, close: () => parts.disposeAsync() };
  } catch (thrown) {
    await parts.disposeAsync();
    throw thrown;
  }
}

async function build(
  options: DaemonOptions,
  parts: AsyncDisposableStack,
): Promise<Omit<Daemon, 'close'> & { ownership: Ownership; modelsKnown: Promise<void> }> {
  const { home, settings, clock = systemClock } = options;
  // Whatever is made below, others need not read.
  process.umask(0o077);
  await home.create();
  parts.adopt(lockHome(home.lock, home), (release) => release());
  const { log } = parts.adopt(openLog(home.log, settings.logLevel, tellOf(options)), (open) => open.close());
  parts.defer(() => log('info', 'Ended'));
  const crashed = (error: Error): void =>
    log('error', 'Ended by an error', { error: error.stack ?? String(error) });
  process.on('uncaughtExceptionMonitor', crashed);
  parts.defer(() => void process.off('uncaughtExceptionMonitor', crashed));

  const audit = await AuditLog.open(home.audit, clock, (message) => log('warn', message));
  parts.defer(() => audit.close());
  const key = await openIdentityKey(home.identityKey);
  const gatewayToken = await openGatewayToken(home.gatewayToken);
  const owners = await OwnersFile.open(home.owners);
  const { engine, reason } = await selectEngine(settings.engine);
  const local = new LocalCapabilities({ clock, log, disabled: settings.disabledCapabilities });
  const services = await Services.open({
    path: home.services,
    configured: settings.services,
    insisted: settings.servicesByFlag,
    clock,
    changed: () => mesh.describe(describeSelf(settings, ownName(mesh), services, local.advertised())),
  });
  parts.defer(() => services.close());
  const ownSignaling = (await options.startSignaling?.(log)) ?? null;
  if (ownSignaling) parts.defer(() => ownSignaling.close());

  const now = Math.floor(clock.now() / 1000);
  const ownership = await settleOwnership({
    home,
    owners,
    key,
    now,
    token: options.token,
    secret: options.secret,
  });
  for (const message of ownership.notes) options.tell({ kind: 'note', level: 'info', message });
  if (ownership.recoveryCode !== null)
    options.tell({ kind: 'owner_created', recoveryCode: ownership.recoveryCode });
  const signalingUrl =
    ownSignaling?.url ??
    settings.signalingUrl ??
    ownership.token?.grant.signaling ??
    owners.owners.signalingUrl ??
    ownership.claim?.grant.signaling ??
    defaultSignalingUrl;
  if (ownership.token) owners.redeeming(ownership.token.grant.jti, signalingUrl);

  const keyring = new OwnerKeyring(ownership.keys);
  const mayRun = remoteTasksPolicy(
    settings.remoteTasks,
    (peerId) => mesh.devices().find((device) => device.peerId === peerId)?.kind ?? null,
  );
  const mesh = await createMesh({
    key,
    engine,
    iceServers: settings.iceServers,
    signalingUrl,
    openSocket: ownSignaling?.openSocket ?? nodeSignalingSocket,
    self: describeSelf(
      settings,
      settings.named ? settings.name : (owners.owners.name ?? settings.name),
      services,
      local.advertised(),
    ),
    store: owners,
    ...(ownership.token ? { token: ownership.token } : {}),
    clock,
    aead: nodeAead,
    log,
    oidcToken: oidcTokenSource(options.oidcToken ?? null, log),
    load: () => local.load ?? (loadavg()[0] ?? 0) / availableParallelism(),
    signs: () => keyring.keys !== null,
    policy: mayRun,
  });
  parts.defer(() => mesh.close());
  parts.defer(recordMeshEvents(mesh, audit));
  keyring.follow(() => mesh.ownerRecords);
  mesh.on('devices', () => void remember(mesh, owners, log));
  parts.defer(
    followProviders(
      local,
      (provided) => mesh.describe(describeSelf(settings, ownName(mesh), services, provided)),
      log,
    ),
  );

  const reach = parts.adopt(
    new Reach(mesh, services, clock, (peer, right) => recordDenied(audit, peer, right)),
    (opened) => opened.close(),
  );
  const features = parts.adopt(
    new FeatureParts({
      mesh,
      services,
      local,
      settings,
      home,
      clock,
      log,
      denied: (peer, right) => recordDenied(audit, peer, right),
    }),
    (opened) => opened.close(),
  );
  const gateway = await Gateway.start({
    port: settings.gatewayPort,
    token: gatewayToken,
    mesh,
    reach,
    clock,
    features,
    devices: () => {
      // For the next look; this one must not wait.
      void features.capabilities.refresh();
      return commands.devices();
    },
  });
  parts.defer(() => gateway.close());
  const version = cocoonVersion();
  const owner = new OwnerParts({
    mesh,
    keyring,
    owners,
    home,
    clock,
    audit,
    log,
    signalingUrl,
    publicSignalingUrl: ownSignaling?.publicUrl ?? signalingUrl,
  });
  parts.defer(() => owner.close());
  const commands = new Commands({
    mesh,
    services,
    reach,
    capabilities: features.capabilities,
    gateway,
    clock,
    owner: owner.commands,
    knowledge: features.knowledge,
    plugins: features.plugins,
    home: home.path,
    engine: engine.name,
    version,
    signalingUrl,
    web: ownSignaling ? ownSignaling.web : webOf(signalingUrl),
    doctor: () =>
      examine({
        mesh,
        engine,
        engineReason: reason,
        iceServers: settings.iceServers,
        signalingUrl,
        gatewayUrl: gateway.url,
        home,
        version,
        clock,
        features,
        local,
      }),
  });
  const control = await ControlServer.start({
    path: controlSocketPath(home),
    commands,
    reach,
    clock,
    features,
  });
  parts.defer(() => control.close());
  // What runs gets its time to end while everything else closes.
  parts.defer(() => void features.close());

  features.start();
  services.start();
  mesh.start();
  log('info', 'Started', { version, peer: mesh.peerId, engine: engine.name, signaling: signalingUrl });
  return {
    mesh,
    commands,
    gateway,
    signalingUrl: ownSignaling?.publicUrl ?? signalingUrl,
    web: ownSignaling?.web ?? null,
    ownership,
    modelsKnown: features.modelsKnown(),
  };
}

/**
 * A device that was given a token waits until it is redeemed, and fails with the reason: without it it is nobody, or
 * not what its user asked for. Any other one works without signaling, too, and only gives it a moment.
 */
async function firstSignIn(
  mesh: Mesh,
  ownership: Ownership,
  { home, tell, clock = systemClock }: DaemonOptions,
  signal: AbortSignal,
): Promise<void> {
  const token = ownership.token ?? ownership.claim;
  const limit = deadline(clock, token ? redeemLimitMs : firstSignInLimitMs);
  const patience = AbortSignal.any([limit.signal, signal]);
  const giveUp = new AbortController();
  const forget = mesh.on('signaling', (state) => {
    // Nothing that this device does by itself brings the ID token that is missing.
    if (state.state === 'waiting' && (!token || state.code === 'oidc_required')) giveUp.abort();
  });
  try {
    await mesh.ready(AbortSignal.any([patience, giveUp.signal]));
    if (ownership.token) await retireSecret(home);
  } catch (thrown) {
    if (signal.aborted) throw new MeshError('cancelled', undefined, { cause: thrown });
    const state = mesh.signaling;
    if (state.state === 'refused' && (state.code !== 'revoked' || !ownership.keys)) throw thrown;
    if (state.state === 'refused')
      return tell({
        kind: 'note',
        level: 'warn',
        message:
          'Somebody who holds the secret of the owner has revoked this device. If it was not you, run `cocoon secret rotate`.',
      });
    const { code, message } =
      state.state === 'waiting' ? state : ({ code: 'signaling_unreachable', message: '' } as const);
    if (token) throw new MeshError(code, message || undefined, { cause: thrown });
    tell({
      kind: 'note',
      level: 'warn',
      message: notReached(code),
    });
  } finally {
    forget();
    limit.cancel();
  }
}

function notReached(code: ErrorCode): string {
  if (code === 'signaling_unreachable')
    return `Signaling is not reached yet (${code}); this device goes on trying.`;
  return `Signaling does not let this device in yet (${code}); it goes on trying. ${new MeshError(code).hint}`;
}

function tellOf({ tell }: DaemonOptions) {
  return (level: string, message: string): void => {
    if (level === 'warn' || level === 'error') tell({ kind: 'note', level, message });
  };
}

function ownName(mesh: Mesh): string {
  return mesh.devices().find(({ self }) => self)?.name ?? '';
}

/**
 * What the next start needs to know: how this device is called, and that no token may replace its owner any more
 * because somebody else relies on it.
 */
async function remember(mesh: Mesh, owners: OwnersFile, log: Log): Promise<void> {
  try {
    if (mesh.signaling.state === 'connected') await owners.noteName(ownName(mesh));
    if (mesh.devices().some(({ self }) => !self)) await owners.noteOtherDevices();
  } catch (thrown) {
    log('error', 'The owners file could not be written', { error: String(thrown) });
  }
}

/** Tells others what is served here now; many changes at once are told once. @returns ends it */
function followProviders(
  local: LocalCapabilities,
  tell: (provided: ReturnType<LocalCapabilities['advertised']>) => Promise<void>,
  log: Log,
): () => void {
  let told = JSON.stringify(local.advertised());
  let problems = new Map<string, string>();
  return local.onChange((change) => {
    if (change === 'load') return;
    queueMicrotask(() => {
      const before = problems;
      problems = new Map(local.problems().map(({ protocol, problem }) => [protocol, problem]));
      for (const [protocol, problem] of problems)
        if (before.get(protocol) !== problem)
          log('info', 'A capability is not served', { protocol, problem });
      for (const protocol of before.keys())
        if (!problems.has(protocol)) log('info', 'A capability is served now', { protocol });
      const provided = local.advertised();
      const now = JSON.stringify(provided);
      if (now === told) return;
      told = now;
      tell(provided).catch((thrown: unknown) =>
        log('warn', 'Others could not be told what is served here', { error: String(thrown) }),
      );
    });
  });
}

/** Browsers give keys only to pages that came safely: from this machine or over TLS. */
function webOf(signalingUrl: string): string | null {
  const url = new URL(signalingUrl);
  if (url.protocol === 'wss:') return `https://${url.host}`;
  const local = ['127.0.0.1', '[::1]', 'localhost', 'mesh.localhost'].includes(url.hostname);
  return local ? `http://mesh.localhost:${url.port || '80'}` : null;
}
