/**
 * `/cocoon/query/1`: one question to one device; many devices are asked at once (`src/query`). The asker sends one
 * request and ends its side; parts come back as they are found, the last one says so. Messages are length-prefixed
 * (`message-stream`). Resetting the stream cancels the query at the device.
 */

import * as z from 'zod/mini';
import { jsonField, jsonOfDepth } from './json.ts';
import { limits } from './limits.ts';

export const queryTypes = [
  'list_tasks',
  'get_task_stats',
  'search_tasks',
  'search_knowledgebase',
  'custom',
] as const;
export type QueryType = (typeof queryTypes)[number];

/** The capability whose devices are asked. `custom`: whatever its plugin says. */
export const queryCapability: Readonly<Record<Exclude<QueryType, 'custom'>, string>> = {
  list_tasks: 'tasks',
  get_task_stats: 'tasks',
  search_tasks: 'tasks',
  search_knowledgebase: 'knowledgebase',
};

/** In the OPEN header, so that rights are known before anything else. */
export const queryOpenSchema = z.object({ type: z.enum(queryTypes) });

const position = z.string().check(z.maxLength(limits.maxQueryPositionLength));

export const queryRequestSchema = z.object({
  type: z.enum(queryTypes),
  params: jsonField(limits.maxQueryParamsBytes, 16),
  /** Rows at most. */
  limit: z.int().check(z.positive(), z.lte(limits.maxQueryRows)),
  /** Rows behind this one; of this device, opaque to the asker. Null: from the start. */
  after: z.nullable(position),
  /** How long the asker waits, milliseconds. */
  timeout_ms: z.int().check(z.positive(), z.lte(limits.maxQueryTimeoutMs)),
  /** What the asker holds of this answer, as JSON; rows that do not fit are `more`. */
  max_bytes: z.int().check(z.positive(), z.lte(limits.maxQueryAnswerBytes)),
});
export type QueryRequest = z.infer<typeof queryRequestSchema>;

/**
 * A row as its device answers it. `key` is what rows are merged by, compared part by part, descending: numbers
 * before, texts by code unit. `at` is the position behind the row.
 */
export const queryRowSchema = z.object({
  key: z
    .array(z.union([z.number(), z.string().check(z.maxLength(256))]))
    .check(z.minLength(1), z.maxLength(4)),
  at: position,
  value: jsonOfDepth(limits.maxQueryRowDepth),
});
export type QueryRow = z.infer<typeof queryRowSchema>;

export const queryPartSchema = z.discriminatedUnion('kind', [
  z.object({
    kind: z.literal('part'),
    /** 0 for the first; a repeated one is ignored, a missing one breaks the answer. */
    seq: z.int().check(z.nonnegative()),
    rows: z.array(queryRowSchema).check(z.maxLength(limits.maxQueryRows)),
    is_final: z.boolean(),
    /** In the last one: there are rows behind these. */
    more: z.optional(z.boolean()),
  }),
  z.object({
    kind: z.literal('error'),
    code: z.string().check(z.regex(/^[a-z0-9_]{1,64}$/)),
    message: z.string().check(z.maxLength(1024)),
  }),
]);
export type QueryPart = z.infer<typeof queryPartSchema>;

/** What became of one device. */
export const deviceAnswerStatuses = ['ok', 'timeout', 'offline', 'denied', 'error'] as const;
export type DeviceAnswerStatus = (typeof deviceAnswerStatuses)[number];

/** One device's share in a merged answer; as in the gateway's JSON. */
export interface DeviceAnswer {
  readonly id: string;
  readonly name: string;
  readonly status: DeviceAnswerStatus;
  /** Rows that came. */
  readonly count: number;
  readonly ms: number;
  readonly error?: { readonly code: string; readonly message: string };
}
