/**
 * Which devices a request goes to, in which order: a pure function of what is known of them. A device of which
 * nothing is known but that it offers the capability comes behind those that are known to have what is needed.
 */

import type { CapabilityState, ErrorCode, ProviderLoad } from '@cocoon-mesh/protocol';
import { Range } from 'semver';

export interface Candidate {
  readonly peerId: string;
  readonly name: string;
  readonly self: boolean;
  /** Of another owner: only when it is named. */
  readonly foreign: boolean;
  readonly online: boolean;
  /** Why it cannot be used although it is listed. */
  readonly problem: string | null;
  readonly capabilities: readonly { readonly protocol: string; readonly version: string }[];
  /** As signaling tells it, 0 to 1. */
  readonly load: number;
  readonly rttMs: number | null;
}

export interface Wanted {
  readonly protocol: string;
  readonly version: string;
  readonly features: readonly string[];
  /** PeerIds. */
  readonly preferred: string | null;
  readonly only: string | null;
  /** Where the session of the request was served last. */
  readonly sticky: string | null;
}

/** What was told of the providers of one device, or is known of one's own; null: nothing. */
export type KnownStates = (peerId: string) => readonly CapabilityState[] | null;

export interface Choice {
  readonly peerId: string;
  readonly name: string;
  readonly self: boolean;
  /** It can take the request at once, as far as known. */
  readonly isFree: boolean;
  /** Nothing was told of its providers yet. */
  readonly isUnknown: boolean;
  /** What it has is better than nothing, and no more. */
  readonly isStandIn: boolean;
}

/** Why a device that was named is not among the choices; null: it is. */
export type Unfit = Extract<ErrorCode, 'device_offline' | 'name_changed' | 'capability_not_found'>;

/** 1 and more: whoever comes waits. */
export function loadOf({ in_flight: inFlight, queued, limit }: ProviderLoad): number {
  return (inFlight + queued) / limit;
}

export function hasFeatures(has: readonly string[], needed: readonly string[]): boolean {
  return needed.every((feature) => has.includes(feature));
}

/**
 * Best first. Behind a device that is known to have the real thing come all stand-ins that nobody asked for.
 * @throws TypeError for a range that is none
 */
export function choose(candidates: Iterable<Candidate>, wanted: Wanted, statesOf: KnownStates): Choice[] {
  const fits = fitOf(wanted);
  const ranked: Ranked[] = [];
  for (const candidate of candidates) {
    const { peerId } = candidate;
    if (wanted.only !== null && peerId !== wanted.only) continue;
    if (candidate.foreign && peerId !== wanted.preferred && peerId !== wanted.only) continue;
    if (fits(candidate, statesOf) !== null) continue;
    ranked.push(rank(candidate, wanted, statesOf(peerId), fits));
  }
  const choices = ranked.sort(byRank).map(({ choice }) => choice);
  if (choices.every(({ isUnknown, isStandIn }) => isUnknown || isStandIn)) return choices;
  const isLast = ({ peerId, isStandIn }: Choice): boolean =>
    isStandIn && peerId !== wanted.preferred && peerId !== wanted.sticky;
  return choices.toSorted((a, b) => Number(isLast(a)) - Number(isLast(b)));
}

/** What keeps a device from serving; null: nothing that is known. */
export function unfitness(candidate: Candidate, wanted: Wanted, statesOf: KnownStates): Unfit | null {
  return fitOf(wanted)(candidate, statesOf);
}

interface Fit {
  (candidate: Candidate, statesOf: KnownStates): Unfit | null;
  readonly accepts: (state: CapabilityState) => boolean;
}

function fitOf({ protocol, version, features }: Wanted): Fit {
  const inRange = versionTest(version);
  const offers = (offered: { readonly protocol: string; readonly version: string }): boolean =>
    offered.protocol === protocol && inRange(offered.version);
  const accepts = (state: CapabilityState): boolean => offers(state) && hasFeatures(state.features, features);
  const fit = ({ peerId, online, problem, capabilities }: Candidate, statesOf: KnownStates): Unfit | null => {
    if (problem !== null) return 'name_changed';
    if (!online) return 'device_offline';
    if (!capabilities.some(offers)) return 'capability_not_found';
    const states = statesOf(peerId);
    // What it told to us is younger or older than what it told to signaling: both have to say it.
    return states === null || states.some(accepts) ? null : 'capability_not_found';
  };
  return Object.assign(fit, { accepts });
}

interface Ranked {
  readonly choice: Choice;
  /** What weighs most, as a number; less is better, as in all of these. */
  readonly group: number;
  readonly load: number;
  readonly distance: number;
}

function rank(
  { peerId, name, self, load: told, rttMs }: Candidate,
  wanted: Wanted,
  states: readonly CapabilityState[] | null,
  { accepts }: Fit,
): Ranked {
  const best = states === null ? null : bestOf(states, accepts);
  const load = best === null ? told : loadOf(best);
  const isFree = load < 1;
  // One after the other: the first that differs decides.
  let group = 0;
  if (peerId !== wanted.preferred) group += 32;
  if (peerId !== wanted.sticky) group += 16;
  if (!(self && isFree)) group += 8;
  if (!isFree) group += 4;
  if (best === null) group += 2;
  if (best?.warm !== true) group += 1;
  const choice = { peerId, name, self, isFree, isUnknown: best === null, isStandIn: best?.stand_in === true };
  return { choice, group, load, distance: self ? 0 : (rttMs ?? Infinity) };
}

/** That which its device would take. */
function bestOf(
  states: readonly CapabilityState[],
  accepts: (state: CapabilityState) => boolean,
): CapabilityState | null {
  let best: CapabilityState | null = null;
  for (const state of states) if (accepts(state) && (best === null || isBetter(state, best))) best = state;
  return best;
}

function isBetter(a: CapabilityState, b: CapabilityState): boolean {
  return a.stand_in === b.stand_in ? loadOf(a) < loadOf(b) : b.stand_in;
}

function byRank(a: Ranked, b: Ranked): number {
  if (a.group !== b.group) return a.group - b.group;
  if (a.load !== b.load) return a.load - b.load;
  // Two that are infinite are alike.
  if (a.distance !== b.distance) return a.distance - b.distance;
  return a.choice.name < b.choice.name ? -1 : 1;
}

/** Devices have few versions between them, and reading one costs more than all else here. */
function versionTest(range: string): (version: string) => boolean {
  const parsed = new Range(range);
  const known = new Map<string, boolean>();
  return (version) => {
    let is = known.get(version);
    if (is === undefined) known.set(version, (is = parsed.test(version)));
    return is;
  };
}
