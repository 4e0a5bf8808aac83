import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Rights } from '@cocoon-mesh/protocol';
import { coOwnerRights, memberRights, narrowRights } from '@cocoon-mesh/protocol';
import { describeRights } from './rights-text.ts';

test('rights are told in words, with the names that they are about', () => {
  const whole = { rights: 'everything but passing it on', services: null, capabilities: null };
  assert.deepEqual(describeRights(coOwnerRights), whole);
  assert.deepEqual(describeRights(memberRights), whole);
  assert.deepEqual(describeRights(narrowRights(['web', 'db'], ['llm.chat'])), {
    rights: 'service db, web, capability llm.chat',
    services: ['db', 'web'],
    capabilities: ['llm.chat'],
  });
  // Tasks are not for everybody who was given the capability, so that it says so.
  assert.equal(
    describeRights(narrowRights([], ['knowledgebase', 'tasks'])).rights,
    'capability knowledgebase, tasks (without reading any)',
  );
  const queries: Rights = [{ protocol: 'query', verbs: ['use'], names: ['knowledgebase'] }];
  assert.equal(describeRights(queries).rights, 'query knowledgebase');
  const anything: Rights = [{ protocol: 'query', verbs: ['use'], names: ['*'] }];
  assert.equal(
    describeRights([...narrowRights([], ['llm.chat']), ...anything]).rights,
    'capability llm.chat, every query',
  );
  assert.deepEqual(describeRights([]), { rights: 'nothing', services: [], capabilities: [] });
  const tasks = [{ protocol: 'tasks', verbs: ['read'], names: ['*'] }] as const;
  assert.equal(
    describeRights(tasks.map((right) => ({ ...right, verbs: [...right.verbs], names: [...right.names] })))
      .rights,
    'tasks (read)',
  );
});
