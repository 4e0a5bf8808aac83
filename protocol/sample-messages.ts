/** One message of each kind about tasks, queries and capabilities: for vectors and tests. */

import type { Bytes } from './bytes.ts';
import type { CapabilityAnswerMessage, CapabilityRequestMessage } from './capability-messages.ts';
import { capabilityAnswerSchema, capabilityRequestSchema } from './capability-messages.ts';
import type { Schema } from './codec.ts';
import { decode, encode } from './codec.ts';
import type { Description } from './describe-messages.ts';
import { descriptionSchema, maxDescriptionBytes } from './describe-messages.ts';
import { limits } from './limits.ts';
import type { QueryPart, QueryRequest } from './query-messages.ts';
import { queryPartSchema, queryRequestSchema } from './query-messages.ts';
import type { Task, TaskRow } from './task.ts';
import type { TaskAnswer, TaskRequest } from './task-messages.ts';
import { taskAnswerSchema, taskRequestSchema } from './task-messages.ts';

const id = '019b76da-a800-7000-8000-000000000001';

export const sampleTaskRow: TaskRow = {
  id,
  title: 'Überprüfe 日本',
  status: 'failed',
  command: 'make test',
  labels: ['nightly', 'ci/main'],
  requires: ['docker', 'memory>=8g'],
  exit_code: 2,
  error: 'The command ended with 2',
  created_at: '2026-01-01T00:00:00.000Z',
  updated_at: '2026-01-01T00:00:05.000Z',
  started_at: '2026-01-01T00:00:01.000Z',
  finished_at: '2026-01-01T00:00:05.000Z',
  version: 3,
};

export const sampleTask: Task = {
  ...sampleTaskRow,
  description: 'Two\nlines',
  input: { branch: 'main', retries: 2, flags: [true, null, -0.5] },
  output: null,
  timeout_ms: 60_000,
};

export const sampleTaskRequests: readonly TaskRequest[] = [
  {
    op: 'create',
    task: {
      title: 'Überprüfe 日本',
      description: 'Two\nlines',
      command: 'make test',
      input: sampleTask.input,
      labels: ['nightly'],
      requires: ['docker'],
      timeout_ms: 60_000,
    },
    run: true,
  },
  { op: 'get', id },
  {
    op: 'update',
    id,
    change: {
      title: 'Another',
      description: '',
      status: 'completed',
      output: [1, 'two'],
      labels: [],
      version: 3,
    },
  },
  { op: 'delete', id },
  { op: 'run', id },
  { op: 'cancel', id },
  { op: 'logs', id, offset: 2 ** 40, follow: true },
  { op: 'can_run', requires: ['docker', 'capability:llm.chat@^1.0.0'] },
];

export const sampleTaskAnswers: readonly TaskAnswer[] = [
  { task: sampleTask },
  { log: { bytes: new Uint8Array([0x68, 0x69, 0xff, 0x0a]), offset: 0 } },
  { missing: ['docker'] },
  { error: { code: 'task_not_found', message: 'There is no task with that id', hint: 'Look again.' } },
  {},
];

export const sampleQueryRequests: readonly QueryRequest[] = [
  {
    type: 'list_tasks',
    params: { status: ['failed'], order: 'updated' },
    limit: 50,
    after: null,
    timeout_ms: 5_000,
    max_bytes: 1024 * 1024,
  },
  {
    type: 'search_knowledgebase',
    params: { text: 'heron' },
    limit: 1,
    after: 's:1',
    timeout_ms: 1,
    max_bytes: 1,
  },
];

export const sampleQueryParts: readonly QueryPart[] = [
  {
    kind: 'part',
    seq: 0,
    rows: [{ key: [1_767_225_600_000, id], at: `c:1767225600000:${id}`, value: { ...sampleTaskRow } }],
    is_final: false,
  },
  { kind: 'part', seq: 1, rows: [], is_final: true, more: true },
  { kind: 'error', code: 'bad_filter', message: 'The filter was not understood' },
];

export const sampleCapabilityRequests: readonly CapabilityRequestMessage[] = [
  {
    payload: { input: ['Überprüfe 日本', 'x'], dimensions: 384 },
    parts: [],
    timeout_ms: 30_000,
    session: null,
    features: ['space:cocoon-lexical-v1'],
  },
  {
    payload: null,
    parts: [Uint8Array.of(0, 255), new Uint8Array()],
    timeout_ms: 1,
    session: 'chat-1',
    features: [],
  },
];

export const sampleCapabilityAnswers: readonly CapabilityAnswerMessage[] = [
  { kind: 'chunk', payload: { delta: 'Hel' }, parts: [] },
  {
    kind: 'end',
    payload: { count: 1, dimensions: 1 },
    parts: [Uint8Array.of(0, 0, 128, 63)],
    version: '1.2.0',
    queue_ms: 12,
    load: { in_flight: 1, queued: 0, limit: 4 },
  },
  {
    kind: 'error',
    code: 'overloaded',
    message: 'All places are taken',
    hint: 'Try again in 2 s.',
    retry_after_ms: 1_500,
    load: { in_flight: 4, queued: 16, limit: 4 },
  },
  { kind: 'error', code: 'capability_not_found', message: 'Not offered', load: null },
];

export const sampleDescriptions: readonly Description[] = [
  {
    services: [{ name: 'web', type: 'http', port: 3000, healthy: null }],
    capabilities: [
      {
        protocol: 'llm.chat',
        version: '1.0.0',
        in_flight: 1,
        queued: 2,
        limit: 4,
        warm: true,
        stand_in: false,
        features: ['model:small', 'tools'],
      },
    ],
  },
];

interface Encoding {
  readonly message: unknown;
  readonly msgpack: Bytes;
  /** With the schema that wrote it. */
  read(bytes: Bytes): unknown;
}

function encodings<T>(schema: Schema<T>, messages: readonly T[], maxBytes: number): readonly Encoding[] {
  return messages.map((message) => ({
    message,
    msgpack: encode(schema, message),
    read: (bytes) => decode(schema, bytes, maxBytes),
  }));
}

/** Each message as it goes over a stream, behind its length. */
export function sampleStreamEncodings() {
  return {
    task_requests: encodings(taskRequestSchema, sampleTaskRequests, limits.maxTaskMessageBytes),
    task_answers: encodings(taskAnswerSchema, sampleTaskAnswers, limits.maxTaskMessageBytes),
    query_requests: encodings(queryRequestSchema, sampleQueryRequests, limits.maxQueryPartBytes),
    query_parts: encodings(queryPartSchema, sampleQueryParts, limits.maxQueryPartBytes),
    capability_requests: encodings(
      capabilityRequestSchema,
      sampleCapabilityRequests,
      limits.maxCapabilityMessageBytes,
    ),
    capability_answers: encodings(
      capabilityAnswerSchema,
      sampleCapabilityAnswers,
      limits.maxCapabilityMessageBytes,
    ),
    descriptions: encodings(descriptionSchema, sampleDescriptions, maxDescriptionBytes),
  };
}
