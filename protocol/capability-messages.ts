/**
 * `/cocoon/capability/1`: one request to one device; choosing the device and trying another one is the asker's matter
 * (`src/capabilities`). The asker opens with what it wants, sends one request and ends its side. The answer is any
 * number of chunks and then an end, or an error. Messages are length-prefixed (`message-stream`). Resetting the stream
 * cancels the request at its provider.
 */

import * as z from 'zod/mini';
import { protocolField, rangeField, versionField } from './fields.ts';
import { jsonOfDepth } from './json.ts';
import { limits } from './limits.ts';

/** A request or an answer: JSON, and beside it whatever is not text. Which parts there are is the capability's matter. */
const contentShape = {
  payload: jsonOfDepth(limits.maxCapabilityJsonDepth),
  parts: z
    .array(z.custom<Uint8Array>((part) => part instanceof Uint8Array))
    .check(z.maxLength(limits.maxCapabilityParts)),
};

/** The OPEN header. `version` is a semver range; the newest provider of the device within it serves. */
export const capabilityRequestOpenSchema = z.object({ protocol: protocolField, version: rangeField });

/** `model:NAME`, `space:ID`, `tools`: what a provider has, and what a request may need. */
export const featureField = z.string().check(z.minLength(1), z.maxLength(256));
export const featuresField = z.array(featureField).check(z.maxLength(limits.maxCapabilityFeatures));

export const capabilityRequestSchema = z.object({
  ...contentShape,
  /** How long the asker waits for the whole answer, milliseconds. */
  timeout_ms: z.int().check(z.positive(), z.lte(limits.maxCapabilityTimeoutMs)),
  /** Requests with the same one go to the same place as long as it can take them, for what it keeps warm. */
  session: z.nullable(z.string().check(z.maxLength(128))),
  /** All of these are needed. */
  features: featuresField,
});
export type CapabilityRequestMessage = z.infer<typeof capabilityRequestSchema>;

/** How busy one provider is. Its load is (`in_flight` + `queued`) / `limit`. */
export const loadSchema = z.object({
  in_flight: z.int().check(z.nonnegative()),
  queued: z.int().check(z.nonnegative()),
  /** At once; more wait. */
  limit: z.int().check(z.positive()),
});
export type ProviderLoad = z.infer<typeof loadSchema>;

const errorText = z.string().check(z.maxLength(1024));

export const capabilityAnswerSchema = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('chunk'), ...contentShape }),
  /** The whole answer, or what follows the last chunk (then mostly null). */
  z.object({
    kind: z.literal('end'),
    ...contentShape,
    version: versionField,
    queue_ms: z.int().check(z.nonnegative()),
    load: loadSchema,
  }),
  z.object({
    kind: z.literal('error'),
    code: z.string().check(z.regex(/^[a-z0-9_]{1,64}$/)),
    message: errorText,
    hint: z.optional(errorText),
    /** With `overloaded`. */
    retry_after_ms: z.optional(z.int().check(z.nonnegative())),
    load: z.nullable(loadSchema),
  }),
]);
export type CapabilityAnswerMessage = z.infer<typeof capabilityAnswerSchema>;

/** Of `/cocoon/describe/1`: what signaling is not told. */
export const capabilityStateSchema = z.object({
  protocol: protocolField,
  version: versionField,
  ...loadSchema.shape,
  /** Loaded: the next request need not wait for that. */
  warm: z.boolean(),
  /** Better than nothing: asked only where nothing of the kind is to be had, such as embeddings that compare words. */
  stand_in: z.boolean(),
  features: featuresField,
});
export type CapabilityState = z.infer<typeof capabilityStateSchema>;
