/**
 * What this device serves: its providers, each with its own way in, which of them a request gets, how busy they are
 * and which of them are told to others.
 */

import type { CapabilityAnswerMessage, CapabilityState, Clock } from '@cocoon-mesh/protocol';
import { MeshError, capabilityStateSchema, check, limits } from '@cocoon-mesh/protocol';
import { compare, parse, satisfies } from 'semver';
import { hasFeatures, loadOf } from './choice.ts';
import type { Provider } from './provider.ts';
import type { LocalCall } from './provider-answer.ts';
import { answerOf, failureMessage } from './provider-answer.ts';
import { ProviderLane } from './provider-lane.ts';

export interface LocalCapabilitiesOptions {
  readonly clock: Clock;
  /** Protocols that are not served, whoever brings them. */
  readonly disabled?: readonly string[];
  readonly log: (level: 'debug' | 'info' | 'warn', message: string, fields?: Record<string, unknown>) => void;
}

export interface WantedCapability {
  readonly protocol: string;
  /** Semver range. */
  readonly version: string;
  readonly features: readonly string[];
}

export interface OwnCapability extends CapabilityState {
  /** Null: it serves. */
  readonly problem: string | null;
}

type Change = 'offer' | 'load';

export class LocalCapabilities {
  readonly #options: LocalCapabilitiesOptions;
  /** In the order in which they came. */
  readonly #lanes = new Set<ProviderLane>();
  readonly #listeners = new Set<(change: Change) => void>();

  constructor(options: LocalCapabilitiesOptions) {
    this.#options = options;
  }

  /**
   * It belongs to whoever adds it, who also closes it.
   * @returns takes it away again; requests that run go on. One that was switched off is not there in the first place
   * @throws MeshError bad_manifest for a protocol, version or limit that is none, or when there are too many
   */
  add(provider: Provider): () => void {
    assertSound(provider);
    if (this.#isOff(provider.protocol)) return () => undefined;
    if (this.#lanes.size >= limits.maxCapabilities)
      throw new MeshError('bad_manifest', `A device has at most ${limits.maxCapabilities} providers`);
    const lane = new ProviderLane(provider, this.#options.clock, () => this.#tell('load'));
    this.#lanes.add(lane);
    const forget = provider.onChange(() => this.#tell('offer'));
    this.#tell('offer');
    return () => {
      if (!this.#lanes.delete(lane)) return;
      forget();
      this.#tell('offer');
    };
  }

  /** @param listener told `offer` when a provider came, went or changed its state, `load` when one became busier or less so */
  onChange(listener: (change: Change) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** What signaling may know: each once, those that serve. */
  advertised(): { readonly protocol: string; readonly version: string }[] {
    const serving = this.all().filter(({ problem }) => problem === null);
    const found = new Map(
      serving.map(({ protocol, version }) => [`${protocol}@${version}`, { protocol, version }]),
    );
    return [...found.values()];
  }

  /** Those that serve, with all that a peer with the right may know. */
  states(): CapabilityState[] {
    return this.all().flatMap(({ problem, ...state }) => (problem === null ? [state] : []));
  }

  /** Those that do not serve, and why. */
  problems(): { readonly protocol: string; readonly version: string; readonly problem: string }[] {
    return this.all().flatMap(({ protocol, version, problem }) =>
      problem === null ? [] : [{ protocol, version, problem }],
    );
  }

  all(): OwnCapability[] {
    return [...this.#lanes].map(ownState);
  }

  /** The highest of all, 0 to 1; null without any provider. */
  get load(): number | null {
    const loads = this.states().map(loadOf);
    return loads.length === 0 ? null : Math.min(1, Math.max(...loads));
  }

  /** Those that a request may get, best first. @throws for a range that is none */
  matching({ protocol, version, features }: WantedCapability): CapabilityState[] {
    return this.#lanesFor(protocol, version, features).map((lane) => stateOf(lane));
  }

  /** Why a provider that would fit does not serve; null: there is none, or it serves. */
  problemOf({ protocol, version }: Pick<WantedCapability, 'protocol' | 'version'>): MeshError | null {
    for (const { provider } of this.#lanes) {
      const { problem, problemCode } = provider.state;
      if (problem !== null && fits(provider, protocol, version))
        return new MeshError(problemCode ?? 'capability_not_found', problem);
    }
    return null;
  }

  /** Never throws: what goes wrong is the last message. Leaving it, or the signal, cancels the provider. */
  async *answer(
    { protocol, version, features }: WantedCapability,
    call: LocalCall,
    signal: AbortSignal,
  ): AsyncGenerator<CapabilityAnswerMessage, void, undefined> {
    const [lane] = this.#lanesFor(protocol, version, features);
    if (!lane) return yield failureMessage(this.#missing({ protocol, version, features }));
    yield* answerOf(lane, call, this.#options.clock, signal, (thrown) =>
      this.#options.log('warn', 'A provider failed', { protocol, error: String(thrown) }),
    );
  }

  #lanesFor(protocol: string, range: string, features: readonly string[]): ProviderLane[] {
    return [...this.#lanes]
      .filter(
        ({ provider }) =>
          provider.state.problem === null &&
          fits(provider, protocol, range) &&
          hasFeatures(provider.state.features, features),
      )
      .toSorted(
        (a, b) =>
          standInRank(a) - standInRank(b) ||
          Number(a.isFull) - Number(b.isFull) ||
          compare(b.provider.version, a.provider.version) ||
          Number(loadOf(a.load) >= 1) - Number(loadOf(b.load) >= 1) ||
          Number(b.provider.state.warm) - Number(a.provider.state.warm) ||
          loadOf(a.load) - loadOf(b.load),
      );
  }

  #missing({ protocol, version, features }: WantedCapability): MeshError {
    if (this.#isOff(protocol))
      return new MeshError('capability_off', `${protocol} is switched off on this device`);
    const problem = this.problemOf({ protocol, version });
    if (problem) return problem;
    const wanted = features.length === 0 ? '' : ` with ${features.join(', ')}`;
    return new MeshError(
      'capability_not_found',
      `This device does not offer ${protocol}@${version}${wanted}`,
    );
  }

  #isOff(protocol: string): boolean {
    return this.#options.disabled?.includes(protocol) === true;
  }

  #tell(change: Change): void {
    for (const listener of this.#listeners) listener(change);
  }
}

function standInRank({ provider }: ProviderLane): number {
  return provider.state.isStandIn === true ? 1 : 0;
}

function fits({ protocol, version }: Provider, wanted: string, range: string): boolean {
  return protocol === wanted && satisfies(version, range);
}

function stateOf(lane: ProviderLane): CapabilityState {
  const { protocol, version, state } = lane.provider;
  return {
    protocol,
    version,
    ...lane.load,
    warm: state.warm,
    stand_in: state.isStandIn ?? false,
    features: state.features.slice(0, limits.maxCapabilityFeatures),
  };
}

function ownState(lane: ProviderLane): OwnCapability {
  return { ...stateOf(lane), problem: lane.provider.state.problem };
}

/** What everybody is told about it must be what everybody can read. */
function assertSound(provider: Provider): void {
  const { protocol, version, limit, maxQueued } = provider;
  const idle = { in_flight: 0, queued: 0, limit, warm: false, stand_in: false, features: [] };
  try {
    check(capabilityStateSchema, { protocol, version, ...idle });
  } catch (cause) {
    throw new MeshError('bad_manifest', `${protocol}@${version} is no capability`, { cause });
  }
  if (parse(version) === null || !(maxQueued >= 0))
    throw new MeshError('bad_manifest', `${protocol}@${version} is no capability`);
}
