/**
 * Requests to whichever device serves them best. Another device is asked only before the first byte of an answer, at
 * most two more, and none that is off: what is known decides, and what is not known is tried.
 */

import type { Device, Mesh } from '@cocoon-mesh/mesh';
import type { CapabilityAnswerMessage, CapabilityState, Clock, ErrorCode } from '@cocoon-mesh/protocol';
import { MeshError, badRange, check, deadline, limits, toMeshError } from '@cocoon-mesh/protocol';
import { capabilityRequestOpenSchema, capabilityRequestSchema } from '@cocoon-mesh/protocol';
import { validRange } from 'semver';
import { startAnswer } from './answer-under-way.ts';
import type { Begun, Ended } from './answer-under-way.ts';
import { askStream } from './ask-stream.ts';
import { Breaker } from './breaker.ts';
import type { Candidate, Choice, KnownStates, Wanted } from './choice.ts';
import { choose, unfitness } from './choice.ts';
import type { Descriptions } from './descriptions.ts';
import type { DeviceStates } from './device-states.ts';
import { attemptError, isBusy, isFinal, outcomeOf, toldError } from './failures.ts';
import type { LocalCapabilities } from './local-capabilities.ts';
import type { Content } from './provider.ts';
import type { CapabilityRequest, InsteadOf, RequestCapability } from './request.ts';
import { Sessions } from './sessions.ts';
import { Unreached } from './unreached.ts';

export interface RouterOptions {
  readonly mesh: Pick<Mesh, 'peerId' | 'devices' | 'resolve' | 'openStream'>;
  readonly clock: Clock;
  /** Null: this peer serves nothing, as a browser. */
  readonly local: LocalCapabilities | null;
  readonly states: DeviceStates;
  readonly descriptions: Pick<Descriptions, 'of' | 'refresh' | 'isFresh'>;
}

/** The first and two more. */
const maxAttempts = 3;
/** Devices that are asked how they do before one is chosen. */
const maxDescribed = 8;
/** Where nobody is known who has more than a stand-in: any of them may. */
const maxDescribedForMore = 32;
/** A round trip far away; a device that takes longer is not the best one. */
const describePatienceMs = 250;
/** The first time, a session may have to be made. */
const firstPatienceMs = 1_000;
/** Answering in place of a better one is worse than a wait, which is the same for ten seconds of requests. */
const standInPatienceMs = 2_000;

interface Plan {
  readonly wanted: Wanted;
  readonly order: readonly Choice[];
  readonly insteadOf: InsteadOf | null;
}

type Checked = CapabilityRequest & { readonly features: readonly string[]; readonly timeoutMs: number };

export class CapabilityRouter {
  readonly #options: RouterOptions;
  readonly #breakers = new Map<string, Breaker>();
  readonly #sessions: Sessions;
  readonly #unreached: Unreached;

  constructor(options: RouterOptions) {
    this.#options = options;
    this.#sessions = new Sessions(options.clock);
    this.#unreached = new Unreached(options.clock);
  }

