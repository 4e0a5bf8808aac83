/**
 * `cocoon secret rotate`: a new secret in the place of one that leaked, in two steps. First the new secret and its
 * recovery code are made and the code is shown; only then anything changes. Whatever breaks off in between, the
 * device holds either the old secret, with nothing told, or the new one with a plan of what is left to do.
 */

import type { Mesh } from '@cocoon-mesh/mesh';
import type {
  Clock,
  OwnerKeys,
  ProvenMembership,
  ProvenShare,
  Revocation,
  Rights,
} from '@cocoon-mesh/protocol';
import {
  MeshError,
  createOwnerSecret,
  dateText,
  hashObject,
  limits,
  randomBytes,
  renewRevocations,
  rotateOwner,
  secretToText,
  toBase64Url,
  toMeshError,
  verifyOwnerRecords,
  verifyRevocations,
} from '@cocoon-mesh/protocol';
import type { Home } from './home.ts';
import type { Log } from './logs.ts';
import type { OwnersFile } from './mesh-store.ts';
import type { OwnerDesk } from './owner-desk.ts';
import type { OwnerKeyring } from './owner-keyring.ts';
import { replaceSecret } from './ownership.ts';
import { readPlan, removePlan, writePlan } from './rotation-plan.ts';

export interface RotationOptions {
  readonly mesh: Mesh;
  readonly desk: OwnerDesk;
  readonly keyring: OwnerKeyring;
  readonly owners: OwnersFile;
  readonly home: Home;
  readonly clock: Clock;
  readonly log: Log;
}

/** What the user is to read before it happens. */
export interface PreparedRotation {
  /** Names this preparation; of no use elsewhere. */
  readonly id: string;
  readonly owner: string;
  readonly epoch: number;
  readonly recovery_code: string;
  /** They stay, or come back. Whoever had the secret may have added some. */
  readonly devices: readonly { readonly name: string | null; readonly peer_id: string }[];
  readonly owners: readonly string[];
  /** What the list of revocations says, oldest first. Whoever had the secret may have revoked, too. */
  readonly revoked: readonly RevokedBefore[];
}

interface RevokedBefore {
  readonly kind: string;
  /** PeerId, owner id or jti. */
  readonly subject: string;
  /** ISO 8601, as whoever signed it said. */
  readonly at: string;
  /** Or it is undone, or ends with the old secret. */
  readonly stays: boolean;
}

/** Revocations that the rotation undoes: those of whoever had the secret as well. */
export interface Undone {
  /** PeerIds. */
  readonly devices: readonly string[];
  /** Seconds since 1970: what was revoked then or later. */
  readonly since: number | null;
}

export interface RotationResult {
  /** Memberships and shares that were signed and handed out. */
  readonly signed: number;
  /** Those that will be, when signaling or their devices are back. */
  readonly waiting: number;
}

interface Pending {
  readonly id: string;
  readonly keys: OwnerKeys;
  readonly secretText: string;
  /** As it was shown. */
  readonly members: readonly ProvenMembership[];
  readonly shares: readonly ProvenShare[];
  readonly since: number | null;
  readonly keepsTokens: boolean;
  readonly madeMs: number;
}

/** Somebody writes down a code meanwhile. */
const preparedForMs = 15 * 60_000;

export class Rotation {
  readonly #options: RotationOptions;
  #pending: Pending | null = null;
  /** Something may be left to do. */
  #isOpen = true;

  constructor(options: RotationOptions) {
    this.#options = options;
  }

