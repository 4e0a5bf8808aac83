import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { check, decode, encode } from './codec.ts';
import type { Json } from './json.ts';
import { limits } from './limits.ts';
import { sampleTask, sampleTaskAnswers, sampleTaskRequests, sampleTaskRow } from './sample-messages.ts';
import type { TaskDraft } from './task.ts';
import {
  nextStatuses,
  taskChangeSchema,
  taskDraftSchema,
  taskFilterSchema,
  taskIdField,
  taskRowSchema,
  taskSchema,
  taskStatsSchema,
  taskStatuses,
} from './task.ts';
import { taskAnswerSchema, taskRequestSchema, taskVerbs } from './task-messages.ts';

const refused = { code: 'bad_message' };
const draft = (field: string, value: unknown): unknown => ({ title: 'x', [field]: value });

describe('a task', () => {
  it('is made from a title, and from what else is known and within its limit', () => {
    assert.deepEqual(check(taskDraftSchema, { title: 'x' }), { title: 'x' });
    for (const [field, good, bad] of [
      ['title', 'ü'.repeat(limits.maxTaskTitleLength), 'x'.repeat(limits.maxTaskTitleLength + 1)],
      ['title', 'a b', ''],
      ['title', '🦋', '\ud83e'],
      ['title', '‮', 'a\tb'],
      ['description', 'a\tb\n', 'a\u0000b'],
      ['description', '', '\udfff'],
      ['command', 'x'.repeat(limits.maxTaskCommandLength), 'x'.repeat(limits.maxTaskCommandLength + 1)],
      ['input', null, Infinity],
      ['labels', ['a', 'a/b.c_d-e', '9'], ['A']],
      ['labels', [], ['-a']],
      ['labels', ['x'.repeat(64)], ['x'.repeat(65)]],
      ['requires', ['memory>=8g', 'capability:llm.chat@^1.0.0'], ['a b']],
      ['timeout_ms', limits.maxTaskTimeoutMs, limits.maxTaskTimeoutMs + 1],
      ['timeout_ms', 1, 0],
    ] as const) {
      check(taskDraftSchema, draft(field, good));
      assert.throws(() => check(taskDraftSchema, draft(field, bad)), refused, `${field} ${String(bad)}`);
    }
    for (const field of ['id', 'status', 'output', 'version', 'home'])
      assert.throws(() => check(taskDraftSchema, draft(field, 'completed')), refused, field);
  });

  it('has an id that is a UUID of version 7 in its one spelling', () => {
    check(taskIdField, sampleTask.id);
    for (const bad of [
      sampleTask.id.toUpperCase(),
      sampleTask.id.replace('-7', '-4'),
      sampleTask.id.replace('-8', '-7'),
      `${sampleTask.id} `,
      sampleTask.id.replaceAll('-', ''),
      '',
    ])
      assert.throws(() => check(taskIdField, bad), refused, bad);
  });

  it('has rows that are the task without what can be large', () => {
    assert.deepEqual(check(taskRowSchema, sampleTask), sampleTaskRow);
    assert.deepEqual(check(taskSchema, sampleTask), sampleTask);
  });

  it('is changed in what is named, and in nothing that its home decides', () => {
    for (const change of [{}, { title: 'y' }, { status: 'cancelled', version: 1 }, { output: null }])
      assert.deepEqual(check(taskChangeSchema, change), change);
    for (const change of [{ command: 'rm' }, { exit_code: 0 }, { id: sampleTask.id }, { version: 0 }])
      assert.throws(() => check(taskChangeSchema, change), refused);
  });

  it('that has ended has no status before it, and every other can still end', () => {
    for (const status of taskStatuses) {
      const next = nextStatuses[status];
      assert.equal(next.includes(status), false);
      assert.equal(next.length === 0, ['completed', 'failed', 'cancelled'].includes(status), status);
      assert.equal(next.includes('pending'), false);
    }
  });

  it('is counted in every status', () => {
    const by_status = { pending: 1, running: 0, completed: 2, failed: 0, cancelled: 0 };
    assert.deepEqual(check(taskStatsSchema, { total: 3, by_status }), { total: 3, by_status });
    const { running: _, ...fewer } = by_status;
    assert.throws(() => check(taskStatsSchema, { total: 3, by_status: fewer }), refused);
  });
});

describe('a filter of tasks', () => {
  it('that is not understood is refused, not ignored', () => {
    const created_after = '2026-01-01T01:00:00+01:00';
    for (const filter of [{}, { status: ['failed'] }, { labels: ['a'], order: 'updated', created_after }])
      assert.deepEqual(check(taskFilterSchema, filter), filter);
    for (const filter of [
      { state: ['failed'] },
      { status: [] },
      { status: 'failed' },
      { status: ['done'] },
      { order: 'title' },
      { created_after: '2026-01-01' },
      { created_before: '2026-13-01T00:00:00Z' },
    ])
      assert.throws(() => check(taskFilterSchema, filter), refused, JSON.stringify(filter));
  });
});

describe('a message about tasks', () => {
  it('is one of eight requests, each with its verb', () => {
    const ops = sampleTaskRequests.map(({ op }) => op);
    assert.deepEqual(ops.toSorted(), Object.keys(taskVerbs).toSorted());
    assert.equal(taskRequestSchema.def.options.length, ops.length);
    assert.throws(() => check(taskRequestSchema, { op: 'sign' }), { code: 'unsupported' });
  });

  it('is never longer than a message may be', () => {
    // What MessagePack makes longest: a fraction is four bytes of JSON with its comma, and nine here.
    const fractions = Array.from({ length: limits.maxTaskJsonBytes / 4 - 1 }, () => 0.5);
    const large = {
      ...sampleTask,
      title: '日'.repeat(limits.maxTaskTitleLength),
      description: '日'.repeat(limits.maxTaskDescriptionLength),
      command: '日'.repeat(limits.maxTaskCommandLength),
      input: fractions,
      output: fractions,
    };
    const bytes = encode(taskAnswerSchema, { task: large });
    const { task } = decode(taskAnswerSchema, bytes, limits.maxTaskMessageBytes);
    assert.deepEqual(task?.input, fractions);
  });

  it('carries JSON of every depth that a task may have', () => {
    let input: Json = 0;
    for (let level = 0; level < limits.maxTaskJsonDepth; level++) input = { a: input };
    const task: TaskDraft = { title: 'deep', input };
    const request = { op: 'create', task, run: false } as const;
    const bytes = encode(taskRequestSchema, request);
    assert.deepEqual(decode(taskRequestSchema, bytes, limits.maxTaskMessageBytes), request);
  });

  it('keeps the bytes of a log as they were written', () => {
    const [, answer] = sampleTaskAnswers;
    const bytes = encode(taskAnswerSchema, answer ?? {});
    const { log } = decode(taskAnswerSchema, bytes, limits.maxTaskMessageBytes);
    assert.deepEqual([...(log?.bytes ?? [])], [0x68, 0x69, 0xff, 0x0a]);
  });
});
