/**
 * Everything a peer and a signaling server say to each other over the WebSocket, as MessagePack or JSON: one
 * schema per message, text only (bytes are base64url), told apart by `type`. Both sides ignore unknown fields;
 * the server answers an unknown type with `error` unsupported, a peer ignores one.
 *
 * The first message of a socket is `sign_in`; nothing else is accepted before `welcome`.
 */

import * as z from 'zod/mini';
import type { Bytes } from './bytes.ts';
import { fromBase64Url, lengthPrefixed, utf8 } from './bytes.ts';
import {
  capabilityField,
  jwsField,
  key32Field,
  nonceField,
  ownerIdField,
  peerIdField,
  protocolField,
  rangeField,
  signatureField,
  timeField,
} from './fields.ts';
import { redemptionSchema } from './grant.ts';
import { limits } from './limits.ts';
import { membershipProofSchema } from './membership.ts';
import { ownerRecordsField } from './owner.ts';
import { revocationListField } from './revocation.ts';
import { shareProofSchema } from './share.ts';

/** Chosen by the asker; echoed in the answer. */
const requestId = z.int().check(z.nonnegative());
const load = z.number().check(z.gte(0), z.lte(1));

/** A device as signaling tells of it. The reader verifies record and membership itself. */
export const deviceEntrySchema = z.object({
  peer_id: peerIdField,
  online: z.boolean(),
  /** 0 idle to 1 full, the device's own estimate. */
  load,
  record: jwsField,
  membership: membershipProofSchema,
  /** The device and the reader have different owners: why they may meet. */
  share: z.optional(shareProofSchema),
  /** When it was last connected, on signaling's clock. */
  last_seen: timeField,
});
export type DeviceEntry = z.infer<typeof deviceEntrySchema>;

export const signalPayloadSchema = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('offer'), sdp: z.string().check(z.maxLength(limits.maxSdpBytes)) }),
  z.object({ kind: z.literal('answer'), sdp: z.string().check(z.maxLength(limits.maxSdpBytes)) }),
  z.object({
    kind: z.literal('candidate'),
    /** Null: there are no more. */
    candidate: z.nullable(z.string().check(z.maxLength(limits.maxCandidateBytes))),
  }),
  /** The attempt is over; `code` is from the table of errors. */
  z.object({ kind: z.literal('failed'), code: z.string().check(z.maxLength(64)) }),
]);
export type SignalPayload = z.infer<typeof signalPayloadSchema>;

export const clientMessageSchema = z.discriminatedUnion('type', [
  z.object({ type: z.literal('sign_in'), peer_id: peerIdField, nonce: nonceField }),
  z.object({
    type: z.literal('sign_in_proof'),
    /** By the device key over `signInParts`. */
    signature: signatureField,
    record: jwsField,
    /** Exactly one of the two: who I am, or the token that makes me somebody. */
    membership: z.optional(membershipProofSchema),
    redemption: z.optional(redemptionSchema),
    /** ID token of the issuer that the server asks for, where it asks for one. */
    oidc_token: z.optional(z.string().check(z.maxLength(limits.maxOidcTokenBytes))),
  }),
  /** A new version of my own record, or with an `audience` of the one for that owner. */
  z.object({ type: z.literal('record'), record: jwsField }),
  /** A new membership of mine: a confirmed chain, a renewed one. */
  z.object({ type: z.literal('membership'), membership: membershipProofSchema }),
  /** Redeems a co-own token for my owner. */
  z.object({ type: z.literal('claim'), id: requestId, redemption: redemptionSchema }),
  /** A membership that my owner signed for another of its devices. */
  z.object({ type: z.literal('issue'), peer_id: peerIdField, membership: membershipProofSchema }),
  /** A share of my owner's, or with it, or of me: newly signed, or one that the server may have forgotten. */
  z.object({ type: z.literal('share'), share: shareProofSchema }),
  z.object({ type: z.literal('load'), load }),
  z.object({ type: z.literal('lookup'), id: requestId, protocol: protocolField, version: rangeField }),
  z.object({ type: z.literal('introduce'), id: requestId, peer_id: peerIdField }),
  z.object({ type: z.literal('signal'), jti: nonceField, payload: signalPayloadSchema }),
  z.object({
    type: z.literal('revocations'),
    owner: ownerIdField,
    /** Of the owner, up to the epoch of the list: after a rotation, or for a server that lost its database. */
    records: z.optional(ownerRecordsField),
    list: revocationListField,
  }),
  z.object({ type: z.literal('ping'), id: requestId }),
]);
export type ClientMessage = z.infer<typeof clientMessageSchema>;

