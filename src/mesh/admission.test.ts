import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { NeededRight, Rights } from '@cocoon-mesh/protocol';
import { ResetCode, memberRights, narrowRights, queryTypes, streamProtocols } from '@cocoon-mesh/protocol';
import type { AdmissionOptions } from './admission.ts';
import { Admission } from './admission.ts';
import type { ProvenPeer } from './mesh.ts';
import type { Stream } from './stream.ts';

/** As MessagePack: short texts only. */
function packed(header: Readonly<Record<string, string>>): Uint8Array {
  const text = (value: string): number[] => [0xa0 | value.length, ...new TextEncoder().encode(value)];
  const entries = Object.entries(header);
  return Uint8Array.from([
    0x80 | entries.length,
    ...entries.flatMap(([name, value]) => [...text(name), ...text(value)]),
  ]);
}

/** What comes of a stream that a peer with these rights opens, and what was told of it. */
function opened(
  rights: Rights,
  protocol: string,
  header: Readonly<Record<string, string>>,
  policy: AdmissionOptions['policy'] = () => true,
): { reset: ResetCode | null; told: NeededRight[] } {
  const told: NeededRight[] = [];
  const options: Pick<AdmissionOptions, 'policy' | 'denied'> = {
    policy,
    denied: (_peer, right) => told.push(right),
  };
  const admission = new Admission(options as AdmissionOptions);
  const stream = { protocol, header: packed(header) } as Pick<Stream, 'protocol' | 'header'>;
  const reset = admission.refusal(stream as Stream, { rights } as ProvenPeer);
  return { reset, told };
}

const { capability, tasks, query } = streamProtocols;

describe('a stream of a peer', () => {
  test('is refused without the right for it, and told of with what it asked for', () => {
    const guest = narrowRights([], ['embeddings']);
    assert.deepEqual(opened(guest, capability, { protocol: 'embeddings' }), { reset: null, told: [] });
    for (const [protocol, header, right] of [
      [capability, { protocol: 'llm.chat' }, { protocol: 'capability', verb: 'use', name: 'llm.chat' }],
      [tasks, { verb: 'read' }, { protocol: 'tasks', verb: 'read', name: null }],
      [query, { type: 'search_knowledgebase' }, { protocol: 'query', verb: 'use', name: 'knowledgebase' }],
      [query, { type: 'custom' }, { protocol: 'query', verb: 'use', name: 'custom' }],
    ] as const) {
      assert.deepEqual(opened(guest, protocol, header), { reset: ResetCode.denied, told: [right] });
      assert.deepEqual(opened(memberRights, protocol, header), { reset: null, told: [] });
    }
  });

  test('with a question is for whoever was given the capability that it is about', () => {
    const guest = narrowRights([], ['knowledgebase']);
    for (const type of queryTypes)
      assert.equal(
        opened(guest, query, { type }).reset,
        type === 'search_knowledgebase' ? null : ResetCode.denied,
        type,
      );
  });

  test('is refused and told of when the device does not allow what the rights would', () => {
    const noRun: AdmissionOptions['policy'] = (_peer, { verb }) => verb !== 'run';
    const run = opened(memberRights, tasks, { verb: 'run' }, noRun);
    assert.deepEqual(run, {
      reset: ResetCode.denied,
      told: [{ protocol: 'tasks', verb: 'run', name: null }],
    });
    assert.deepEqual(opened(memberRights, tasks, { verb: 'read' }, noRun), { reset: null, told: [] });
  });

  test('whose header cannot be read is a bad one, and no refusal of a right', () => {
    assert.deepEqual(opened([], tasks, { verb: 'fly' }), { reset: ResetCode.badHeader, told: [] });
    assert.deepEqual(opened(memberRights, query, {}), { reset: ResetCode.badHeader, told: [] });
  });
});
