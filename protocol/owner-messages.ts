/**
 * `/cocoon/owner/1`: what a peer asks of a device that holds its owner's secret. One request, then the end; one
 * answer, then the end. All but `renew` need the right `owner: admin`. The secret itself, plugins and
 * configuration are asked for by nobody: there is no message for them.
 */

import * as z from 'zod/mini';
import { key32Field, nameField, ownerIdField, peerIdField, protocolField, timeField } from './fields.ts';
import { limits } from './limits.ts';
import { membershipProofSchema } from './membership.ts';
import { revocationTellSchema } from './revocation.ts';
import { shareProofSchema } from './share.ts';

/** A token as a command asks for it. */
export const tokenRequestSchema = z.object({
  scope: z.enum(['enroll', 'co-own']),
  /** How long the token can be redeemed. */
  expires_s: z.int().check(z.positive()),
  /** End of the right, seconds since 1970. */
  until: z.optional(timeField),
  admin: z.boolean(),
  services: z.array(nameField).check(z.maxLength(limits.maxServices)),
  capabilities: z.array(protocolField).check(z.maxLength(limits.maxCapabilities)),
  /** co-own only: PeerId of the cocoon. */
  cocoon: z.optional(peerIdField),
});
export type TokenRequest = z.infer<typeof tokenRequestSchema>;

export const ownerRequestSchema = z.discriminatedUnion('op', [
  z.object({ op: z.literal('token'), token: tokenRequestSchema }),
  z.object({ op: z.literal('remove_owner'), owner: ownerIdField }),
  z.object({ op: z.literal('revoke'), device: peerIdField }),
  z.object({ op: z.literal('revoke_token'), jti: key32Field }),
  /** A fresh membership for the asker itself, with the rights it has. */
  z.object({ op: z.literal('renew') }),
]);
export type OwnerRequest = z.infer<typeof ownerRequestSchema>;

/** A token as it was signed. */
export const tokenAnswerSchema = z.object({
  token: z.string().check(z.maxLength(limits.maxTokenBytes)),
  scope: z.enum(['enroll', 'co-own']),
  /** Its name: what a rotation of the secret is told to keep. */
  jti: key32Field,
  /** ISO 8601. */
  expires_at: z.string().check(z.maxLength(32)),
  /** WebSocket URL where it is redeemed. */
  signaling: z.string().check(z.maxLength(512)),
});
export type TokenAnswer = z.infer<typeof tokenAnswerSchema>;

/** What was done, with the proof of it, or why it was not. Nothing in it is believed because of who says it. */
export const ownerAnswerSchema = z.object({
  token: z.optional(tokenAnswerSchema),
  membership: z.optional(membershipProofSchema),
  share: z.optional(shareProofSchema),
  /** The signed entry that ends what was asked to end, for all that revokes. */
  revocations: z.optional(revocationTellSchema),
  error: z.optional(
    z.object({
      code: z.string().check(z.maxLength(64)),
      message: z.string().check(z.maxLength(512)),
      hint: z.optional(z.string().check(z.maxLength(512))),
    }),
  ),
});
export type OwnerAnswer = z.infer<typeof ownerAnswerSchema>;
