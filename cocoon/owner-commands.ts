/**
 * What the user of this device asks in the name of its owner: tokens, claims, who has access, revocations, a new
 * secret. Signed at this device's own desk where the secret is, else by a device that holds it.
 */

import type { Mesh } from '@cocoon-mesh/mesh';
import type { OwnerQuestion } from '@cocoon-mesh/mesh/owner-client.ts';
import { askOwner, ownerKeyOffline } from '@cocoon-mesh/mesh/owner-client.ts';
import type { Clock, OwnerRequest, ProvenShare, SetupToken, TokenAnswer } from '@cocoon-mesh/protocol';
import { MeshError, dateText, key32Field, peerIdField, readSetupToken } from '@cocoon-mesh/protocol';
import type { OwnersFile } from './mesh-store.ts';
import type { OwnerDesk } from './owner-desk.ts';
import { isOwnCocoon } from './owner-desk.ts';
import type { OwnerKeyring } from './owner-keyring.ts';
import type { Ending, Known } from './owner-proof.ts';
import { provenRevocation, provenToken } from './owner-proof.ts';
import type { SharedWith } from './rights-text.ts';
import { describeRights } from './rights-text.ts';
import type { PreparedRotation, Rotation, RotationResult, Undone } from './rotation.ts';
import { refusedToken } from './token-place.ts';
import { tokenRequestOf } from './token-request.ts';

export interface OwnerCommandsOptions {
  readonly mesh: Mesh;
  readonly desk: OwnerDesk;
  readonly keyring: OwnerKeyring;
  readonly rotation: Rotation;
  readonly owners: OwnersFile;
  readonly clock: Clock;
  readonly signalingUrl: string;
  /** As others reach it. */
  readonly publicSignalingUrl: string;
}

/** A cocoon that was given to my owner. */
export interface ClaimAnswer extends SharedWith {
  /** `name` is null until it was seen. */
  readonly cocoon: { readonly name: string | null; readonly peer_id: string; readonly online: boolean };
  readonly owner: string;
  /** ISO 8601, or null when it does not end by itself. */
  readonly until: string | null;
}

/** Another owner who has access. */
export interface OwnerView {
  readonly owner: string;
  readonly cocoons: readonly (SharedWith & {
    readonly name: string;
    readonly peer_id: string;
    /** ISO 8601. */
    readonly since: string;
    readonly until: string | null;
    readonly provisional: boolean;
  })[];
}

export interface RevokeAnswer {
  readonly peer_id: string;
  readonly name: string | null;
  /** `device`: one of mine, for good. `share`: a cocoon of another owner, given back. */
  readonly kind: 'device' | 'share';
}

export interface RevokedToken {
  readonly jti: string;
  readonly kind: 'token';
  /** The device or the owner that had redeemed it; null: nobody had, as far as this device knows. */
  readonly put_out: string | null;
}

export class OwnerCommands {
  readonly #options: OwnerCommandsOptions;

  constructor(options: OwnerCommandsOptions) {
    this.#options = options;
  }

  /** Tokens are signed here, and nobody else needs to be asked. */
  get signsHere(): boolean {
    return this.#options.desk.holdsKey;
  }

  /**
   * @param body a `TokenRequest` whose `cocoon` may be a name
   * @throws MeshError usage | device_not_found | denied | revoked | owner_key_offline | signaling_unreachable
   */
  async makeToken(body: Readonly<Record<string, unknown>>): Promise<TokenAnswer> {
    const { cocoon, ...rest } = body;
    const named = typeof cocoon === 'string' ? { cocoon: this.#ownCocoon(cocoon) } : {};
    const token = tokenRequestOf({ ...rest, ...named });
    const { desk } = this.#options;
    if (desk.holdsKey) return desk.makeToken(token, null);
    return this.#ask({
      request: { op: 'token', token },
      read: (answer) => provenToken(answer, token, this.#known()),
    });
  }

  /**
   * Takes a cocoon that another owner shares, for all of my devices.
   * @throws MeshError token_malformed | token_invalid | token_used | token_expired | token_wrong_signaling |
   * owner_key_offline | signaling_unreachable | …
   */
  async claim(text: string): Promise<ClaimAnswer> {
    return this.claimToken(await readSetupToken(text));
  }

  /** @throws MeshError as `claim` */
  async claimToken(token: SetupToken): Promise<ClaimAnswer> {
    const { mesh, keyring, owners, signalingUrl, publicSignalingUrl } = this.#options;
    const { grant, owner } = token;
    if (grant.scope !== 'co-own')
      throw new MeshError('token_invalid', 'This token adds a device to its owner and shares nothing', {
        hint: 'Use it with `cocoon run --token -` on a new device.',
      });
    if (owner.id === mesh.owner)
      throw new MeshError('token_invalid', 'This token shares a cocoon of your own with another owner', {
        hint: 'Give it to whoever is to use the cocoon.',
      });
    const { keys } = keyring;
    if (!keys) {
      const { hint } = ownerKeyOffline(mesh);
      throw new MeshError('owner_key_offline', 'Only a device that holds the secret of its owner can claim', {
        hint: `${hint} All of your devices reach the cocoon then.`,
      });
    }
    const known = mesh.shares().find(({ jti, coOwner }) => jti === grant.jti && coOwner === keys.id);
    const refused = (thrown: unknown): never => {
      throw refusedToken(thrown, grant, [signalingUrl, publicSignalingUrl]);
    };
    const share = known ?? (await mesh.claim(token, keys).catch(refused));
    await owners.noteClaim(grant.jti, signalingUrl);
    return this.#claimed(share);
  }