  /**
   * Makes the new secret, here only.
   * @param keep names (jti) of tokens that can still be redeemed
   * @param without PeerIds of devices that shall not stay
   * @throws MeshError key_corrupt when the code is not the one of this owner | usage | device_not_found when nothing is
   * known of one that shall come back | owner_key_offline
   */
  prepare(
    recoveryCode: string,
    keep: readonly string[],
    without: readonly string[],
    undone: Undone = { devices: [], since: null },
  ): Promise<PreparedRotation> {
    return this.#options.desk.inTurn(async (keys) => {
      const { mesh, clock } = this.#options;
      if (without.includes(mesh.peerId))
        throw new MeshError('usage', 'The device that holds the new secret stays');
      const list = await this.#list(keys);
      const members = this.#members(new Set(without), undone, list);
      const { secret, recoveryCode: nextCode } = await createOwnerSecret();
      const next = await rotateOwner(keys.records, recoveryCode, secret, this.#grantsOf(keep));
      const id = toBase64Url(randomBytes(16));
      this.#pending = {
        id,
        keys: next,
        secretText: await secretToText({ ...secret, records: next.records }),
        members,
        shares: mesh
          .shares()
          .filter(({ owner, cocoon }: ProvenShare) => owner === keys.id && !without.includes(cocoon)),
        since: undone.since,
        keepsTokens: keep.length > 0,
        madeMs: clock.monotonic(),
      };
      const { shares } = this.#pending;
      const staying = new Set(this.#renewable(this.#pending, list));
      const nameOf = (peerId: string): string | null =>
        mesh.devices().find((device) => device.peerId === peerId)?.name ?? null;
      return {
        id,
        owner: next.id,
        epoch: next.epoch,
        recovery_code: nextCode,
        devices: members.map(({ peerId }) => ({ name: nameOf(peerId), peer_id: peerId })),
        owners: [...new Set(shares.map(({ coOwner }) => coOwner))],
        revoked: list.map((entry) => ({
          kind: entry.kind,
          subject: entry.subject,
          at: dateText(entry.iat),
          stays: staying.has(entry),
        })),
      };
    });
  }

  /**
   * Puts the prepared secret in the place of the old one, and tells everybody.
   * @throws MeshError usage when nothing was prepared, or too long ago | storage_failed
   */
  commit(id: string): Promise<RotationResult> {
    return this.#options.desk.inTurn(async (keys) => {
      const { home, keyring, clock } = this.#options;
      const pending = this.#pending;
      this.#pending = null;
      const isReady = pending?.id === id && clock.monotonic() - pending.madeMs < preparedForMs;
      if (!pending || !isReady || pending.keys.epoch !== keys.epoch + 1)
        throw new MeshError('usage', 'This rotation was not prepared, or too long ago', {
          hint: 'Nothing has changed. Run `cocoon secret rotate` again.',
        });
      const ended = this.#renewable(pending, await this.#list(keys));
      await writePlan(home.rotation, {
        members: pending.members,
        shares: pending.shares,
        record: await newestRecordOf(pending.keys),
        revocations: await renewRevocations(pending.keys, ended),
      });
      await replaceSecret(home, pending.secretText);
      // From here on it has happened; the rest can wait and be repeated.
      keyring.replace(pending.keys);
      this.#isOpen = true;
      return this.#carryOut(pending.keys);
    });
  }

  /** Does what an earlier rotation left to do. Never rejects. */
  async resume(): Promise<void> {
    const { desk, log } = this.#options;
    if (!this.#isOpen || !desk.holdsKey) return;
    try {
      const { signed, waiting } = await desk.inTurn((keys) => this.#carryOut(keys));
      if (signed + waiting > 0) log('info', 'The rotation of the secret goes on', { signed, waiting });
    } catch (thrown) {
      log('warn', 'The rotation of the secret could not go on', { code: toMeshError(thrown).code });
    }
  }

  async #carryOut(keys: OwnerKeys): Promise<RotationResult> {
    const { home, mesh, log } = this.#options;
    const plan = await readPlan(home.rotation);
    // One of another record is of a rotation that ended before its secret was written: it never happened.
    if (plan?.record !== (await newestRecordOf(keys))) {
      this.#isOpen = false;
      return { signed: 0, waiting: 0 };
    }
    const members = await this.#each(
      plan.members,
      ({ peerId }) => peerId,
      (member) => this.#options.desk.signMember(keys, member),
    );
    let isTold = true;
    let unstored: MeshError | null = null;
    try {
      await mesh.tellOwner(keys.records, plan.revocations);
    } catch (thrown) {
      isTold = false;
      const error = toMeshError(thrown);
      if (error.code === 'storage_failed') unstored = error;
      log('info', 'The new owner record waits to be told', { code: error.code });
    }
    const shares = await this.#each(
      plan.shares,
      ({ cocoon }) => cocoon,
      (share) => this.#options.desk.signShare(keys, share),
    );
    const waiting = members.length + shares.length;
    this.#isOpen = waiting > 0 || !isTold;
    if (this.#isOpen) await writePlan(home.rotation, { ...plan, members, shares });
    else await removePlan(home.rotation);
    // The secret is the new one; what is left is done again, and nobody is told that it is done.
    if (unstored) throw unstored;
    return { signed: plan.members.length + plan.shares.length - waiting, waiting };
  }

  /** @returns those that are still to be done */
  async #each<T extends { readonly until: number | null }>(
    all: readonly T[],
    nameOf: (one: T) => string,
    sign: (one: T) => Promise<unknown>,
  ): Promise<T[]> {
    const { clock, log } = this.#options;
    const left: T[] = [];
    for (const one of all) {
      if (one.until !== null && one.until <= clock.now() / 1000) continue;
      try {
        await sign(one);
      } catch (thrown) {
        const { code } = toMeshError(thrown);
        log('info', 'A membership or share waits to be handed out', { device: nameOf(one), code });
        // What was revoked in the meantime is not signed again.
        if (code !== 'revoked') left.push(one);
      }
    }
    return left;
  }

  async #list(keys: OwnerKeys): Promise<Revocation[]> {
    const list = this.#options.mesh.revocations();
    return verifyRevocations(list, await verifyOwnerRecords(keys.records));
  }

  /** @throws MeshError device_not_found */
  #members(
    without: ReadonlySet<string>,
    { devices, since }: Undone,
    list: readonly Revocation[],
  ): ProvenMembership[] {
    const { mesh } = this.#options;
    const members = mesh.members().filter(({ peerId }) => !without.has(peerId));
    const back = new Set(devices);
    const undone = since === null ? [] : list.slice(firstSince(list, since));
    for (const { kind, subject } of undone) if (kind === 'device') back.add(subject);
    for (const peerId of back) {
      if (without.has(peerId) || members.some((member) => member.peerId === peerId)) continue;
      const member = mesh.signedMembership(peerId);
      if (member) members.push(member);
      else if (devices.includes(peerId))
        throw new MeshError('device_not_found', `Nothing is known here of the membership of ${peerId}`, {
          hint: 'Add the device again with a new home and a new token.',
        });
    }
    // This device last: what it shows ends whatever is of the old secret, and nobody who stays is to be sent away.
    const isOwn = ({ peerId }: ProvenMembership): number => (peerId === mesh.peerId ? 1 : 0);
    return members
      .toSorted((one, other) => isOwn(one) - isOwn(other))
      .map((member) => (isOwn(member) === 1 ? member : { ...member, rights: withoutAdmin(member.rights) }));
  }

  /**
   * What is to be said again: each thing once, with its latest date, and never about a device that stays. What was
   * ended of owners and tokens ends with its epoch anyway, unless tokens of it are kept.
   */
  #renewable({ members, since, keepsTokens }: Pending, list: readonly Revocation[]): Revocation[] {
    const staying = new Set([this.#options.mesh.peerId, ...members.map(({ peerId }) => peerId)]);
    const latest = new Map<string, Revocation>();
    for (const entry of since === null ? list : list.slice(0, firstSince(list, since))) {
      const { kind, subject, iat } = entry;
      const isMoot = kind === 'device' ? staying.has(subject) : ofEpoch.has(kind) && !keepsTokens;
      const known = latest.get(`${kind} ${subject}`);
      if (!isMoot && (!known || known.iat <= iat)) latest.set(`${kind} ${subject}`, entry);
    }
    return [...latest.values()].toSorted((one, other) => one.n - other.n);
  }

  /** @throws MeshError usage */
  #grantsOf(keep: readonly string[]): string[] {
    const { owners, clock } = this.#options;
    if (keep.length > limits.maxKeptTokens)
      throw new MeshError('usage', `A rotation keeps at most ${limits.maxKeptTokens} tokens`);
    return keep.map((jti) => {
      const made = owners.owners.made.find(
        (token) => token.jti === jti && token.expires > clock.now() / 1000,
      );
      if (!made)
        throw new MeshError('usage', `This device made no token ${JSON.stringify(jti)} that still lives`, {
          hint: '`cocoon generate-token --json` tells the jti of a token.',
        });
      return made.grantHash;
    });
  }
}

/** They end what was given with the same secret. */
const ofEpoch: ReadonlySet<string> = new Set(['owner', 'token']);

/** Whoever signs can date as he likes, but comes after what was there. */
function firstSince(list: readonly Revocation[], since: number): number {
  const first = list.findIndex(({ iat }) => iat >= since);
  return first === -1 ? list.length : first;
}

async function newestRecordOf({ records }: OwnerKeys): Promise<string> {
  return toBase64Url(await hashObject(records.at(-1) ?? ''));
}

/**
 * Whoever had the old secret could give this right to any device, so that it is given anew by whoever has the new
 * one.
 */
function withoutAdmin(rights: Rights): Rights {
  return rights.filter(({ protocol }) => protocol !== 'owner');
}
