/**
 * The one place where the owner's key signs while the device runs: what is asked here by the device's user
 * (`owner-commands.ts`), by peers of the owner (`owner-server.ts`) and by chains that wait. One thing after the
 * other, so that no two get the same number. Who may ask is judged before.
 */

import type { Mesh } from '@cocoon-mesh/mesh';
import { ownerKeyOffline } from '@cocoon-mesh/mesh/owner-client.ts';
import type {
  Clock,
  DeviceKind,
  MembershipProof,
  OwnerKeys,
  ProvenMembership,
  ProvenShare,
  Revocation,
  RevocationKind,
  ShareProof,
  TokenAnswer,
  TokenRequest,
} from '@cocoon-mesh/protocol';
import {
  MeshError,
  dateText,
  hashObject,
  limits,
  peekRevocation,
  readSetupToken,
  signMembership,
  signRevocation,
  signShare,
  toBase64Url,
  toMeshError,
  verifyOwnerRecords,
  verifyRevocations,
} from '@cocoon-mesh/protocol';
import type { DeviceAudit } from './audit-events.ts';
import { membershipFields, recordToken, shareFields } from './audit-events.ts';
import type { Log } from './logs.ts';
import type { OwnerKeyring } from './owner-keyring.ts';
import type { MadeToken } from './token-request.ts';
import { signToken } from './token-request.ts';

export interface OwnerDeskOptions {
  readonly mesh: Mesh;
  readonly keyring: OwnerKeyring;
  readonly clock: Clock;
  readonly audit: DeviceAudit;
  readonly log: Log;
  /** As others reach it; stands in tokens. */
  readonly signalingUrl: string;
  /** Notes a token, so that a rotation can let it live. */
  readonly noteToken: (made: MadeToken) => Promise<void>;
  /** Those that were noted. */
  readonly madeTokens: () => readonly MadeToken[];
}

/** PeerId of the device that asked; null: this device's own user, or nobody. */
export type Asker = string | null;

/** Places in the list of revocations that only this device's own user fills: nobody else can make it end. */
const reservedRevocations = 1_000;

/** A chain that was signed is not signed again for so long: its peer may take a while to show the new one. */
const signAgainMs = 60_000;

export class OwnerDesk {
  readonly #options: OwnerDeskOptions;
  /** When a chain was signed last, on the monotonic clock; by its device and token. */
  readonly #signed = new Map<string, number>();
  #last: Promise<unknown> = Promise.resolve();
  #confirming = false;

  constructor(options: OwnerDeskOptions) {
    this.#options = options;
  }

  /** Can anything be signed here? */
  get holdsKey(): boolean {
    return this.#options.keyring.keys !== null;
  }

