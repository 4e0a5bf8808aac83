import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { CapabilityState } from '@cocoon-mesh/protocol';
import { loadOf } from './choice.ts';
import { DeviceStates } from './device-states.ts';

const state: CapabilityState = {
  protocol: 'llm.chat',
  version: '1.0.0',
  in_flight: 0,
  queued: 0,
  limit: 4,
  warm: false,
  stand_in: false,
  features: ['model:a'],
};
const chat = { protocol: 'llm.chat', features: [] };

function busy(states: DeviceStates): number[] {
  return (states.of('peer') ?? []).map((each) => loadOf(each) * each.limit);
}

describe('what is known of a device', () => {
  test('is nothing until it told', () => {
    const states = new DeviceStates();
    states.began('peer', chat);
    assert.equal(states.of('peer'), null);
    states.learn('peer', [state]);
    assert.deepEqual(states.of('peer'), [state]);
    states.forget('peer');
    assert.equal(states.of('peer'), null);
  });

  test('counts what was sent to it since it told, at the providers that may serve it', () => {
    const states = new DeviceStates();
    states.learn('peer', [state, { ...state, features: [] }, { ...state, protocol: 'embeddings' }]);
    const first = states.began('peer', chat);
    states.began('peer', { ...chat, features: ['model:a'] });
    assert.deepEqual(busy(states), [2, 1, 0]);
    first.ended();
    first.ended();
    assert.deepEqual(busy(states), [1, 0, 0]);
  });

  test('does not count a request twice when the device told of it, and forgets it when it ends', () => {
    const states = new DeviceStates();
    states.learn('peer', [state]);
    const ticket = states.began('peer', chat);
    states.learn('peer', [{ ...state, in_flight: 3 }]);
    assert.deepEqual(busy(states), [3]);
    ticket.ended();
    assert.deepEqual(busy(states), [2]);
  });

  test('is what comes back with answers, which also tell that the provider is warm', () => {
    const states = new DeviceStates();
    states.learn('peer', [state, { ...state, version: '2.0.0' }]);
    const [one, two] = [states.began('peer', chat), states.began('peer', chat)];
    one.heard('1.0.0', { in_flight: 2, queued: 1, limit: 4 });
    one.ended();
    assert.deepEqual(busy(states), [3, 0]);
    assert.deepEqual(
      states.of('peer')?.map(({ warm }) => warm),
      [true, false],
    );
    two.heard(null, { in_flight: 4, queued: 9, limit: 4 });
    assert.deepEqual(busy(states), [13, 13]);
    assert.equal(states.of('peer')?.[1]?.warm, false);
  });
});