  /** Other owners who have access to cocoons of mine. */
  owners(): OwnerView[] {
    const { mesh } = this.#options;
    const given = mesh.shares().filter(({ owner }) => owner === mesh.owner);
    const ids = [...new Set(given.map(({ coOwner }) => coOwner))].toSorted();
    return ids.map((owner) => ({
      owner,
      cocoons: given
        .filter(({ coOwner }) => coOwner === owner)
        .map((share) => ({
          name: this.#nameOf(share.cocoon) ?? share.cocoon,
          peer_id: share.cocoon,
          ...describeRights(share.rights),
          since: dateText(share.granted),
          until: share.until === null ? null : dateText(share.until),
          provisional: share.provisional,
        })),
    }));
  }

  /**
   * @param text an owner id, or the beginning of one
   * @throws MeshError owner_not_found | usage | owner_key_offline
   */
  async removeOwner(text: string): Promise<{ owner: string }> {
    const { desk } = this.#options;
    const owner = this.#ownerId(text);
    if (desk.holdsKey) await desk.removeOwner(owner);
    else
      await this.#end({ op: 'remove_owner', owner }, { kind: 'owner', owner, shares: this.#givenTo(owner) });
    return { owner };
  }

  /**
   * Ends a device of mine, or gives back a cocoon of another owner.
   * @param sure for a device whose revocation is a loss or does not help
   * @throws MeshError device_not_found | usage | owner_key_offline
   */
  async revoke(nameOrPeerId: string, sure: boolean): Promise<RevokeAnswer> {
    const { mesh, desk } = this.#options;
    const { peerId, name } = this.#revocable(nameOrPeerId, sure);
    if (peerId === mesh.peerId)
      throw new MeshError('usage', 'A device cannot revoke itself', {
        hint: 'Run the command on another device, or stop this one and remove its home.',
      });
    if (!sure && mesh.signers().some((signer) => signer.peerId === peerId))
      throw new MeshError(
        'usage',
        `${name ?? peerId} holds the secret: whoever has the device can join again`,
        {
          hint: 'After a theft run `cocoon secret rotate --without DEVICE`. To revoke it all the same add --yes.',
        },
      );
    const shares = mesh.shares().filter(({ cocoon, owner }) => cocoon === peerId && owner !== mesh.owner);
    const ending =
      shares.length > 0 ? ({ kind: 'share', shares } as const) : ({ kind: 'device', peerId } as const);
    if (desk.holdsKey) await desk.revokeDevice(peerId);
    else await this.#end({ op: 'revoke', device: peerId }, ending);
    return { peer_id: peerId, name, kind: ending.kind };
  }

  /**
   * Voids a setup token of mine, and ends what came from it.
   * @param text the token itself, or its name (jti)
   * @param sure also one that somebody has redeemed
   * @throws MeshError usage | token_malformed | token_invalid | not_found | revoked | owner_key_offline
   */
  async revokeToken(text: string, sure: boolean): Promise<RevokedToken> {
    const { mesh, desk } = this.#options;
    const jti = await this.#tokenName(text);
    if (jti === mesh.membership?.jti)
      throw new MeshError('usage', 'A device cannot void the token with which it came itself', {
        hint: 'Run the command on another device, or stop this one and remove its home.',
      });
    const redeemed = this.#redeemedWith(jti);
    if (redeemed !== null && !sure)
      throw new MeshError('usage', `The token is redeemed, and ${redeemed.who} would be put out with it`, {
        hint: `To end just that run \`${redeemed.ended}\`; to void the token all the same add --yes.`,
      });
    if (desk.holdsKey) await desk.revokeToken(jti);
    else await this.#end({ op: 'revoke_token', jti }, { kind: 'token', jti });
    return { jti, kind: 'token', put_out: redeemed?.who ?? null };
  }

  /** @throws MeshError as `Rotation.prepare`, device_not_found */
  prepareRotation(
    recoveryCode: string,
    keep: readonly string[],
    without: readonly string[],
    undone?: Undone,
  ): Promise<PreparedRotation> {
    const { mesh, rotation } = this.#options;
    return rotation.prepare(
      recoveryCode,
      keep,
      // One that was revoked is not listed any more, and does not stay either.
      without.map((name) => (peerIdField.safeParse(name).success ? name : mesh.resolve(name).peerId)),
      undone,
    );
  }

  /** @throws MeshError as `Rotation.commit` */
  commitRotation(id: string): Promise<RotationResult> {
    return this.#options.rotation.commit(id);
  }

