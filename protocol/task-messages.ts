/**
 * `/cocoon/tasks/1`: one request about tasks of the device that is asked, then the end; answers, then the end. The
 * OPEN header says what kind of right it takes (`stream-rights.ts`); a request of another kind is `bad_message`.
 * Messages are length-prefixed (`message-stream`); `logs` is answered by as many as there are, all else by one.
 */

import * as z from 'zod/mini';
import { limits } from './limits.ts';
import { requirementField, taskChangeSchema, taskDraftSchema, taskIdField, taskSchema } from './task.ts';

export const taskRequestSchema = z.discriminatedUnion('op', [
  z.object({ op: z.literal('create'), task: taskDraftSchema, run: z.boolean() }),
  z.object({ op: z.literal('get'), id: taskIdField }),
  z.object({ op: z.literal('update'), id: taskIdField, change: taskChangeSchema }),
  z.object({ op: z.literal('delete'), id: taskIdField }),
  z.object({ op: z.literal('run'), id: taskIdField }),
  z.object({ op: z.literal('cancel'), id: taskIdField }),
  /** From byte `offset` on; `follow` until the task has ended. */
  z.object({
    op: z.literal('logs'),
    id: taskIdField,
    offset: z.int().check(z.nonnegative()),
    follow: z.boolean(),
  }),
  /** Could a task with these requirements run here? */
  z.object({ op: z.literal('can_run'), requires: z.array(requirementField).check(z.maxLength(32)) }),
]);
export type TaskRequest = z.infer<typeof taskRequestSchema>;

/** The verb of each request. */
export const taskVerbs = {
  get: 'read',
  logs: 'read',
  can_run: 'read',
  create: 'write',
  update: 'write',
  delete: 'write',
  cancel: 'write',
  /** Also a `create` that runs at once. */
  run: 'run',
} as const;

export const taskAnswerSchema = z.object({
  task: z.optional(taskSchema),
  /** A piece of the log, as it was written: text of whatever encoding the program used. */
  log: z.optional(
    z.object({
      bytes: z.instanceof(Uint8Array),
      /** Where it stands in all that was ever written; a gap means that the oldest part was dropped. */
      offset: z.int().check(z.nonnegative()),
    }),
  ),
  /** Requirements that are not met; none: it could run. */
  missing: z.optional(z.array(z.string().check(z.maxLength(256))).check(z.maxLength(32))),
  error: z.optional(
    z.object({
      code: z.string().check(z.maxLength(64)),
      message: z.string().check(z.maxLength(1024)),
      hint: z.optional(z.string().check(z.maxLength(512))),
    }),
  ),
});
export type TaskAnswer = z.infer<typeof taskAnswerSchema>;

export const maxTaskMessageBytes = limits.maxTaskMessageBytes;
