import assert from 'node:assert/strict';
import { test } from 'node:test';
import { limits } from '@cocoon-mesh/protocol';
import { Metrics } from './metrics.ts';
import { Presence } from './presence.ts';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { welcomeContent } from './welcome.ts';

test('a welcome is never larger than a peer reads, and a list of revocations in it has no gap', () => {
  const presence = new Presence(new SteppedClock(), new Metrics(), 500);
  const list = Array.from({ length: limits.maxRevocations }, (_, n) => `${n}`.padStart(1500, 'x'));
  const news = [{ owner: 'own', records: ['a.b.c'], list }];
  const { revocations } = welcomeContent(presence, { devices: [], shared: [], shares: [], news });
  const [told] = revocations;
  assert.ok(told);
  assert.ok(told.list.length > 1000 && told.list.length < list.length);
  assert.deepEqual(told.list, list.slice(0, told.list.length));
  assert.ok(JSON.stringify(revocations).length < limits.maxServerMessageBytes);
});
