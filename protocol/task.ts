/**
 * A task: work that has a home device and never leaves it. What others see of it is this; how it is stored and run
 * is the home's matter.
 */

import * as z from 'zod/mini';
import { jsonField } from './json.ts';
import { limits } from './limits.ts';

/** Written out and never reused. */
export const taskStatuses = ['pending', 'running', 'completed', 'failed', 'cancelled'] as const;
export type TaskStatus = (typeof taskStatuses)[number];
export const taskStatusField = z.enum(taskStatuses);

/** UUIDv7 (RFC 9562), lower case: sorts by the time it was made. */
export const taskIdPattern: RegExp = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
export const taskIdField = z.string().check(z.regex(taskIdPattern));

export const taskJsonField = jsonField(limits.maxTaskJsonBytes, limits.maxTaskJsonDepth);

const label = z.string().check(z.regex(/^[a-z0-9]([a-z0-9._/-]{0,62}[a-z0-9])?$/));
/** `docker`, `gpu`, `memory>=8g`, `label:fast`, `capability:llm.chat@^1.0.0`. */
export const requirementField = z.string().check(z.minLength(1), z.maxLength(128), z.regex(/^[\x21-\x7e]+$/));
/** No control characters: titles are shown in lists and terminals. */
const titleField = z
  .string()
  .check(z.minLength(1), z.maxLength(limits.maxTaskTitleLength), z.regex(/^[^\p{Cc}\p{Cs}]+$/u));
const textField = (max: number) => z.string().check(z.maxLength(max), z.regex(/^[^\0\p{Cs}]*$/u));

/** What makes a task; everything else its home decides. */
export const taskDraftSchema = z.strictObject({
  title: titleField,
  description: z.optional(textField(limits.maxTaskDescriptionLength)),
  /** Run by `sh -c` at its home. Without one somebody else completes the task. */
  command: z.optional(textField(limits.maxTaskCommandLength)),
  input: z.optional(taskJsonField),
  labels: z.optional(z.array(label).check(z.maxLength(32))),
  requires: z.optional(z.array(requirementField).check(z.maxLength(32))),
  /** Milliseconds after which a run is ended; absent: none. */
  timeout_ms: z.optional(z.int().check(z.positive(), z.lte(limits.maxTaskTimeoutMs))),
});
export type TaskDraft = z.infer<typeof taskDraftSchema>;

/** A row of a list: everything but what can be large. */
export const taskRowSchema = z.object({
  id: taskIdField,
  title: titleField,
  status: taskStatusField,
  command: z.nullable(z.string()),
  labels: z.array(z.string()),
  requires: z.array(z.string()),
  exit_code: z.nullable(z.int()),
  /** Why it failed, in a sentence. */
  error: z.nullable(z.string()),
  /** ISO 8601 in UTC with milliseconds. */
  created_at: z.string(),
  updated_at: z.string(),
  started_at: z.nullable(z.string()),
  finished_at: z.nullable(z.string()),
  /** Rises with each change; a change that names an older one is refused. */
  version: z.int().check(z.positive()),
});
export type TaskRow = z.infer<typeof taskRowSchema>;

export const taskSchema = z.object({
  ...taskRowSchema.shape,
  description: z.string(),
  input: taskJsonField,
  output: taskJsonField,
  timeout_ms: z.nullable(z.int()),
});
export type Task = z.infer<typeof taskSchema>;

/** What may be changed; the version that the change was made from guards against another one in between. */
export const taskChangeSchema = z.strictObject({
  title: z.optional(titleField),
  description: z.optional(textField(limits.maxTaskDescriptionLength)),
  status: z.optional(taskStatusField),
  output: z.optional(taskJsonField),
  labels: z.optional(z.array(label).check(z.maxLength(32))),
  version: z.optional(z.int().check(z.positive())),
});
export type TaskChange = z.infer<typeof taskChangeSchema>;

export const taskOrders = ['created', 'updated'] as const;
export type TaskOrder = (typeof taskOrders)[number];

/** Strict: a filter that is not understood must not widen the answer. */
export const taskFilterSchema = z.strictObject({
  status: z.optional(z.array(taskStatusField).check(z.minLength(1), z.maxLength(taskStatuses.length))),
  /** All of these. */
  labels: z.optional(z.array(label).check(z.maxLength(32))),
  /** Newest first. */
  order: z.optional(z.enum(taskOrders)),
  /** ISO 8601: made at or after, before. */
  created_after: z.optional(z.iso.datetime({ offset: true })),
  created_before: z.optional(z.iso.datetime({ offset: true })),
});
export type TaskFilter = z.infer<typeof taskFilterSchema>;

/** Counts; those of several devices add up. */
export const taskStatsSchema = z.object({
  total: z.int().check(z.nonnegative()),
  by_status: z.record(taskStatusField, z.int().check(z.nonnegative())),
});
export type TaskStats = z.infer<typeof taskStatsSchema>;

/** Changes of status that make sense; a task that has ended stays as it is. */
export const nextStatuses: Readonly<Record<TaskStatus, readonly TaskStatus[]>> = {
  pending: ['running', 'completed', 'failed', 'cancelled'],
  running: ['completed', 'failed', 'cancelled'],
  completed: [],
  failed: [],
  cancelled: [],
};