  readonly request: RequestCapability = (asked) =>
    startAnswer((left, began) => this.#answer(asked, left, began));

  async *#answer(
    asked: CapabilityRequest,
    left: AbortSignal,
    began: (device: Begun) => void,
  ): AsyncGenerator<Content, Ended, undefined> {
    const request = checked(asked);
    const limit = deadline(this.#options.clock, request.timeoutMs);
    const signal = AbortSignal.any([left, limit.signal, ...(asked.signal ? [asked.signal] : [])]);
    try {
      return yield* this.#attempts(request, signal, began);
    } catch (thrown) {
      throw toMeshError(thrown);
    } finally {
      limit.cancel();
    }
  }

  async *#attempts(
    request: Checked,
    signal: AbortSignal,
    began: (device: Begun) => void,
  ): AsyncGenerator<Content, Ended, undefined> {
    const { clock } = this.#options;
    const startedMs = clock.monotonic();
    const { wanted, order: best, insteadOf: unfit } = await this.#plan(request, signal);
    const order = this.#reachableFirst(best);
    let insteadOf = unfit ?? passedOver(wanted, best, order);
    let attempts = 0;
    let failure: MeshError | null = null;
    /** A device that has more than a stand-in. */
    let isOneBusy = false;
    const own = this.#ownProblem(wanted);
    for (const choice of order) {
      const { peerId, name } = choice;
      const isNamed = [wanted.only, wanted.preferred, wanted.sticky].includes(peerId);
      if (attempts === maxAttempts || (choice.isStandIn && !isNamed && (isOneBusy || own !== null))) break;
      const hasMore = !choice.isStandIn && !choice.isUnknown;
      const endTry = this.#breaker(peerId).begin();
      if (!endTry) {
        const error = this.#openError(choice);
        isOneBusy ||= hasMore;
        failure ??= error;
        if (peerId === wanted.preferred) insteadOf = insteadOfBy(name, error);
        continue;
      }
      attempts++;
      const ticket = choice.self ? null : this.#options.states.began(peerId, request);
      let hasBegun = false;
      try {
        const isLast = attempts === maxAttempts || choice === order.at(-1);
        for await (const message of this.#ask(choice, request, startedMs, signal, isLast)) {
          if (message.kind === 'error') {
            if (message.load) ticket?.heard(null, message.load);
            throw toldError(message);
          }
          if (!hasBegun) began({ device: name, deviceId: peerId, attempts });
          hasBegun = true;
          if (message.kind === 'chunk') {
            yield { payload: message.payload, parts: message.parts };
            continue;
          }
          ticket?.heard(message.version, message.load);
          endTry('served');
          this.#sessions.served(request, peerId);
          const { payload, parts, version, queue_ms: queueMs } = message;
          const totalMs = Math.round(clock.monotonic() - startedMs);
          if (peerId === wanted.preferred) insteadOf = null;
          return {
            payload,
            parts,
            source: { device: name, deviceId: peerId, version, attempts, queueMs, totalMs, insteadOf },
          };
        }
        throw new MeshError('bad_answer', `${name} ended its answer in the middle`);
      } catch (thrown) {
        const error = attemptError(thrown, name, signal);
        endTry(outcomeOf(error));
        if (signal.aborted) throw error;
        if (error.code === 'connect_timeout') this.#unreached.add(peerId);
        if (hasBegun) throw brokenOff(error, name);
        if (isFinal(error)) throw error;
        isOneBusy ||= hasMore && isBusy(error);
        failure = worse(failure, named(error, name));
        if (peerId === wanted.preferred) insteadOf = insteadOfBy(name, error);
      } finally {
        // Also when the asker leaves in the middle, which says nothing about the device.
        endTry('neither');
        ticket?.ended();
      }
    }
    throw failure ?? own ?? new MeshError('capability_not_found');
  }

  /** What was set up here and does not work is not replaced by the stand-in of another device, unless that is asked for. */
  #ownProblem(wanted: Wanted): MeshError | null {
    return wanted.features.length > 0 ? null : (this.#options.local?.problemOf(wanted) ?? null);
  }

  /** @throws MeshError capability_not_found | device_offline | device_not_found | name_changed, what the signal says */
  async #plan(request: Checked, signal: AbortSignal): Promise<Plan> {
    const { mesh } = this.#options;
    const { protocol, version, features, preferDevice, onlyDevice } = request;
    const preferred = preferDevice === undefined ? null : mesh.resolve(preferDevice);
    const only = onlyDevice === undefined ? null : mesh.resolve(onlyDevice);
    const wanted: Wanted = {
      protocol,
      version,
      features,
      preferred: preferred?.peerId ?? null,
      only: only?.peerId ?? null,
      sticky: this.#sessions.deviceOf(request),
    };
    signal.throwIfAborted();
    // What is no longer fresh may be wrong: nobody is left out because of it without being asked again.
    let order = this.#choose(wanted, (peerId) => this.#statesOf(peerId, true));
    const isStandInWrong = this.#ownProblem(wanted) !== null && order.some(({ isUnknown }) => isUnknown);
    if (isStandInWrong || isWorthAsking(order, wanted)) {
      await this.#describe(order, signal);
      order = this.#choose(wanted, this.#statesOf);
    }
    const named = only ?? preferred;
    const isAsked = order.some(({ peerId }) => peerId === named?.peerId);
    const unfit = named && !isAsked ? unfitness(named, wanted, this.#statesOf) : null;
    if (order.length === 0) throw this.#nobody(wanted, named, unfit);
    return { wanted, order, insteadOf: preferred && unfit ? insteadOfUnfit(preferred, unfit, wanted) : null };
  }

  #choose(wanted: Wanted, statesOf: KnownStates): Choice[] {
    return choose(this.#options.mesh.devices(), wanted, statesOf);
  }

