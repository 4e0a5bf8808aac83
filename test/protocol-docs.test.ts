/*
 * `docs/protocol.md` and `docs/errors.md` against the code, both ways: what the code has stands in the tables,
 * and what stands in the tables is in the code. A table follows its mark, `<!-- table: name -->`.
 */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { RevocationKind } from '@cocoon-mesh/protocol';
import {
  FrameFlag,
  FrameType,
  RecordKind,
  ResetCode,
  RightProtocol,
  SignatureLabel,
  Verb,
  capabilityAnswerSchema,
  capabilityRequestSchema,
  capabilityStateSchema,
  clientMessageSchema,
  errorCodes,
  fromBase64Url,
  fromUtf8,
  helloSchema,
  limits,
  ownerRequestSchema,
  queryPartSchema,
  queryRequestSchema,
  queryTypes,
  serverMessageSchema,
  sessionVersions,
  signalingSubprotocols,
  signedTypes,
  streamProtocols,
  taskChangeSchema,
  taskDraftSchema,
  taskRequestSchema,
  taskRowSchema,
  taskSchema,
  taskStatuses,
  taskVerbs,
  tokenAnswerSchema,
  tokenRequestSchema,
} from '@cocoon-mesh/protocol';
import { sampleObjects, sampleSigned } from '@cocoon-mesh/protocol/sample-objects.ts';
import { projectRoot } from './source-files.ts';

const text = readFileSync(join(projectRoot, 'docs', 'protocol.md'), 'utf8');

/** Rows of a table without its head, cells without blanks and code marks. */
function rowsOf(lines: readonly string[]): string[][] {
  const end = lines.findIndex((line) => !line.startsWith('|'));
  return lines.slice(2, end < 0 ? undefined : end).map((line) =>
    line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim()),
  );
}

function table(name: string): string[][] {
  const lines = text.split('\n');
  const mark = lines.indexOf(`<!-- table: ${name} -->`);
  assert.ok(mark >= 0, `docs/protocol.md has no table ${name}`);
  return rowsOf(lines.slice(mark + 1));
}

function plain(cell: string | undefined): string {
  return (cell ?? '').replaceAll('`', '');
}

function sorted(names: Iterable<string>): string[] {
  return [...names].toSorted();
}

/** A field's schema as far as a table tells it. */
interface Field {
  readonly _zod: { readonly optin?: 'optional' | undefined };
}
type Shape = Readonly<Record<string, Field>>;

function fieldsOf(shape: Shape): string[] {
  return Object.entries(shape).map(([name, field]) => (field._zod.optin === 'optional' ? `${name}?` : name));
}

interface MessageSchema {
  readonly def: {
    readonly shape: Shape & { readonly type: { readonly def: { readonly values: readonly string[] } } };
  };
}

interface OperationSchema {
  readonly def: {
    readonly shape: Shape & { readonly op: { readonly def: { readonly values: readonly string[] } } };
  };
}

interface KindSchema {
  readonly def: {
    readonly shape: Shape & { readonly kind: { readonly def: { readonly values: readonly string[] } } };
  };
}

function messagesOf(schema: {
  readonly def: { readonly options: readonly unknown[] };
}): Map<string, string[]> {
  const messages = (schema.def.options as MessageSchema[]).map(({ def }): [string, string[]] => {
    const { type, ...fields } = def.shape;
    return [type.def.values[0] ?? '', fieldsOf(fields)];
  });
  return new Map(messages);
}