  /**
   * Work with the keys that nobody else at this desk does at the same time.
   * @throws MeshError owner_key_offline when this device does not hold the secret (any more)
   */
  inTurn<T>(work: (keys: OwnerKeys) => Promise<T>): Promise<T> {
    const turn = this.#last.then(async () => {
      const { keys } = this.#options.keyring;
      if (!keys) throw ownerKeyOffline(this.#options.mesh);
      return work(keys);
    });
    this.#last = turn.catch(() => undefined);
    return turn;
  }

  /** Signs whatever waits for it. Never rejects: what could not be handed out waits for the next time. */
  async confirm(): Promise<void> {
    // One pass sees everything that is there when its turn comes.
    if (this.#confirming || !this.holdsKey) return;
    this.#confirming = true;
    try {
      await this.inTurn(async (keys) => {
        this.#confirming = false;
        const { memberships, shares } = this.#options.mesh.provisional();
        for (const chain of memberships)
          await this.#confirmOne(`${chain.peerId} ${chain.jti}`, () => this.signMember(keys, chain));
        for (const chain of shares)
          await this.#confirmOne(`${chain.cocoon} ${chain.jti}`, () => this.signShare(keys, chain));
      });
    } catch (thrown) {
      this.#confirming = false;
      this.#options.log('debug', 'Nothing was confirmed', { code: toMeshError(thrown).code });
    }
  }

  /** @throws MeshError usage | device_not_found | signaling_unreachable | clock_wrong | owner_key_offline */
  makeToken(request: TokenRequest, asker: Asker): Promise<TokenAnswer> {
    return this.inTurn(async (keys) => {
      const { mesh, clock, audit, signalingUrl, noteToken } = this.#options;
      if (request.cocoon !== undefined) assertOwnCocoon(mesh, request.cocoon);
      const { signaling } = mesh;
      if (signaling.state !== 'connected') throw new MeshError('signaling_unreachable');
      // Signaling judges the dates, so they are told in its time, if that can be true.
      const told = clock.now() + signaling.clockOffsetMs;
      assertSameTime(clock.now(), told);
      const now = Math.floor(told / 1000);
      // An owner who was removed a moment ago is invited again by what is made after that, not before.
      const newest = (await this.#newestRevocation(keys))?.iat ?? 0;
      const removed = Math.min(newest, this.#now() + limits.maxOwnerClockAheadMs / 1000);
      const { answer, made } = await signToken(keys, request, {
        signaling: signalingUrl,
        receiptKey: signaling.receiptKey,
        now: request.scope === 'co-own' ? Math.max(now, removed + 1) : now,
      });
      const { grant } = await readSetupToken(answer.token);
      await noteToken({ ...made, asker });
      recordToken(audit, grant, asker);
      return answer;
    });
  }

  /**
   * A fresh membership for a device of my owner, with what it has now and no longer than that.
   * @throws MeshError denied | membership_expired | owner_key_offline
   */
  renew(peerId: string): Promise<MembershipProof> {
    return this.inTurn(async (keys) => {
      const known = this.#options.mesh.members().find((member) => member.peerId === peerId);
      if (!known) throw new MeshError('denied');
      return this.signMember(keys, known);
    });
  }

  /**
   * Ends a device of my owner for good, and the tokens that were made for it and that nobody has redeemed; or gives
   * back a cocoon that another owner shares with mine. What a device asks for must be about somebody who is known.
   * @returns the signed entry that says so
   * @throws MeshError usage | device_not_found | overloaded | owner_key_offline | signaling_unreachable
   */
  revokeDevice(peerId: string, asker: Asker = null): Promise<string> {
    return this.inTurn(async (keys) => {
      const { mesh } = this.#options;
      if (peerId === mesh.peerId)
        throw new MeshError(
          'usage',
          'The device that signs the revocation cannot be the one that is revoked',
          {
            hint: 'Run the command on another device that holds the secret, or rotate the secret.',
          },
        );
      const given = mesh.shares().filter(({ cocoon, coOwner }) => cocoon === peerId && coOwner === keys.id);
      const isOwn = mesh.members().some((member) => member.peerId === peerId);
      const ended = asker === null ? null : this.#entryAbout('device', peerId);
      if (ended !== null) return this.#toldAgain(ended);
      if (asker !== null && !isOwn && given.length === 0) throw new MeshError('device_not_found');
      this.#assertRoom(asker);
      if (!isOwn && given.length > 0) return this.#revoke(keys, 'share', peerId, latestGrant(given));
      const entry = await this.#revoke(keys, 'device', peerId, 0);
      for (const jti of this.#unredeemedOf(peerId)) await this.#revoke(keys, 'token', jti, 0);
      return entry;
    });
  }

  /**
   * Voids a setup token and ends what came from it; once is enough. What a device asks for must be known here.
   * @returns as `revokeDevice`
   * @throws MeshError usage | not_found | overloaded | owner_key_offline
   */
  revokeToken(jti: string, asker: Asker = null): Promise<string> {
    return this.inTurn(async (keys) => {
      const { mesh, madeTokens } = this.#options;
      if (mesh.membership?.jti === jti)
        throw new MeshError('usage', 'The device that signs the revocation came with this token itself', {
          hint: 'Run the command on another device that holds the secret, or rotate the secret.',
        });
      const ended = this.#entryAbout('token', jti);
      if (ended !== null) return this.#toldAgain(ended);
      const known = [...madeTokens(), ...mesh.members(), ...mesh.shares()];
      if (asker !== null && !known.some((one) => one.jti === jti))
        throw new MeshError('not_found', 'The device that was asked has not made such a token', {
          hint: 'Run the command on the device that made it, or on any other that holds the secret.',
        });
      this.#assertRoom(asker);
      return this.#revoke(keys, 'token', jti, 0);
    });
  }

  /**
   * Ends everything that another owner was given until now.
   * @returns as `revokeDevice`
   * @throws MeshError usage | owner_not_found | overloaded | owner_key_offline | signaling_unreachable
   */
  removeOwner(owner: string, asker: Asker = null): Promise<string> {
    return this.inTurn(async (keys) => {
      const { mesh } = this.#options;
      if (owner === keys.id) throw new MeshError('usage', 'An owner does not remove itself');
      const given = mesh.shares().filter((share) => share.owner === keys.id && share.coOwner === owner);
      if (asker !== null && given.length === 0) {
        const ended = this.#entryAbout('owner', owner);
        if (ended === null) throw new MeshError('owner_not_found');
        return this.#toldAgain(ended);
      }
      this.#assertRoom(asker);
      return this.#revoke(keys, 'owner', owner, latestGrant(given));
    });
  }

  /** Within a turn. Signs and hands out. @throws MeshError */
  async signMember(keys: OwnerKeys, member: ProvenMembership): Promise<MembershipProof> {
    const { mesh, audit } = this.#options;
    const now = this.#now();
    const kind = member.kind ?? this.#kindOf(member.peerId);
    const end = endOf(member, kind, now);
    // The known serial of this moment: the chain at hand may be an older one.
    const known = mesh.members().find(({ peerId }) => peerId === member.peerId)?.serial ?? 0;
    const serial = Math.max(member.serial + 1, known + 1, now);
    const proof = await signMembership(keys, {
      peerId: member.peerId,
      serial,
      ...(kind === undefined ? {} : { kind }),
      rights: member.rights,
      now,
      granted: member.granted,
      ...(end === null ? {} : { expires: end }),
      ...(member.until === null ? {} : { until: member.until }),
      ...(member.jti === null ? {} : { jti: member.jti }),
    });
    await mesh.issueMembership(member.peerId, proof);
    const signed = { ...member, epoch: keys.epoch, serial, expires: end ?? member.until, provisional: false };
    audit.append('membership.signed', membershipFields(signed));
    return proof;
  }

  /** Within a turn. Signs and hands out. @throws MeshError */
  async signShare(keys: OwnerKeys, share: ProvenShare): Promise<ShareProof> {
    const { mesh, audit } = this.#options;
    const now = this.#now();
    const known = mesh
      .shares()
      .find(
        ({ cocoon, coOwner, owner }) =>
          cocoon === share.cocoon && coOwner === share.coOwner && owner === share.owner,
      );
    const serial = Math.max(share.serial + 1, (known?.serial ?? 0) + 1, now);
    const proof = await signShare(keys, share, serial, now);
    await mesh.issueShare(proof);
    const signed = { ...share, epoch: keys.epoch, serial, expires: share.until, provisional: false };
    audit.append('share.signed', shareFields(signed));
    return proof;
  }

  async #confirmOne(id: string, sign: () => Promise<unknown>): Promise<void> {
    const { clock, log } = this.#options;
    const signedAt = this.#signed.get(id);
    if (signedAt !== undefined && clock.monotonic() - signedAt < signAgainMs) return;
    try {
      await sign();
      this.#signed.set(id, clock.monotonic());
    } catch (thrown) {
      log('debug', 'A chain could not be confirmed yet', { chain: id, code: toMeshError(thrown).code });
    }
  }

  /** As the device says itself, once: from then on its owner says it. */
  #kindOf(peerId: string): DeviceKind | undefined {
    const { mesh } = this.#options;
    if (peerId === mesh.peerId) return 'cocoon';
    return mesh.devices().find((known) => known.peerId === peerId)?.kind;
  }

  /** @param least seconds since 1970: what was granted until then must end, whatever this clock says */
  async #revoke(keys: OwnerKeys, kind: RevocationKind, subject: string, least: number): Promise<string> {
    const { mesh } = this.#options;
    const now = this.#now();
    const entry = await signRevocation(keys, mesh.revocations(), { kind, subject, now, least });
    await mesh.tellOwner(undefined, [entry]);
    return entry;
  }

  /** A list that is full could take in nobody who has to be put out. @throws MeshError overloaded */
  #assertRoom(asker: Asker): void {
    if (
      asker !== null &&
      this.#options.mesh.revocations().length >= limits.maxRevocations - reservedRevocations
    )
      throw new MeshError('overloaded', 'Only the user of the device with the secret can revoke more');
  }

  /** What a device asks to end a second time is not signed a second time: the entry that did it is the answer. */
  #entryAbout(kind: RevocationKind, subject: string): string | null {
    const isAbout = (entry: string): boolean => {
      const read = peekRevocation(entry);
      return read.kind === kind && read.subject === subject;
    };
    return this.#options.mesh.revocations().findLast(isAbout) ?? null;
  }

  /** The first time may not have been stored. @throws MeshError storage_failed */
  async #toldAgain(entry: string): Promise<string> {
    await this.#options.mesh.tellOwner(undefined, [entry]);
    return entry;
  }

  /** Tokens that were made for a device and that nobody is known to have redeemed. */
  #unredeemedOf(asker: string): readonly string[] {
    const { mesh, madeTokens } = this.#options;
    const redeemed = new Set([...mesh.members(), ...mesh.shares()].map(({ jti }) => jti));
    return madeTokens()
      .filter((made) => made.asker === asker && made.expires > this.#now() && !redeemed.has(made.jti))
      .map(({ jti }) => jti);
  }

  async #newestRevocation(keys: OwnerKeys): Promise<Revocation | null> {
    const list = this.#options.mesh.revocations();
    if (list.length === 0) return null;
    const before = list.at(-2);
    const after =
      before === undefined ? null : { n: list.length - 1, hash: toBase64Url(await hashObject(before)) };
    const owner = await verifyOwnerRecords(keys.records);
    return (await verifyRevocations(list.slice(-1), owner, after))[0] ?? null;
  }

  /** Seconds since 1970. */
  #now(): number {
    return Math.floor(this.#options.clock.now() / 1000);
  }
}

