/**
 * What two peers say to each other before any stream is open: HELLO. It travels as one frame under Noise, so
 * nothing in it can be changed or read on the way. Protocols on streams declare their own headers.
 */

import * as z from 'zod/mini';
import type { Bytes } from './bytes.ts';
import { encode } from './codec.ts';
import { MeshError } from './errors.ts';
import { jwsField, nonceField } from './fields.ts';
import { limits } from './limits.ts';
import { membershipProofSchema } from './membership.ts';
import { helloRevocationsSchema } from './revocation.ts';
import { shareProofSchema } from './share.ts';

export const helloSchema = z.object({
  /** All that the sender speaks, best first. */
  versions: z.array(z.string().check(z.maxLength(32))).check(z.minLength(1), z.maxLength(16)),
  /** All carriers that the sender could use to this peer, best first. */
  carriers: z.array(z.string().check(z.maxLength(16))).check(z.minLength(1), z.maxLength(8)),
  engine: z.string().check(z.maxLength(32)),
  /** New with each start of the process; a resume needs the same one. */
  instance: nonceField,
  membership: membershipProofSchema,
  /** Written for the other side's owner. */
  record: jwsField,
  /** To a cocoon of another owner: why I may come. */
  share: z.optional(shareProofSchema),
  /** I hold my owner's secret, so I can be asked to sign. */
  signs: z.optional(z.boolean()),
  revocations: z.array(helloRevocationsSchema).check(z.maxLength(limits.maxRevocationLists)),
  /** Streams the sender accepts at once. */
  max_streams: z.int().check(z.positive()),
  /** Only to continue a parked session on a new carrier. */
  resume: z.optional(
    z.object({
      session: nonceField,
      generation: z.int().check(z.positive()),
      /** Numbered frames received in order. */
      received: z.int().check(z.nonnegative()),
    }),
  ),
});
export type Hello = z.infer<typeof helloSchema>;

/**
 * HELLO within its limit: where chains are long after many rotations, with fewer of the older revocations, which the
 * other side asks for on a stream.
 * @throws MeshError bad_message | message_too_large when the rest is too large by itself
 */
export function encodeHello(hello: Hello): Bytes {
  for (let most: number = limits.maxHelloRevocations; ; most = Math.floor(most / 2)) {
    const revocations = hello.revocations.map((list) => ({
      ...list,
      entries: most === 0 ? [] : list.entries.slice(-most),
    }));
    const bytes = encode(helloSchema, { ...hello, revocations });
    if (bytes.length <= limits.maxHelloBytes) return bytes;
    if (most === 0)
      throw new MeshError('message_too_large', `HELLO has ${bytes.length} bytes, its chains are too long`);
  }
}
