/**
 * What a device tells of itself over a session and not to signaling: how its services do,
 * and what its capabilities have. One answer per stream
 * of `/cocoon/describe/1`, MessagePack, then the end; the asker sends nothing but its OPEN, whose header is empty.
 */

import * as z from 'zod/mini';
import { capabilityStateSchema } from './capability-messages.ts';
import { nameField, serviceType } from './fields.ts';
import { limits } from './limits.ts';

export const describeProtocol = '/cocoon/describe/1';

/** 64 services with their names are about 6 KiB; the rest is for what providers have, such as models. */
export const maxDescriptionBytes = 256 * 1024;

export const descriptionSchema = z.object({
  /** Those that the asker may use. */
  services: z
    .array(
      z.object({
        name: nameField,
        type: serviceType,
        port: z.int().check(z.gte(1), z.lte(65_535)),
        /** Null: not asked yet. */
        healthy: z.nullable(z.boolean()),
      }),
    )
    .check(z.maxLength(limits.maxServices)),
  /** Those that the asker may use, with what signaling is not told of them. */
  capabilities: z.array(capabilityStateSchema).check(z.maxLength(limits.maxCapabilities)),
});
export type Description = z.infer<typeof descriptionSchema>;
