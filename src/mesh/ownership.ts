/**
 * What belongs to whom, as this peer tells and hears it through signaling: its own membership, the chains that wait
 * for the owner's signature, the shares of cocoons. `Trust` judges every proof; nothing here opens a stream.
 */

import type {
  ClientMessage,
  MembershipProof,
  OwnerKeys,
  ProvenMembership,
  ProvenShare,
  Redemption,
  ServerMessage,
  SetupToken,
  ShareProof,
} from '@cocoon-mesh/protocol';
import { MeshError, assertRightLasts, redeem, toMeshError, verifyMembership } from '@cocoon-mesh/protocol';
import type { Directory } from './directory.ts';
import { refusalLevel } from './refusal.ts';
import type { Welcome } from './signaling-client.ts';
import type { Trust } from './trust.ts';

export interface OwnershipOptions {
  /** PeerId. */
  readonly self: string;
  readonly trust: Trust;
  readonly directory: Directory;
  readonly saveMembership: (membership: MembershipProof) => Promise<void>;
  /** To signaling; false without it. */
  readonly send: (message: ClientMessage) => boolean;
  readonly request: (build: (id: number) => ClientMessage) => Promise<ServerMessage>;
  /** A chain of my owner's waits for a signature. */
  readonly provisional: () => void;
  readonly log: (level: 'debug' | 'info' | 'warn', message: string, fields?: Record<string, unknown>) => void;
}

export class Ownership {
  readonly #options: OwnershipOptions;
  /** Chains that were told of since the last welcome, by token. */
  readonly #announced = new Set<string>();
  /** What signaling showed that it has, by `proofName`. */
  readonly #atSignaling = new Set<string>();

  constructor(options: OwnershipOptions) {
    this.#options = options;
  }

  /** Takes a membership as mine, if it is newer than what I have. @throws MeshError as `Trust.adopt` */
  async adopt(proof: MembershipProof): Promise<boolean> {
    const { trust, saveMembership } = this.#options;
    const counts = await trust.adopt(proof);
    if (counts) await saveMembership(proof);
    return counts;
  }

  /** My token was redeemed. @throws MeshError token_invalid, and as `Trust.adopt` */
  async redeemed(redemption: Redemption | null, welcome: Welcome): Promise<void> {
    const { receipt } = welcome;
    if (!redemption || receipt === undefined)
      throw new MeshError('token_invalid', 'Signaling gave no receipt for the setup token');
    await this.adopt({ kind: 'claim', redemption, receipt });
  }

  /** Memberships and shares of a welcome; devices and revocations are taken in by others. */
  async welcomed(welcome: Welcome): Promise<void> {
    this.#announced.clear();
    this.#atSignaling.clear();
    if (welcome.membership) await this.#adoptTold(welcome.membership);
    const told = [...(welcome.shares ?? []), ...welcome.devices.flatMap(({ share }) => share ?? [])];
    for (const share of told) this.#atSignaling.add(proofName(share));
    for (const share of welcome.shares ?? []) await this.#share(share);
  }

  async message(message: ServerMessage & { type: 'membership' | 'share' }): Promise<void> {
    if (message.type === 'membership') await this.#adoptTold(message.membership);
    else {
      this.#atSignaling.add(proofName(message.share));
      await this.#share(message.share);
    }
    this.announce();
  }

  /** Signaling may have lost its database: what it did not show, it is given again. */
  restore(): void {
    const { trust, send } = this.#options;
    for (const { cocoon, coOwner } of trust.shares) {
      const proof = trust.shareProof(cocoon, coOwner);
      if (proof && !this.#atSignaling.has(proofName(proof))) send({ type: 'share', share: proof });
    }
  }

  /** Says once for each chain that it waits for a signature. */
  announce(): void {
    const { memberships, shares } = this.provisional();
    const before = this.#announced.size;
    for (const { jti } of [...memberships, ...shares]) if (jti !== null) this.#announced.add(jti);
    if (this.#announced.size > before) this.#options.provisional();
  }

  members(): readonly ProvenMembership[] {
    const { trust, directory } = this.#options;
    const others = directory
      .all()
      .filter(({ standing }) => standing.relation === 'own')
      .map(({ standing }) => standing.membership);
    return [...(trust.proven ? [trust.proven] : []), ...others];
  }

  provisional(): { memberships: readonly ProvenMembership[]; shares: readonly ProvenShare[] } {
    const { trust } = this.#options;
    return {
      memberships: this.members().filter(({ provisional }) => provisional),
      shares: trust.shares.filter(({ owner, provisional }) => provisional && owner === trust.owner),
    };
  }

  /** @throws MeshError signaling_unreachable, and as `Trust.judge` */
  async issueMembership(peerId: string, proof: MembershipProof): Promise<void> {
    const { self, trust, directory, send } = this.#options;
    if (peerId === self) {
      // It did not come from signaling, which is told of it.
      if (await this.adopt(proof)) send({ type: 'membership', membership: proof });
      return;
    }
    const { owner } = await verifyMembership(proof, peerId, trust.now);
    if (owner !== trust.owner) throw new MeshError('membership_invalid', 'The membership is not of my owner');
    // First handed on, then held against the device: it would be refused with what it still has.
    if (!send({ type: 'issue', peer_id: peerId, membership: proof }))
      throw new MeshError('signaling_unreachable');
    await directory.renew(peerId, proof);
  }

  /** Without signaling the share is handed on at the next sign-in. @throws MeshError as `Trust.share` */
  async issueShare(share: ShareProof): Promise<void> {
    const { owner } = await this.#options.trust.share(share);
    if (owner !== this.#options.trust.owner)
      throw new MeshError('membership_invalid', 'The share is not of my owner');
    this.#options.send({ type: 'share', share });
  }

  /** @throws MeshError token_invalid | token_used | token_expired | … | signaling_unreachable */
  async claim(token: SetupToken, keys: OwnerKeys): Promise<ProvenShare> {
    const { trust, request } = this.#options;
    if (token.grant.scope !== 'co-own')
      throw new MeshError('token_invalid', 'The setup token is for a new device, not for another owner');
    if (token.owner.id === keys.id || token.owner.id === trust.owner)
      throw new MeshError('already_owned', 'The cocoon is your own already');
    // By my own clock, too: the token would be used up for nothing.
    assertRightLasts(token.grant, trust.now);
    const redemption = await redeem(token, keys.key, keys.id, keys.records);
    const answer = await request((id) => ({ type: 'claim', id, redemption }));
    if (answer.type !== 'claimed') throw new MeshError('bad_message');
    return trust.share({ kind: 'claim', redemption, receipt: answer.receipt });
  }

  /** Signaling's word for what my owner signed; nothing of it is signaling's to decide. */
  async #adoptTold(proof: MembershipProof): Promise<void> {
    try {
      await this.adopt(proof);
    } catch (thrown) {
      this.#refused('Signaling brought a membership that proves nothing', thrown);
    }
  }

  async #share(proof: ShareProof): Promise<void> {
    try {
      await this.#options.trust.share(proof);
    } catch (thrown) {
      this.#refused('Signaling brought a share that proves nothing', thrown);
    }
  }

  #refused(message: string, thrown: unknown): void {
    const { code, message: why } = toMeshError(thrown);
    this.#options.log(refusalLevel(thrown), message, { code, why });
  }
}

/** Two proofs of one name say the same. */
function proofName(proof: ShareProof): string {
  return proof.kind === 'share' ? proof.share : proof.receipt;
}