  readonly #statesOf = (peerId: string, fresh = false): readonly CapabilityState[] | null => {
    const { mesh, local, states, descriptions } = this.#options;
    if (peerId === mesh.peerId) return local?.states() ?? [];
    const isKnown = fresh ? descriptions.isFresh(peerId) : descriptions.of(peerId) !== null;
    return isKnown ? states.of(peerId) : null;
  };

  /** Best guesses first. Those that are known already need less patience. */
  async #describe(order: readonly Choice[], signal: AbortSignal): Promise<void> {
    const { descriptions } = this.#options;
    const [first] = order;
    const wasTold = ({ self, peerId }: Choice): boolean => self || descriptions.of(peerId) !== null;
    const [most, patienceMs] = first?.isStandIn
      ? [maxDescribedForMore, standInPatienceMs]
      : [maxDescribed, order.some(wasTold) ? describePatienceMs : firstPatienceMs];
    const peerIds = order
      .filter(({ self, peerId }) => !self && !descriptions.isFresh(peerId) && !this.#unreached.has(peerId))
      .slice(0, most)
      .map(({ peerId }) => peerId);
    await untilAborted(descriptions.refresh(peerIds, patienceMs), signal);
  }

  #ask(
    { peerId, self }: Choice,
    request: Checked,
    startedMs: number,
    signal: AbortSignal,
    isLast: boolean,
  ): AsyncGenerator<CapabilityAnswerMessage, void, undefined> {
    const { mesh, clock, local } = this.#options;
    const { protocol, version, payload, parts, features, firstAnswerMs } = request;
    const session = request.session ?? null;
    // What is left of its time.
    const timeoutMs = Math.max(1, Math.ceil(request.timeoutMs - (clock.monotonic() - startedMs)));
    const ask = (until: AbortSignal) => {
      if (!self || !local) {
        const message = {
          payload,
          parts: [...parts],
          timeout_ms: timeoutMs,
          session,
          features: [...features],
        };
        // Whoever can ask somebody else waits less for a connection; it is made all the same, for the next one.
        const openMs = isLast ? limits.connectTimeoutMs : limits.openTimeoutMs;
        return askStream(mesh, clock, peerId, { protocol, version }, message, until, openMs);
      }
      const { name } = mesh.resolve(mesh.peerId);
      const call = { payload, parts, session, features, timeoutMs, from: { id: peerId, name } };
      return local.answer({ protocol, version, features }, call, until);
    };
    return firstAnswerMs === undefined ? ask(signal) : withFirstLimit(ask, clock, firstAnswerMs, signal);
  }

  #reachableFirst(order: readonly Choice[]): readonly Choice[] {
    const { mesh } = this.#options;
    const isAway = ({ peerId, self }: Choice): boolean => {
      if (self || !this.#unreached.has(peerId)) return false;
      if (mesh.resolve(peerId).path === null) return true;
      this.#unreached.delete(peerId);
      return false;
    };
    const away = order.filter(isAway);
    return away.length === 0 ? order : [...order.filter((choice) => !away.includes(choice)), ...away];
  }

  #breaker(peerId: string): Breaker {
    let breaker = this.#breakers.get(peerId);
    if (!breaker) this.#breakers.set(peerId, (breaker = new Breaker(this.#options.clock)));
    return breaker;
  }

  #openError({ peerId, name }: Choice): MeshError {
    return new MeshError('overloaded', `${name} fails too often and is left alone for a while`, {
      retryAfterMs: this.#breaker(peerId).waitMs,
    });
  }

  #nobody(wanted: Wanted, named: Device | null, unfit: ErrorCode | null): MeshError {
    const { mesh, local } = this.#options;
    const { protocol, features, only } = wanted;
    const problem = only === null || only === mesh.peerId ? local?.problemOf(wanted) : null;
    if (problem) return problem;
    if (only !== null && named && unfit) return unfitError(named, unfit, wanted);
    const devices = mesh.devices().filter(({ foreign }) => !foreign);
    const offline = devices.filter(
      (device) => unfitness(device, wanted, this.#statesOf) === 'device_offline',
    );
    const away = offline.filter(
      (device) => unfitness({ ...device, online: true }, wanted, this.#statesOf) === null,
    );
    if (away.length > 0)
      return new MeshError(
        'device_offline',
        `${labelOf(wanted)} is offered only by devices that are offline: ${names(away)}`,
      );
    const needed = features.length === 0 ? '' : ` with ${features.join(', ')}`;
    const other = new Set(
      devices.flatMap(({ capabilities }) =>
        capabilities.flatMap((own) => (own.protocol === protocol ? [own.version] : [])),
      ),
    );
    const there = other.size === 0 ? '' : `; there is ${[...other].slice(0, 5).join(', ')}`;
    return new MeshError('capability_not_found', `No device offers ${labelOf(wanted)}${needed}${there}`);
  }
}

/** Where it is clear who is asked, nobody else needs to be heard. */
function isWorthAsking([first, second]: readonly Choice[], { preferred, sticky }: Wanted): boolean {
  if (!first || !second || first.peerId === preferred || first.peerId === sticky) return false;
  return !(first.self && first.isFree && !first.isStandIn);
}