describe('the tables of docs/protocol.md', () => {
  it('have the frame types, flags, record kinds and reset codes', () => {
    const numbers = (name: string) => table(name).map(([number, label]) => [plain(label), Number(number)]);
    const upper = Object.entries(FrameType).map(([name, number]) => [name.toUpperCase(), number]);
    assert.deepEqual(numbers('frame-types'), upper);
    assert.deepEqual(numbers('reset-codes'), Object.entries(ResetCode));
    assert.deepEqual(numbers('record-kinds'), Object.entries(RecordKind));
    const flags = table('flags').map(([name, value]) => [plain(name), Number(value)]);
    const { none: _, ...named } = FrameFlag;
    assert.deepEqual(flags, Object.entries(named));
  });

  it('have every message with its direction and fields', () => {
    const client = messagesOf(clientMessageSchema);
    const server = messagesOf(serverMessageSchema);
    const expected = sorted(new Set([...client.keys(), ...server.keys()]));
    assert.deepEqual(sorted(table('messages').map(([name]) => plain(name))), expected);
    for (const [cell, direction, fields] of table('messages')) {
      const name = plain(cell);
      const ways = [client.has(name), server.has(name)].join();
      const arrow = { 'true,true': 'both', 'true,false': 'peer → server', 'false,true': 'server → peer' }[
        ways
      ];
      assert.equal(direction, arrow, name);
      const documented = sorted(plain(fields).split(', '));
      for (const schema of [client, server])
        if (schema.has(name)) assert.deepEqual(documented, sorted(schema.get(name) ?? []), name);
    }
  });

  it('have every field of HELLO', () => {
    const documented = table('hello').map(([field]) => plain(field));
    assert.deepEqual(sorted(documented), sorted(fieldsOf(helloSchema.def.shape as unknown as Shape)));
  });

  it('have every field of every signed object', async () => {
    const sample = await sampleObjects();
    const signed = sampleSigned(sample);
    const examples: Record<string, string[]> = Object.fromEntries(
      signedTypes.map((type) => [type, [signed[type]]]),
    );
    examples['owner-record']?.push(...sample.rotated.records);
    examples['device-record']?.push(sample.guestRecord);
    examples['grant']?.push(sample.coOwnRedemption.grant);
    examples['revocation']?.push(...sample.revocations);
    for (const type of signedTypes) {
      if (type === 'access') continue;
      const payloads = (examples[type] ?? []).map((jws) =>
        Object.keys(JSON.parse(fromUtf8(fromBase64Url(jws.split('.')[1] ?? ''))) as object),
      );
      const documented = ['v', 'crit', ...table(type).map(([field]) => plain(field))];
      const names = documented.map((field) => field.replace('?', ''));
      const required = documented.filter((field) => !field.endsWith('?'));
      assert.deepEqual(
        sorted(new Set([...payloads.flat(), ...names])),
        sorted(names),
        `${type}: undocumented field`,
      );
      assert.deepEqual(
        sorted(new Set(payloads.flat()).union(new Set(required))),
        sorted(new Set(payloads.flat())),
        type,
      );
      for (const field of required)
        for (const payload of payloads) assert.ok(payload.includes(field), `${type}.${field}`);
    }
  });

  it('have every kind of revocation', () => {
    const kinds: Record<RevocationKind, true> = { device: true, owner: true, token: true, share: true };
    assert.deepEqual(
      table('revocation-kinds').map(([kind]) => plain(kind)),
      Object.keys(kinds),
    );
  });

  it('have every request to a device with the secret, with its fields', () => {
    const requests = (ownerRequestSchema.def.options as unknown as OperationSchema[]).map(({ def }) => {
      const { op, ...fields } = def.shape;
      return [op.def.values[0], fieldsOf(fields).join(', ')];
    });
    const documented = table('owner-requests').map(([op, fields]) => [
      plain(op),
      plain(fields).split(':')[0],
    ]);
    assert.deepEqual(documented, requests);
    const inside = (fields: Shape) => `{ ${fieldsOf(fields).join(', ')} }`;
    const [token] = table('owner-requests');
    assert.ok(token?.[1]?.includes(inside(tokenRequestSchema.def.shape as unknown as Shape)));
    assert.ok(token?.[2]?.includes(inside(tokenAnswerSchema.def.shape as unknown as Shape)));
  });

  it('have every request about tasks, with its verb and fields', () => {
    const requests = (taskRequestSchema.def.options as unknown as OperationSchema[]).map(({ def }) => {
      const { op, ...fields } = def.shape;
      const name = op.def.values[0] ?? '';
      return [name, taskVerbs[name as keyof typeof taskVerbs], fieldsOf(fields).join(', ')];
    });
    assert.deepEqual(
      table('task-requests').map(([op, verb, fields]) => [plain(op), plain(verb), plain(fields)]),
      requests,
    );
  });

  it('have every field of a task, and where it may be given', () => {
    const kinds = { r: taskRowSchema, draft: taskDraftSchema, change: taskChangeSchema };
    const expected = Object.keys(taskSchema.def.shape).map((field) => [
      field,
      Object.entries(kinds)
        .filter(([, schema]) => Object.hasOwn(schema.def.shape, field))
        .map(([kind]) => kind)
        .join(', '),
    ]);
    assert.deepEqual(
      table('task-fields').map(([field, kindsOf]) => [plain(field), kindsOf]),
      expected,
    );
    const [status] = table('task-fields').filter(([field]) => plain(field) === 'status');
    assert.deepEqual(plain(status?.[2]).split(', '), [...taskStatuses]);
  });

  it('have every field of a query and of its answers', () => {
    assert.deepEqual(
      table('query-request').map(([field]) => plain(field)),
      fieldsOf(queryRequestSchema.def.shape as unknown as Shape),
    );
    const parts = (queryPartSchema.def.options as unknown as KindSchema[]).map(({ def }) => {
      const { kind, ...fields } = def.shape;
      return [kind.def.values[0], fieldsOf(fields).join(', ')];
    });
    assert.deepEqual(
      table('query-parts').map(([kind, fields]) => [plain(kind), plain(fields)]),
      parts,
    );
    const [type] = table('query-request');
    for (const name of queryTypes) assert.ok(type?.[1]?.includes(`\`${name}\``), name);
  });

  it('have every field of a capability request, of its answers and of what a device tells of its providers', () => {
    const fields = (name: string) => table(name).map(([field]) => plain(field));
    assert.deepEqual(
      fields('capability-request'),
      fieldsOf(capabilityRequestSchema.def.shape as unknown as Shape),
    );
    assert.deepEqual(
      fields('capability-state'),
      fieldsOf(capabilityStateSchema.def.shape as unknown as Shape),
    );
    const answers = (capabilityAnswerSchema.def.options as unknown as KindSchema[]).map(({ def }) => {
      const { kind, ...rest } = def.shape;
      return [kind.def.values[0], fieldsOf(rest).join(', ')];
    });
    assert.deepEqual(
      table('capability-answers').map(([kind, rest]) => [plain(kind), plain(rest)]),
      answers,
    );
  });

  it('have every protocol of rights, and every verb', () => {
    const rows = table('rights');
    assert.deepEqual(
      rows.map(([protocol]) => plain(protocol)),
      [...RightProtocol],
    );
    const verbs = new Set(rows.flatMap(([, cell]) => plain(cell).split(', ')));
    assert.deepEqual(sorted(verbs), sorted(Verb));
  });

  it('have every label, protocol and version', () => {
    const first = (name: string) => sorted(table(name).map(([cell]) => plain(cell)));
    assert.deepEqual(first('signature-labels'), sorted(Object.values(SignatureLabel)));
    assert.deepEqual(first('stream-protocols'), sorted(Object.values(streamProtocols)));
    assert.deepEqual(first('versions'), sorted([...sessionVersions, ...signalingSubprotocols]));
  });

  it('have every limit with its value', () => {
    const documented = table('limits').map(([name, value]) => [plain(name), value]);
    assert.deepEqual(
      documented,
      Object.entries(limits).map(([name, value]) => [name, shown(name, value)]),
    );
    for (const [name, , reason] of table('limits')) assert.ok(reason, `${name} has no reason`);
  });
});

