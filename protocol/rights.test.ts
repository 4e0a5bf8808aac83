import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { check } from './codec.ts';
import type { Rights } from './rights.ts';
import {
  RightProtocol,
  Verb,
  adminRights,
  allows,
  memberRights,
  narrowRights,
  rightsSchema,
} from './rights.ts';

/** Every pair of protocol and verb that the rights give, for some name. */
function matrix(rights: Rights, name: string | null): string[] {
  return RightProtocol.flatMap((protocol) =>
    Verb.filter((verb) => allows(rights, protocol, verb, name)).map((verb) => `${protocol} ${verb}`),
  );
}

describe('rights', () => {
  it('of a member are all but asking for signatures', () => {
    const expected = [
      'http use',
      'tcp use',
      'query use',
      'capability use',
      'tasks read',
      'tasks write',
      'tasks run',
      'relay use',
    ];
    assert.deepEqual(matrix(memberRights, 'grafana'), expected);
    assert.deepEqual(matrix(memberRights, null), expected);
  });

  it('of an admin are that alone', () => {
    assert.deepEqual(matrix(adminRights, null), ['owner admin']);
  });

  it('that are narrowed give what is named and nothing else', () => {
    const rights = narrowRights(['grafana'], ['llm.chat']);
    assert.deepEqual(matrix(rights, 'grafana'), ['http use', 'tcp use']);
    assert.deepEqual(matrix(rights, 'llm.chat'), ['capability use']);
    assert.deepEqual(matrix(rights, 'grafana2'), []);
    assert.deepEqual(matrix(rights, '*'), []);
    assert.deepEqual(matrix(rights, ''), []);
    assert.deepEqual(matrix(rights, null), ['http use', 'tcp use', 'capability use']);
    assert.deepEqual(matrix(narrowRights(['grafana'], []), null), ['http use', 'tcp use']);
    assert.deepEqual(matrix(narrowRights([], ['llm.chat']), null), ['capability use']);
  });

  it('that are none give nothing', () => {
    assert.deepEqual(matrix(narrowRights([], []), null), []);
    assert.deepEqual(matrix([], null), []);
  });

  it('with anything unknown, without a verb or without a name are no rights', () => {
    const right = { protocol: 'http', verbs: ['use'], names: ['*'] };
    check(rightsSchema, [right]);
    for (const change of [
      { protocol: 'ftp' },
      { protocol: 'HTTP' },
      { verbs: [] },
      { verbs: ['admin', 'everything'] },
      { names: [] },
      { names: ['**'] },
      { names: ['a*'] },
      { names: ['Grafana'] },
      { paths: ['/public'] },
    ])
      assert.throws(() => check(rightsSchema, [{ ...right, ...change }]), { code: 'bad_message' });
    assert.throws(
      () =>
        check(
          rightsSchema,
          Array.from({ length: 33 }, () => right),
        ),
      { code: 'bad_message' },
    );
  });
});
