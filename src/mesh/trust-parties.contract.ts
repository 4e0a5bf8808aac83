/** Owners, devices and what they sign, for the tests of trust: real keys and signatures, no network. */

import type {
  MembershipProof,
  MembershipTerms,
  OwnerKeys,
  Rights,
  ShareProof,
  SigningKey,
} from '@cocoon-mesh/protocol';
import {
  createOwnerSecret,
  createSetupToken,
  generateSigningKey,
  limits,
  memberRights,
  ownerKeys,
  readSetupToken,
  redeem,
  rotateOwner,
  signMembership,
  signReceipt,
  signShare,
  verifyShare,
} from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import type { TrustEvent, TrustState } from './trust.ts';
import { Trust } from './trust.ts';

/** Seconds since 1970, of a new `SteppedClock`. */
export const now = Math.floor(new SteppedClock().now() / 1000);
export const day = 24 * 3600;

const receiptKey = await generateSigningKey();

export interface Party {
  readonly keys: OwnerKeys;
  readonly recoveryCode: string;
}

export async function newOwner(): Promise<Party> {
  const { secret, recoveryCode } = await createOwnerSecret();
  return { keys: await ownerKeys(secret), recoveryCode };
}

export async function rotated({ keys, recoveryCode }: Party, keeps: readonly string[] = []): Promise<Party> {
  const next = await createOwnerSecret();
  const rotatedKeys = await rotateOwner(keys.records, recoveryCode, next.secret, keeps);
  return { keys: rotatedKeys, recoveryCode: next.recoveryCode };
}

export async function member(
  owner: Party,
  device: SigningKey,
  terms: Partial<MembershipTerms> = {},
): Promise<MembershipProof> {
  return signMembership(owner.keys, {
    peerId: device.peerId,
    serial: 1,
    rights: memberRights,
    now,
    ...terms,
  });
}

export interface TokenTerms {
  readonly rights?: Rights;
  readonly granted?: number;
  readonly until?: number;
  readonly cocoon?: SigningKey;
}

export async function newToken(owner: Party, terms: TokenTerms = {}) {
  const { rights = memberRights, granted = now, until, cocoon } = terms;
  return createSetupToken(owner.keys, {
    scope: cocoon ? 'co-own' : 'enroll',
    rights,
    now: granted,
    expires: granted + 30 * day,
    signaling: 'ws://192.0.2.10/ws',
    receiptKey: receiptKey.publicKey,
    ...(until === undefined ? {} : { until }),
    ...(cocoon ? { cocoon: cocoon.peerId } : {}),
  });
}

/** Signaling helps whoever asks: a second redeemer gets a receipt as well. */
export async function enroll(token: string, device: SigningKey, redeemed = now): Promise<MembershipProof> {
  const read = await readSetupToken(token);
  const redemption = await redeem(read, device, device.peerId);
  const content = { jti: read.grant.jti, redeemer: device.peerId, now: redeemed };
  return { kind: 'claim', redemption, receipt: await signReceipt(receiptKey, content) };
}

export async function claim(token: string, { keys }: Party, redeemed = now): Promise<ShareProof> {
  const read = await readSetupToken(token);
  const redemption = await redeem(read, keys.key, keys.id, keys.records);
  const content = { jti: read.grant.jti, redeemer: keys.id, now: redeemed };
  return { kind: 'claim', redemption, receipt: await signReceipt(receiptKey, content) };
}

/** The claim of a fresh token. */
export async function share(
  owner: Party,
  cocoon: SigningKey,
  coOwner: Party,
  terms: TokenTerms = {},
): Promise<ShareProof> {
  const { token } = await newToken(owner, { ...terms, cocoon });
  return claim(token, coOwner, terms.granted ?? now);
}

/** What the owner signs in the place of a claim. */
export async function confirmed(
  owner: Party,
  proof: ShareProof,
  serial = 1,
  change: { rights?: Rights } = {},
): Promise<ShareProof> {
  const proven = await verifyShare(proof, null);
  return signShare(owner.keys, { ...proven, ...change }, serial, now);
}

/** One peer's trust, with all that it told and the state it saved last. */
export class TrustOfPeer {
  readonly clock: SteppedClock;
  readonly self: SigningKey;
  readonly events: TrustEvent[] = [];
  saved: TrustState | null = null;
  saves = 0;
  trust: Trust;

  private constructor(self: SigningKey, clock: SteppedClock, trust: Trust) {
    this.self = self;
    this.clock = clock;
    this.trust = trust;
  }

  static async create(self: SigningKey, membership?: MembershipProof): Promise<TrustOfPeer> {
    const clock = new SteppedClock();
    const none = { clock, self: self.peerId, state: null, save: () => {}, report: () => {} };
    const peer = new TrustOfPeer(self, clock, await Trust.open(none));
    await peer.restart(membership);
    return peer;
  }

  /** Opens what was saved, as text, as a file would have kept it. @param clock another one */
  async restart(membership?: MembershipProof, clock = this.clock): Promise<Trust> {
    this.trust = await Trust.open({
      clock,
      self: this.self.peerId,
      state: JSON.parse(JSON.stringify(this.saved)) as unknown,
      save: (state) => {
        this.saved = state;
        this.saves++;
      },
      report: (event) => this.events.push(event),
    });
    if (membership) await this.trust.adopt(membership);
    return this.trust;
  }

  told<K extends TrustEvent['kind']>(kind: K): Extract<TrustEvent, { kind: K }>[] {
    return this.events.filter((event): event is Extract<TrustEvent, { kind: K }> => event.kind === kind);
  }
}

export const provisionalSeconds = limits.provisionalMs / 1000;
