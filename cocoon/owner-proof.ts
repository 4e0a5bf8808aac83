/**
 * What a device answers that was asked to sign something, held against what was asked: only the owner's signature
 * counts, whoever brings it. Nothing here changes anything.
 */

import type {
  Owner,
  OwnerAnswer,
  ProvenShare,
  Revocable,
  Revocation,
  RevocationTell,
  TokenAnswer,
  TokenRequest,
} from '@cocoon-mesh/protocol';
import {
  MeshError,
  dateText,
  ends,
  equalBytes,
  fromBase64Url,
  givesBack,
  includesRights,
  readSetupToken,
  verifyOwnerRecords,
  verifyRevocation,
} from '@cocoon-mesh/protocol';
import { rightsOf } from './token-request.ts';

/** What the asker knows by itself. */
export interface Known {
  readonly owner: string | null;
  /** Of its newest secret that is known. */
  readonly epoch: number;
  /** The key of the signaling server that the asker is signed in at; null without it. */
  readonly receiptKey: Uint8Array | null;
  /** Seconds since 1970, on the clock of that server. */
  readonly now: number;
}

/**
 * The token that was asked for, as it says itself.
 * @throws MeshError token_invalid for any other, token_malformed
 */
export async function provenToken(
  { token: answer }: OwnerAnswer,
  request: TokenRequest,
  known: Known,
): Promise<TokenAnswer> {
  const { owner, grant } = await readSetupToken(answer?.token ?? '');
  const rights = rightsOf(request);
  const receiptKey = fromBase64Url(grant.receipt_key);
  const isAsked =
    isMine(owner, known) &&
    grant.scope === request.scope &&
    grant.cocoon === request.cocoon &&
    grant.until === request.until &&
    includesRights(rights, grant.rights) &&
    includesRights(grant.rights, rights) &&
    grant.exp - grant.iat <= request.expires_s &&
    grant.exp > known.now &&
    // The URL is the owner's word: a server can have more than one, but only one key.
    (known.receiptKey === null || equalBytes(receiptKey, known.receiptKey));
  if (!isAsked) throw new MeshError('token_invalid', 'The setup token is not the one that was asked for');
  return {
    token: answer?.token ?? '',
    scope: grant.scope,
    jti: grant.jti,
    expires_at: dateText(grant.exp),
    signaling: grant.signaling,
  };
}

/** What is to end. */
export type Ending =
  | { readonly kind: 'device'; readonly peerId: string }
  | { readonly kind: 'token'; readonly jti: string }
  /** What another owner was given of mine: every share of it that is known. */
  | { readonly kind: 'owner'; readonly owner: string; readonly shares: readonly ProvenShare[] }
  /** What my owner was given. */
  | { readonly kind: 'share'; readonly shares: readonly ProvenShare[] };

/**
 * The signed entry that ends what was asked to end, as it is to be told.
 * @throws MeshError bad_signature when there is none
 */
export async function provenRevocation(
  { revocations }: OwnerAnswer,
  ending: Ending,
  known: Pick<Known, 'owner' | 'epoch'>,
): Promise<RevocationTell> {
  if (!revocations) throw new MeshError('bad_signature', 'The answer has no revocation');
  const signer = await verifyOwnerRecords(revocations.records);
  const entries = await Promise.all(revocations.list.map((jws) => verifyRevocation(jws, signer)));
  if (!isMine(signer, known) || !entries.some((entry) => isEnd(entry, ending)))
    throw new MeshError('bad_signature', 'The revocation ends something else');
  return revocations;
}

/** What a secret signed that was replaced counts no more. */
function isMine({ id, epoch }: Owner, known: Pick<Known, 'owner' | 'epoch'>): boolean {
  return id === known.owner && epoch >= known.epoch;
}

function isEnd(entry: Revocation, ending: Ending): boolean {
  switch (ending.kind) {
    case 'device':
      return entry.kind === 'device' && entry.subject === ending.peerId;
    case 'token':
      return entry.kind === 'token' && entry.subject === ending.jti;
    case 'owner':
      return (
        entry.kind === 'owner' &&
        entry.subject === ending.owner &&
        ending.shares.every((share) => ends(entry, rightOf(share)))
      );
    case 'share':
      return ending.shares.every((share) => givesBack(entry, rightOf(share)));
  }
}

function rightOf(share: ProvenShare): Revocable {
  return { ...share, peerId: share.cocoon };
}
