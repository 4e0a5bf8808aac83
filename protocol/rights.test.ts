import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { check } from './codec.ts';
import type { Rights } from './rights.ts';
import {
  RightProtocol,
  Verb,
  adminRights,
  allows,
  coOwnerRights,
  commonRights,
  includesRights,
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
    assert.deepEqual(matrix(rights, 'llm.chat'), ['query use', 'capability use']);
    assert.deepEqual(matrix(rights, 'grafana2'), []);
    assert.deepEqual(matrix(rights, '*'), []);
    assert.deepEqual(matrix(rights, ''), []);
    assert.deepEqual(matrix(rights, null), ['http use', 'tcp use', 'query use', 'capability use']);
    assert.deepEqual(matrix(narrowRights(['grafana'], []), null), ['http use', 'tcp use']);
    assert.deepEqual(matrix(narrowRights([], ['llm.chat']), null), ['query use', 'capability use']);
  });

  it('of a co-owner are those of a member without passing streams on', () => {
    assert.deepEqual(
      matrix(coOwnerRights, 'grafana'),
      matrix(memberRights, 'grafana').filter((right) => right !== 'relay use'),
    );
  });

  it('in common are what both give, for every protocol, verb and name', () => {
    const examples: Rights[] = [
      [],
      memberRights,
      coOwnerRights,
      adminRights,
      [...memberRights, ...adminRights],
      narrowRights(['grafana'], ['llm.chat']),
      narrowRights(['grafana', 'web'], []),
      narrowRights([], ['llm.chat', 'embeddings']),
      [{ protocol: 'tasks', verbs: ['read'], names: ['*'] }],
      [
        { protocol: 'tasks', verbs: ['read', 'write'], names: ['a'] },
        { protocol: 'tasks', verbs: ['run', 'write'], names: ['*'] },
      ],
    ];
    const names = ['grafana', 'web', 'llm.chat', 'embeddings', 'a', '*', 'other'];
    for (const one of examples)
      for (const other of examples) {
        const common = commonRights(one, other);
        check(rightsSchema, common);
        for (const name of names) {
          const both = new Set(matrix(one, name)).intersection(new Set(matrix(other, name)));
          assert.deepEqual(new Set(matrix(common, name)), both);
        }
        assert.ok(includesRights(one, common) && includesRights(other, common));
      }
  });

  it('with other names have nothing in common, and not a right to any name either', () => {
    const common = commonRights(narrowRights(['grafana'], []), narrowRights(['web'], []));
    assert.deepEqual(matrix(common, null), []);
  });

  it('include others only as a whole', () => {
    const narrow = narrowRights(['grafana'], ['llm.chat']);
    assert.ok(includesRights(memberRights, narrow) && includesRights(memberRights, coOwnerRights));
    assert.ok(includesRights([], []) && includesRights(narrow, []));
    assert.ok(
      includesRights([...narrow, ...narrowRights(['web'], [])], narrowRights(['grafana', 'web'], [])),
    );
    for (const [more, less] of [
      [narrow, memberRights],
      [narrow, narrowRights(['*'], [])],
      [narrow, narrowRights(['grafana', 'web'], [])],
      [memberRights, adminRights],
      [coOwnerRights, memberRights],
      [[], narrow],
      [
        [{ protocol: 'tasks', verbs: ['read'], names: ['*'] }],
        [{ protocol: 'tasks', verbs: ['read', 'run'], names: ['*'] }],
      ],
    ] satisfies [Rights, Rights][])
      assert.equal(includesRights(more, less), false);
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