export const serverMessageSchema = z.discriminatedUnion('type', [
  z.object({ type: z.literal('challenge'), nonce: nonceField, time: timeField }),
  z.object({
    type: z.literal('welcome'),
    /** Signaling's clock, milliseconds since 1970. */
    time_ms: z.number(),
    ticket_key: key32Field,
    receipt_key: key32Field,
    access_token: z.string().check(z.maxLength(4096)),
    /** Only after a redemption: the missing half of the claim. */
    receipt: z.optional(jwsField),
    /** A membership of mine that is newer than the one I showed. */
    membership: z.optional(membershipProofSchema),
    /** Every device of my owner, me included, and every cocoon that is shared with it. */
    devices: z.array(deviceEntrySchema).check(z.maxLength(2000)),
    /** Of my owner's cocoons, with other owners. */
    shares: z.optional(z.array(shareProofSchema).check(z.maxLength(limits.maxShares))),
    /** Of my owner, and of those it shares a cocoon with. */
    revocations: z
      .array(
        z.object({ owner: ownerIdField, records: z.optional(ownerRecordsField), list: revocationListField }),
      )
      .check(z.maxLength(limits.maxRevocationLists)),
  }),
  /** One device of my owner, or one that is shared with it, is new, changed, came or went. */
  z.object({ type: z.literal('device'), device: deviceEntrySchema }),
  /** A membership of mine that my owner signed elsewhere. */
  z.object({ type: z.literal('membership'), membership: membershipProofSchema }),
  /** One of my owner's cocoons is shared with another owner. */
  z.object({ type: z.literal('share'), share: shareProofSchema }),
  z.object({ type: z.literal('claimed'), id: requestId, receipt: jwsField }),
  z.object({
    type: z.literal('lookup_result'),
    id: requestId,
    /** Least loaded first; only devices that are online. */
    matches: z.array(z.object({ peer_id: peerIdField, capability: capabilityField, load })),
  }),
  /** To both sides. `id` is the asker's, absent at the other. */
  z.object({
    type: z.literal('introduction'),
    id: z.optional(requestId),
    ticket: jwsField,
    device: deviceEntrySchema,
  }),
  z.object({ type: z.literal('signal'), jti: nonceField, payload: signalPayloadSchema }),
  z.object({
    type: z.literal('revocations'),
    owner: ownerIdField,
    /** Of the owner, up to the epoch of the list. */
    records: z.optional(ownerRecordsField),
    list: revocationListField,
  }),
  z.object({ type: z.literal('pong'), id: requestId }),
  /** `id` when it answers a request. After an error without `id` the server closes the socket. */
  z.object({
    type: z.literal('error'),
    id: z.optional(requestId),
    code: z.string().check(z.maxLength(64)),
    message: z.string().check(z.maxLength(512)),
    /** Milliseconds after which a retry makes sense. */
    retry_after_ms: z.optional(z.number()),
  }),
  /** The server stops; sessions live on, reconnect after `retry_after_ms`. */
  z.object({ type: z.literal('goodbye'), retry_after_ms: z.number() }),
]);
export type ServerMessage = z.infer<typeof serverMessageSchema>;

/** What any message has, also one of an unknown type, which a newer side may send: a request can be answered. */
export const messageOutlineSchema = z.object({
  type: z.string().check(z.maxLength(64)),
  id: z.optional(requestId),
});

/**
 * What a sign-in signature covers, after the label `SignatureLabel.signIn`: the URL the peer dialled (so that a
 * relaying server is found out), both nonces, the server's time.
 */
export function signInParts(content: {
  readonly publicUrl: string;
  readonly clientNonce: string;
  readonly serverNonce: string;
  readonly time: number;
}): Bytes {
  return lengthPrefixed(
    utf8(content.publicUrl),
    fromBase64Url(content.clientNonce),
    fromBase64Url(content.serverNonce),
    utf8(String(content.time)),
  );
}

/** `POST /auth/challenge`: request and answer. */
export const authChallengeRequest = z.object({ peer_id: peerIdField, nonce: nonceField });
export const authChallengeAnswer = z.object({ nonce: nonceField, time: timeField });

/** `POST /auth/token`: request and answer. Without a membership the token is good for `POST /claims` only. */
export const authTokenRequest = z.object({
  peer_id: peerIdField,
  nonce: nonceField,
  server_nonce: nonceField,
  time: timeField,
  signature: signatureField,
  membership: z.optional(membershipProofSchema),
  oidc_token: z.optional(z.string().check(z.maxLength(limits.maxOidcTokenBytes))),
});
export const authTokenAnswer = z.object({ access_token: z.string(), expires_in: z.int() });

/** `POST /claims`: request and answer. */
export const claimRequest = z.object({ redemption: redemptionSchema });
export const claimAnswer = z.object({ receipt: jwsField });
