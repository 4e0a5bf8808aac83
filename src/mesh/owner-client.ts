/**
 * `/cocoon/owner/1`, the asking end: finds a device that holds my owner's secret and has it sign something. What
 * it answers is for the asker to verify; errors it tells are thrown as if they were our own.
 */

import type { Clock, OwnerAnswer, OwnerRequest } from '@cocoon-mesh/protocol';
import {
  MeshError,
  ResetCode,
  deadline,
  decode,
  encode,
  isErrorCode,
  limits,
  ownerAnswerSchema,
  ownerRequestSchema,
  streamProtocols,
  toMeshError,
} from '@cocoon-mesh/protocol';
import type { Device, Mesh } from './mesh.ts';
import type { Stream } from './stream.ts';
import { readMessage } from './read-message.ts';

type OwnerMesh = Pick<Mesh, 'devices' | 'openStream' | 'ping' | 'signers'>;

/** What is asked, and how its answer is told from one that anybody could give. */
export interface OwnerQuestion<T> {
  readonly request: OwnerRequest;
  /** What the answer proves. Rejects when it proves something else or nothing: then the next device is asked. */
  readonly read: (answer: OwnerAnswer) => Promise<T>;
}

/**
 * Asks the devices that are known to sign, then those that might.
 * @throws MeshError owner_key_offline naming the devices that sign, and whatever a signing device answers
 */
export async function askOwner<T>(
  mesh: OwnerMesh,
  clock: Clock,
  question: OwnerQuestion<T>,
  signal?: AbortSignal,
): Promise<T> {
  const round = { mesh, clock, question, signal, asked: new Set<string>(), liars: new Set<string>() };
  const online = mesh.signers().filter((device) => device.online);
  const known = await askEach(round, online);
  if (known) return known.proven;
  await meet(mesh, clock, round.asked, signal);
  const met = mesh.signers().filter((device) => device.online);
  const answer = await askEach(round, met);
  if (answer) return answer.proven;
  throw ownerKeyOffline(mesh, round.liars);
}

/**
 * Says whom to start.
 * @param liars PeerIds of devices that answered and proved nothing
 */
export function ownerKeyOffline(
  mesh: Pick<Mesh, 'signers'>,
  liars: ReadonlySet<string> = new Set(),
): MeshError {
  const signers = mesh.signers();
  const names = signers.filter(({ peerId }) => !liars.has(peerId)).map(({ name }) => name);
  const lying = signers.filter(({ peerId }) => liars.has(peerId)).map(({ name }) => name);
  const message =
    lying.length === 0
      ? undefined
      : `What was asked is not done: ${lying.join(', ')} answered without the signature of the owner`;
  return new MeshError('owner_key_offline', message, {
    hint:
      names.length === 0
        ? 'Start the device on which you ran `cocoon up` first, or run the command there.'
        : `Start one of these devices, or run the command there: ${names.join(', ')}.`,
  });
}

/**
 * Asks one device.
 * @throws MeshError owner_key_offline when it signs nothing, device_offline | timeout | …, and what it answers
 */
export async function askSigner(
  mesh: Pick<Mesh, 'openStream'>,
  clock: Clock,
  peerId: string,
  request: OwnerRequest,
  signal?: AbortSignal,
): Promise<OwnerAnswer> {
  const limit = deadline(clock, limits.connectTimeoutMs + limits.ownerRequestTimeoutMs);
  const patience = signal ? AbortSignal.any([limit.signal, signal]) : limit.signal;
  let stream: Stream | null = null;
  let answer: OwnerAnswer;
  try {
    const opened = await mesh.openStream(peerId, streamProtocols.owner, new Uint8Array(), patience);
    stream = opened;
    patience.throwIfAborted();
    patience.addEventListener('abort', () => opened.reset(ResetCode.timeout));
    opened.write(encode(ownerRequestSchema, request));
    opened.end();
    const bytes = await readMessage(opened, limits.maxOwnerMessageBytes);
    answer = decode(ownerAnswerSchema, bytes, limits.maxOwnerMessageBytes);
  } catch (thrown) {
    stream?.reset(ResetCode.cancel);
    throw patience.aborted ? toMeshError(patience.reason) : thrown;
  } finally {
    limit.cancel();
  }
  if (answer.error) throw errorOf(answer.error);
  return answer;
}

interface Round<T> {
  readonly mesh: OwnerMesh;
  readonly clock: Clock;
  readonly question: OwnerQuestion<T>;
  readonly signal: AbortSignal | undefined;
  readonly asked: Set<string>;
  readonly liars: Set<string>;
}

async function askEach<T>(
  { mesh, clock, question, signal, asked, liars }: Round<T>,
  devices: readonly Device[],
): Promise<{ readonly proven: T } | null> {
  for (const { peerId, self } of devices) {
    if (self || asked.has(peerId)) continue;
    asked.add(peerId);
    let answer: OwnerAnswer;
    try {
      answer = await askSigner(mesh, clock, peerId, question.request, signal);
    } catch (thrown) {
      if (signal?.aborted || !isUnreachable(toMeshError(thrown))) throw thrown;
      continue;
    }
    try {
      return { proven: await question.read(answer) };
    } catch {
      liars.add(peerId);
    }
  }
  return null;
}

/** Devices say in HELLO whether they sign, so a session to each tells. Never rejects. */
async function meet(
  mesh: OwnerMesh,
  clock: Clock,
  asked: ReadonlySet<string>,
  signal: AbortSignal | undefined,
): Promise<void> {
  const limit = deadline(clock, limits.openTimeoutMs);
  const patience = signal ? AbortSignal.any([limit.signal, signal]) : limit.signal;
  const strangers = mesh
    .devices()
    .filter(
      ({ self, foreign, kind, online, path, peerId }) =>
        !self && !foreign && kind === 'cocoon' && online && path === null && !asked.has(peerId),
    );
  await Promise.allSettled(strangers.map(({ peerId }) => mesh.ping(peerId, patience)));
  limit.cancel();
}

/** The device did not decide anything: another one may. */
function isUnreachable({ code }: MeshError): boolean {
  return unreachable.has(code);
}

const unreachable: ReadonlySet<string> = new Set([
  'owner_key_offline',
  'device_offline',
  'device_not_found',
  'connect_timeout',
  'timeout',
  'proof_failed',
  'carrier_lost',
  'session_closed',
  'stream_reset',
  'signaling_unreachable',
]);

function errorOf({ code, message, hint }: NonNullable<OwnerAnswer['error']>): MeshError {
  const options = hint === undefined ? {} : { hint };
  return isErrorCode(code)
    ? new MeshError(code, message, options)
    : new MeshError('internal', message, options);
}