  /** Has something ended by a device that signs, and ends it here at once. */
  async #end(request: OwnerRequest, ending: Ending): Promise<void> {
    const { records, list } = await this.#ask({
      request,
      read: (answer) => provenRevocation(answer, ending, this.#known()),
    });
    await this.#options.mesh.tellOwner(records, list);
  }

  /** @throws MeshError revoked | owner_key_offline, and whatever a signing device answers */
  async #ask<T>(question: OwnerQuestion<T>): Promise<T> {
    const { mesh, clock } = this.#options;
    // It is shown nobody any more whom it could ask, which would look as if they were only offline.
    if (mesh.isRevoked)
      throw new MeshError(
        'revoked',
        'The owner has revoked this device: nobody does anything for it any more',
      );
    return askOwner(mesh, clock, question);
  }

  #known(): Known {
    const { mesh, clock } = this.#options;
    const { signaling, owner, ownerRecords } = mesh;
    const isConnected = signaling.state === 'connected';
    return {
      owner,
      epoch: (ownerRecords?.length ?? 0) - 1,
      receiptKey: isConnected ? signaling.receiptKey : null,
      now: Math.floor((clock.now() + (isConnected ? signaling.clockOffsetMs : 0)) / 1000),
    };
  }

  /** What another owner was given of mine. */
  #givenTo(owner: string): readonly ProvenShare[] {
    const { mesh } = this.#options;
    return mesh.shares().filter((share) => share.owner === mesh.owner && share.coOwner === owner);
  }

  /** @throws MeshError device_not_found | denied | usage */
  #ownCocoon(nameOrPeerId: string): string {
    const { mesh } = this.#options;
    const device = mesh.resolve(nameOrPeerId);
    if (device.foreign)
      throw new MeshError('denied', 'Only the owner of a cocoon shares it', {
        hint: 'Ask its owner for a token for whoever is to use it.',
      });
    if (!isOwnCocoon(device)) throw new MeshError('usage', 'Only a cocoon can be shared, not a browser');
    return device.peerId;
  }

  /** @throws MeshError device_not_found */
  #revocable(nameOrPeerId: string, sure: boolean): { peerId: string; name: string | null } {
    const { mesh } = this.#options;
    try {
      const { peerId, name } = mesh.resolve(nameOrPeerId);
      return { peerId, name };
    } catch (thrown) {
      // Not every list tells of every device: a server can withhold one.
      const isPeerId = peerIdField.safeParse(nameOrPeerId).success;
      const isKnown = mesh.members().some(({ peerId }) => peerId === nameOrPeerId);
      if (isPeerId && (isKnown || sure)) return { peerId: nameOrPeerId, name: null };
      throw thrown;
    }
  }

  /** @throws MeshError token_malformed | token_invalid */
  async #tokenName(text: string): Promise<string> {
    if (key32Field.safeParse(text).success) return text;
    try {
      const { owner, grant } = await readSetupToken(text);
      if (owner.id === this.#options.mesh.owner) return grant.jti;
    } catch (cause) {
      throw new MeshError('token_malformed', 'That is neither a setup token nor the name of one', {
        cause,
        hint: 'Give the whole token, or its jti as `cocoon audit` and `cocoon generate-token --json` show it.',
      });
    }
    throw new MeshError('token_invalid', 'The setup token is of another owner', {
      hint: 'Only its own owner can void it. A cocoon that it gave you is given back with `cocoon revoke NAME`.',
    });
  }

  /** Who came with a token, and the command that puts just that out; null when nobody is known. */
  #redeemedWith(jti: string): { readonly who: string; readonly ended: string } | null {
    const { mesh } = this.#options;
    const member = mesh.members().find((known) => known.jti === jti);
    if (member) {
      const who = this.#nameOf(member.peerId) ?? member.peerId;
      return { who, ended: `cocoon revoke ${who}` };
    }
    const share = mesh.shares().find((known) => known.jti === jti && known.owner === mesh.owner);
    return share ? { who: share.coOwner, ended: `cocoon owners remove ${share.coOwner}` } : null;
  }

  #ownerId(text: string): string {
    const ids = this.owners().map(({ owner }) => owner);
    const found = ids.filter((id) => id === text || id.startsWith(text) || id.startsWith(`own_${text}`));
    const [only] = ids.includes(text) ? [text] : found;
    if (only === undefined || text === '') throw new MeshError('owner_not_found');
    if (found.length > 1 && !ids.includes(text))
      throw new MeshError('usage', `More than one owner begins with ${text}`, {
        hint: 'Give more of the id, as `cocoon owners list` shows it.',
      });
    return only;
  }

  #claimed(share: ProvenShare): ClaimAnswer {
    const device = this.#options.mesh.devices().find(({ peerId }) => peerId === share.cocoon);
    return {
      cocoon: { name: device?.name ?? null, peer_id: share.cocoon, online: device?.online === true },
      owner: share.owner,
      ...describeRights(share.rights),
      until: share.until === null ? null : dateText(share.until),
    };
  }

  #nameOf(peerId: string): string | null {
    return this.#options.mesh.devices().find((device) => device.peerId === peerId)?.name ?? null;
  }
}