describe('the table of docs/errors.md', () => {
  const lines = readFileSync(join(projectRoot, 'docs', 'errors.md'), 'utf8').split('\n');
  const rows = rowsOf(lines.slice(lines.findIndex((line) => line.startsWith('| Code'))));

  it('has every code of the code, and no other', () => {
    const documented = rows.map(([code]) => plain(code));
    assert.deepEqual(sorted(documented), sorted(Object.keys(errorCodes)));
    assert.equal(new Set(documented).size, documented.length);
  });

  it('says of each what the code says', () => {
    for (const [code, meaning, todo, status, exit, retry] of rows) {
      const row: { status: number; exit: number; retry?: boolean } =
        errorCodes[plain(code) as keyof typeof errorCodes];
      const expected = [String(row.status), String(row.exit), row.retry === true ? 'yes' : 'no'];
      assert.deepEqual([status, exit, retry], expected, code);
      assert.ok(meaning && todo, code);
    }
  });
});

/** The value of a limit as people read it; the unit stands in its name. */
function shown(name: string, value: number): string {
  const units: [number, string][] = name.endsWith('Bytes')
    ? [
        [1024 * 1024, 'MiB'],
        [1024, 'KiB'],
        [1, 'B'],
      ]
    : name.endsWith('Ms')
      ? [
          [86_400_000, 'd'],
          [3_600_000, 'h'],
          [60_000, 'min'],
          [1000, 's'],
          [1, 'ms'],
        ]
      : [];
  const unit = units.find(([size]) => value % size === 0);
  return unit ? `${value / unit[0]} ${unit[1]}` : String(value);
}
