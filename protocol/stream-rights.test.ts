import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import * as z from 'zod/mini';
import { encode } from './codec.ts';
import { limits } from './limits.ts';
import { queryTypes } from './query-messages.ts';
import { allows, coOwnerRights, memberRights, narrowRights } from './rights.ts';
import { neededRight } from './stream-rights.ts';
import { streamProtocols } from './versions.ts';

const header = (value: object) => encode(z.looseObject({}), { ...value });
const empty = header({});

describe('the right that a stream needs', () => {
  it('is known for each protocol', () => {
    const needed = {
      http: null,
      tcp: null,
      owner: null,
      describe: null,
      revocations: null,
      query: { protocol: 'query', verb: 'use', name: 'tasks' },
      capability: { protocol: 'capability', verb: 'use', name: 'llm.chat' },
      tasks: { protocol: 'tasks', verb: 'run', name: null },
    } satisfies Record<keyof typeof streamProtocols, unknown>;
    const all = header({ protocol: 'llm.chat', verb: 'run', type: 'list_tasks', service: 'web', more: 1 });
    for (const [name, protocol] of Object.entries(streamProtocols))
      assert.deepEqual(neededRight(protocol, all), needed[name as keyof typeof streamProtocols], name);
    assert.equal(neededRight('/cocoon/query/2', empty), null);
    assert.equal(neededRight('constructor', empty), null);
  });

  it('cannot be told from a header that does not say it, and then nothing is allowed', () => {
    for (const protocol of [streamProtocols.capability, streamProtocols.tasks, streamProtocols.query])
      for (const wrong of [
        empty,
        new Uint8Array(),
        Uint8Array.of(0xc1),
        header({ protocol: 'LLM', verb: 'own', type: 'knowledgebase' }),
        header({ protocol: '*', verb: '*', type: '*' }),
        header({ protocol: ['llm.chat'], verb: ['read'], type: ['custom'] }),
      ])
        assert.throws(() => neededRight(protocol, wrong), { code: 'bad_message' });
    const long = new Uint8Array(limits.maxOpenHeaderBytes + 1);
    assert.throws(() => neededRight(streamProtocols.tasks, long), { code: 'message_too_large' });
  });

  it('a guest of one capability has for that one only', () => {
    const guest = narrowRights([], ['llm.chat']);
    const may = (rights: typeof guest, protocol: string, value: object) => {
      const need = neededRight(protocol, header(value));
      return need === null || allows(rights, need.protocol, need.verb, need.name);
    };
    assert.equal(may(guest, streamProtocols.capability, { protocol: 'llm.chat' }), true);
    assert.equal(may(guest, streamProtocols.capability, { protocol: 'embeddings' }), false);
    for (const verb of ['read', 'write', 'run']) {
      assert.equal(may(guest, streamProtocols.tasks, { verb }), false);
      for (const rights of [memberRights, coOwnerRights])
        assert.equal(may(rights, streamProtocols.tasks, { verb }), true);
    }
    const asked = (rights: typeof guest) =>
      queryTypes.filter((type) => may(rights, streamProtocols.query, { type }));
    assert.deepEqual(asked(guest), []);
    assert.deepEqual(asked(narrowRights([], ['knowledgebase'])), ['search_knowledgebase']);
    assert.deepEqual(asked(narrowRights([], ['custom'])), ['custom']);
    assert.deepEqual(asked(narrowRights(['knowledgebase'], [])), []);
    for (const rights of [memberRights, coOwnerRights]) assert.deepEqual(asked(rights), [...queryTypes]);
  });
});