/** @throws MeshError bad_message | message_too_large for what cannot be asked */
function checked(asked: CapabilityRequest): Checked {
  const { protocol, version, payload, parts, features = [], session = null } = asked;
  const timeoutMs = asked.timeoutMs ?? limits.capabilityTimeoutMs;
  check(capabilityRequestOpenSchema, { protocol, version });
  if (validRange(version) === null) throw badRange();
  check(capabilityRequestSchema, {
    payload,
    parts: [...parts],
    timeout_ms: timeoutMs,
    session,
    features: [...features],
  });
  return { ...asked, features, timeoutMs };
}

/** Ends with `timeout` when the first message is not there in time. */
async function* withFirstLimit(
  ask: (signal: AbortSignal) => AsyncGenerator<CapabilityAnswerMessage, void, undefined>,
  clock: Clock,
  limitMs: number,
  signal: AbortSignal,
): AsyncGenerator<CapabilityAnswerMessage, void, undefined> {
  const limit = deadline(clock, limitMs);
  let isLate = false;
  limit.signal.addEventListener('abort', () => (isLate = true));
  try {
    for await (const message of ask(AbortSignal.any([signal, limit.signal]))) {
      limit.cancel();
      yield message;
    }
  } catch (thrown) {
    if (!isLate || signal.aborted) throw thrown;
    throw new MeshError('timeout', 'The device did not begin to answer in time', { cause: thrown });
  } finally {
    limit.cancel();
  }
}

async function untilAborted(promise: Promise<void>, signal: AbortSignal): Promise<void> {
  const aborted = Promise.withResolvers<never>();
  const abort = (): void => aborted.reject(signal.reason);
  signal.addEventListener('abort', abort, { once: true });
  try {
    signal.throwIfAborted();
    await Promise.race([promise, aborted.promise]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}

/** Of several failures: that which says most. All busy is told as such, with the shortest wait. */
function worse(before: MeshError | null, error: MeshError): MeshError {
  if (!before) return error;
  if (before.code === 'overloaded' && error.code === 'overloaded')
    return (error.retryAfterMs ?? Infinity) < (before.retryAfterMs ?? Infinity) ? error : before;
  return weight(error) < weight(before) ? before : error;
}

/** That a device is gone says least, that one is busy more, that one failed most. */
function weight(error: MeshError): number {
  if (error.code === 'overloaded') return 1;
  return isBusy(error) ? 2 : 0;
}

function named(error: MeshError, name: string): MeshError {
  const { code, message, hint, retryAfterMs } = error;
  if (message.startsWith(name)) return error;
  const options = { hint, cause: error, ...(retryAfterMs === null ? {} : { retryAfterMs }) };
  return new MeshError(code, `${name}: ${message}`, options);
}

/** What was read is no whole answer, whoever is to blame. */
function brokenOff(error: MeshError, name: string): MeshError {
  const { code, hint } = error;
  return new MeshError(code, `${name} broke off its answer: ${error.message}`, { hint, cause: error });
}

/** The preferred device would be the first, and is not. */
function passedOver(
  { preferred }: Wanted,
  [best]: readonly Choice[],
  [first]: readonly Choice[],
): InsteadOf | null {
  if (!best || best === first || best.peerId !== preferred) return null;
  return insteadOfBy(
    best.name,
    new MeshError('connect_timeout', `${best.name} could not be reached a moment ago`),
  );
}

function insteadOfBy(device: string, { code, message: reason }: MeshError): InsteadOf {
  return { device, code, reason };
}

function insteadOfUnfit(device: Candidate, code: ErrorCode, wanted: Wanted): InsteadOf {
  return insteadOfBy(device.name, unfitError(device, code, wanted));
}

function unfitError({ name, problem }: Candidate, code: ErrorCode, wanted: Wanted): MeshError {
  if (code === 'name_changed') return new MeshError(code, problem ?? undefined);
  if (code === 'device_offline') return new MeshError(code, `${name} is offline`);
  const { features } = wanted;
  const needed = features.length === 0 ? '' : ` with ${features.join(', ')}`;
  return new MeshError(code, `${name} does not offer ${labelOf(wanted)}${needed}`);
}

/** As a user writes it. */
function labelOf({ protocol, version }: Pick<Wanted, 'protocol' | 'version'>): string {
  return version === '*' ? protocol : `${protocol}@${version}`;
}

function names(devices: readonly Candidate[]): string {
  return devices
    .slice(0, 5)
    .map(({ name }) => name)
    .join(', ');
}
