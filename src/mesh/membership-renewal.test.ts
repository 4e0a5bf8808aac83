import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ProvenMembership } from '@cocoon-mesh/protocol';
import { limits, memberRights } from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import type { Device, Mesh } from './mesh.ts';
import { MembershipRenewal, isDue } from './membership-renewal.ts';

const now = 1_800_000_000;
const life = limits.browserMembershipMs / 1000;
const lasting: ProvenMembership = {
  owner: 'own_R',
  epoch: 0,
  peerId: 'p',
  rights: memberRights,
  granted: now,
  expires: null,
  until: null,
  jti: null,
  grantHash: null,
  serial: 1,
  provisional: false,
};

test('a chain is to be renewed at once, a membership in the second half of its life, and no right past its end', () => {
  const due = (given: Partial<ProvenMembership>) => isDue({ ...lasting, ...given }, now);
  assert.ok(due({ provisional: true, expires: now + 7 * 86_400 }));
  assert.ok(!due({}));
  assert.ok(!due({ expires: now + life }));
  assert.ok(!due({ expires: now + life / 2 }));
  assert.ok(due({ expires: now + life / 2 - 1 }));
  assert.ok(!due({ expires: now + 60, until: now + 60 }));
  assert.ok(due({ expires: now + 60, until: now + life }));
  assert.ok(!isDue(null, now));
});

test('whoever signs is asked when a session comes up and every hour, one question at a time, and nobody else is', async () => {
  const clock = new SteppedClock();
  const asked: string[] = [];
  let signers: Pick<Device, 'peerId' | 'online' | 'path'>[] = [];
  let sessionUp: (peerId: string, up: boolean) => void = () => undefined;
  let signsItself = false;
  let answer = Promise.withResolvers<never>();
  const mesh = {
    membership: { ...lasting, provisional: true },
    signers: () => signers,
    openStream: (peerId: string) => {
      asked.push(peerId);
      return answer.promise;
    },
    on: (_event: 'session', listener: typeof sessionUp) => {
      sessionUp = listener;
      return () => (sessionUp = () => undefined);
    },
  };
  const log = (): void => undefined;
  const renewal = new MembershipRenewal({
    mesh: mesh as unknown as Mesh,
    clock,
    log,
    signsItself: () => signsItself,
  });
  sessionUp('friend', true);
  assert.deepEqual(asked, []);
  signers = [
    { peerId: 'away', online: false, path: null },
    { peerId: 'laptop', online: true, path: null },
  ];
  sessionUp('laptop', false);
  assert.deepEqual(asked, []);
  sessionUp('laptop', true);
  sessionUp('laptop', true);
  assert.deepEqual(asked, ['laptop']);
  answer.reject(new Error('not now'));
  await renewal.look();
  await new Promise(setImmediate);
  answer = Promise.withResolvers();
  clock.step(3600_000);
  assert.deepEqual(asked, ['laptop', 'laptop']);
  answer.reject(new Error('not now'));
  await new Promise(setImmediate);
  signsItself = true;
  sessionUp('laptop', true);
  assert.equal(asked.length, 2);
  renewal.close();
  assert.equal(clock.pendingTimers, 0);
});
