/**
 * What the daemon and the process of a plugin tell each other, over a pipe of their own. The process is code that
 * somebody else wrote, so whatever comes from it passes these schemas; what it is told does too.
 */

import type { ErrorCode } from '@cocoon-mesh/protocol';
import { featureField } from '@cocoon-mesh/protocol/capability-messages.ts';
import { isErrorCode } from '@cocoon-mesh/protocol/errors.ts';
import { capabilityField, protocolField, rangeField, versionField } from '@cocoon-mesh/protocol/fields.ts';
import { jsonField, jsonOfDepth } from '@cocoon-mesh/protocol/json.ts';
import { limits } from '@cocoon-mesh/protocol/limits.ts';
import * as z from 'zod/mini';

/** Of one message: a content of the largest kind, and what stands around it. */
export const maxPluginMessageBytes = limits.maxCapabilityMessageBytes + 64 * 1024;
/** What one side may send of one answer before the other has read of it. */
export const answerWindowBytes = 256 * 1024;

const id = z.int().check(z.nonnegative());
const bytes = z.int().check(z.positive());
const text = z.string().check(z.maxLength(4096));
const shortText = z.string().check(z.maxLength(256));
const part = z.custom<Uint8Array>((value) => value instanceof Uint8Array);
const content = {
  payload: jsonOfDepth(limits.maxCapabilityJsonDepth),
  parts: z.array(part).check(z.maxLength(limits.maxCapabilityParts)),
};
const features = z.array(featureField).check(z.maxLength(limits.maxCapabilityFeatures));
const session = z.nullable(z.string().check(z.maxLength(128)));
const code = z.string().check(z.regex(/^[a-z0-9_]{1,64}$/));

const milliseconds = z.nullable(z.int().check(z.positive(), z.lte(limits.maxCapabilityTimeoutMs)));
const schemaField = z.nullable(z.union([z.boolean(), z.record(z.string(), jsonOfDepth(64))]));

const targetSchema = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('capability'), protocol: protocolField, version: versionField }),
  z.object({ kind: z.literal('query'), name: shortText }),
]);
export type RequestTarget = z.infer<typeof targetSchema>;

const sourceSchema = z.object({
  device: shortText,
  deviceId: shortText,
  version: shortText,
  attempts: z.int(),
  queueMs: z.number(),
  totalMs: z.number(),
  insteadOf: z.nullable(
    z.object({ device: shortText, code: z.custom<ErrorCode>(isErrorCode), reason: text }),
  ),
});

export const toPluginSchema = z.discriminatedUnion('kind', [
  z.object({
    kind: z.literal('start'),
    main: text,
    name: shortText,
    version: versionField,
    capabilities: z.array(
      z.object({
        protocol: protocolField,
        version: versionField,
        payload: schemaField,
        answer: schemaField,
        chunk: schemaField,
        streams: z.boolean(),
      }),
    ),
    settings: jsonField(1024 * 1024, 32),
    data_dir: text,
  }),
  z.object({
    kind: z.literal('request'),
    id,
    target: targetSchema,
    ...content,
    from: z.object({ id: shortText, name: shortText }),
    session,
    features,
    /** Bytes of the answer that may come before more are granted. */
    window: bytes,
  }),
  /** Of a request. */
  z.object({ kind: z.literal('cancel'), id, code }),
  z.object({ kind: z.literal('grant'), id, bytes }),
  z.object({ kind: z.literal('ping'), id }),
  z.object({ kind: z.literal('stop') }),
  /** What the plugin asked. */
  z.object({
    kind: z.literal('asked_device'),
    id,
    device: shortText,
    device_id: shortText,
    attempts: z.int(),
  }),
  z.object({ kind: z.literal('asked_chunk'), id, ...content }),
  z.object({ kind: z.literal('asked_end'), id, ...content, source: sourceSchema }),
  z.object({ kind: z.literal('asked_error'), id, code, message: text, hint: text }),
]);
export type ToPlugin = z.infer<typeof toPluginSchema>;

export const fromPluginSchema = z.discriminatedUnion('kind', [
  z.object({
    kind: z.literal('ready'),
    queries: z.array(shortText).check(z.maxLength(64)),
  }),
  /** It cannot start, or cannot go on; its end follows. */
  z.object({ kind: z.literal('failed'), message: text }),
  z.object({ kind: z.literal('chunk'), id, ...content }),
  z.object({ kind: z.literal('end'), id, ...content }),
  z.object({ kind: z.literal('error'), id, code: z.nullable(code), message: text }),
  z.object({ kind: z.literal('pong'), id, rss_bytes: z.int().check(z.nonnegative()) }),
  z.object({
    kind: z.literal('log'),
    level: z.enum(['debug', 'info', 'warn', 'error']),
    message: text,
    fields: jsonField(16 * 1024, 8),
  }),
  z.object({
    kind: z.literal('ask'),
    id,
    ...capabilityField.shape,
    version: rangeField,
    ...content,
    prefer_device: z.nullable(shortText),
    only_device: z.nullable(shortText),
    session,
    features,
    timeout_ms: milliseconds,
    first_answer_ms: milliseconds,
    window: bytes,
  }),
  z.object({ kind: z.literal('ask_cancel'), id }),
  z.object({ kind: z.literal('ask_grant'), id, bytes }),
  z.object({ kind: z.literal('stopped') }),
]);
export type FromPlugin = z.infer<typeof fromPluginSchema>;
