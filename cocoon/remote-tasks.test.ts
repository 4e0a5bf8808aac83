import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ProvenPeer } from '@cocoon-mesh/mesh';
import { adminRights, memberRights } from '@cocoon-mesh/protocol';
import type { RemoteTaskRunner } from './config.ts';
import { memberOf, peerOf } from './owner-mesh.contract.ts';
import { remoteTasksPolicy } from './remote-tasks.ts';

const kinds = { desk: 'cocoon', tab: 'browser' } as const;
const kindOf = (peerId: string) => (peerId === 'desk' || peerId === 'tab' ? kinds[peerId] : null);
const run = { protocol: 'tasks', verb: 'run', name: null } as const;

function peer(peerId: string, given: Partial<ProvenPeer> = {}): ProvenPeer {
  return peerOf(memberOf('own_R', { peerId }), given);
}

const admin = { rights: [...memberRights, ...adminRights] };
const callers = {
  cocoon: peer('desk'),
  'browser with admin': peer('tab', admin),
  browser: peer('tab'),
  'what nobody knows': peer('new'),
  'co-owner': peer('x', { relation: 'co-owner' }),
  // A right of its own owner is none here.
  'co-owner with admin': peer('x', { relation: 'co-owner', ...admin }),
  guest: peer('x', { relation: 'guest' }),
  'a shared cocoon': peer('desk', { relation: 'shared' }),
};

function mayRun(...allowed: readonly RemoteTaskRunner[]): string[] {
  const policy = remoteTasksPolicy(allowed, kindOf);
  return Object.entries(callers).flatMap(([name, caller]) => (policy(caller, run) ? [name] : []));
}

test('tasks are run for the owner’s own cocoons and administering browsers, and for nobody else by default', () => {
  assert.deepEqual(mayRun(), ['cocoon', 'browser with admin']);
});

test('each of the others is switched on by itself', () => {
  const always = ['cocoon', 'browser with admin'];
  assert.deepEqual(mayRun('browser'), [...always, 'browser', 'what nobody knows']);
  assert.deepEqual(mayRun('co-owner'), [...always, 'co-owner', 'co-owner with admin']);
  assert.deepEqual(mayRun('guest'), [...always, 'guest', 'a shared cocoon']);
});

test('everything but running tasks is a matter of rights alone', () => {
  const policy = remoteTasksPolicy([], kindOf);
  for (const caller of Object.values(callers)) {
    assert.ok(policy(caller, { ...run, verb: 'read' }));
    assert.ok(policy(caller, { protocol: 'capability', verb: 'use', name: 'embeddings' }));
  }
});