/** Browsers are forgotten unless they come back; a cocoon stays. What nobody knows yet counts as a browser. */
function endOf({ until }: ProvenMembership, kind: DeviceKind | undefined, now: number): number | null {
  if (kind === 'cocoon') return null;
  return Math.min(now + limits.browserMembershipMs / 1000, until ?? Infinity);
}

function latestGrant(shares: readonly ProvenShare[]): number {
  return Math.max(0, ...shares.map(({ granted }) => granted));
}

/**
 * What the owner signs lasts, and a wrong date in it too.
 * @throws MeshError clock_wrong
 */
function assertSameTime(here: number, there: number): void {
  if (Math.abs(there - here) <= limits.clockSkewMs) return;
  throw new MeshError(
    'clock_wrong',
    `Here it is ${dateText(here / 1000)}, at signaling ${dateText(there / 1000)}: nothing is signed until they agree`,
  );
}

/** @throws MeshError device_not_found */
function assertOwnCocoon(mesh: Mesh, peerId: string): void {
  const own = mesh.devices().some((device) => device.peerId === peerId && isOwnCocoon(device));
  if (!own) throw new MeshError('device_not_found');
}

export function isOwnCocoon(device: { readonly foreign: boolean; readonly kind: string }): boolean {
  return !device.foreign && device.kind === 'cocoon';
}
