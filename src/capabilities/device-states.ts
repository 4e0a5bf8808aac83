/**
 * How busy the providers of other devices are, as far as known here: what they told of themselves, what came back with
 * answers, and what was sent to them since.
 */

import type { CapabilityState, ProviderLoad } from '@cocoon-mesh/protocol';
import { hasFeatures } from './choice.ts';

export interface SentRequest {
  readonly protocol: string;
  readonly features: readonly string[];
}

/** A request at a device, until it ends. */
export interface SentTicket {
  /** The provider told how busy it is now. @param version null: it did not say which one it is, and did not serve */
  heard(version: string | null, load: ProviderLoad): void;
  /** Idempotent. */
  ended(): void;
}

interface Sent extends SentRequest {
  /** What the device told since holds it already. */
  isTold: boolean;
}

interface Known {
  states: readonly CapabilityState[] | null;
  readonly sent: Set<Sent>;
}

export class DeviceStates {
  readonly #known = new Map<string, Known>();

  /** Everything that it has now. */
  learn(peerId: string, states: readonly CapabilityState[]): void {
    const known = this.#of(peerId);
    known.states = states;
    for (const sent of known.sent) sent.isTold = true;
  }

  /** It may be another process when it comes back. */
  forget(peerId: string): void {
    this.#known.delete(peerId);
  }

  /** Null: it was never told. */
  of(peerId: string): readonly CapabilityState[] | null {
    const known = this.#known.get(peerId);
    if (!known?.states) return null;
    const { sent } = known;
    return sent.size === 0 ? known.states : known.states.map((state) => withSent(state, sent));
  }

  began(peerId: string, request: SentRequest): SentTicket {
    const known = this.#of(peerId);
    const entry: Sent = { ...request, isTold: false };
    known.sent.add(entry);
    return {
      heard: (version, load) => {
        known.sent.delete(entry);
        known.states &&= known.states.map((state) =>
          isOf(state, request) && (version ?? state.version) === state.version
            ? { ...state, ...load, warm: state.warm || version !== null }
            : state,
        );
        for (const sent of known.sent) if (sent.protocol === request.protocol) sent.isTold = true;
      },
      ended: () => {
        if (!known.sent.delete(entry) || !entry.isTold) return;
        // What was told counts it, and nothing newer came.
        known.states &&= known.states.map((state) => (isOf(state, request) ? withOneLess(state) : state));
      },
    };
  }

  #of(peerId: string): Known {
    let known = this.#known.get(peerId);
    if (!known) this.#known.set(peerId, (known = { states: null, sent: new Set() }));
    return known;
  }
}

function isOf(state: CapabilityState, { protocol, features }: SentRequest): boolean {
  return state.protocol === protocol && hasFeatures(state.features, features);
}

function withSent(state: CapabilityState, sent: ReadonlySet<Sent>): CapabilityState {
  let more = 0;
  for (const request of sent) if (!request.isTold && isOf(state, request)) more++;
  return more === 0 ? state : { ...state, queued: state.queued + more };
}

function withOneLess(state: CapabilityState): CapabilityState {
  if (state.queued > 0) return { ...state, queued: state.queued - 1 };
  return { ...state, in_flight: Math.max(0, state.in_flight - 1) };
}
