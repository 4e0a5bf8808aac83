import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { MeshError } from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { ProviderLane } from './provider-lane.ts';
import { scriptedProvider } from './scripted-provider.contract.ts';

const never = new AbortController().signal;

function lane(limit: number, maxQueued: number) {
  const clock = new SteppedClock();
  return { clock, lane: new ProviderLane(scriptedProvider({ limit, maxQueued }), clock, () => undefined) };
}

describe('the way into a provider', () => {
  test('lets in as many as it may, keeps as many waiting in order, and refuses one more', async () => {
    const { lane: way, clock } = lane(2, 2);
    const first = await way.enter(never);
    await way.enter(never);
    const order: string[] = [];
    const third = way.enter(never).then((place) => (order.push('third'), place));
    const fourth = way.enter(never).then((place) => (order.push('fourth'), place));
    assert.deepEqual(way.load, { in_flight: 2, queued: 2, limit: 2 });
    await assert.rejects(way.enter(never), { code: 'overloaded' });
    clock.step(30);
    first.leave(true);
    // Nobody comes in between.
    assert.equal(way.load.in_flight, 2);
    const place = await third;
    assert.equal(place.queueMs, 30);
    place.leave(true);
    place.leave(true);
    await fourth;
    assert.deepEqual(order, ['third', 'fourth']);
    assert.deepEqual(way.load, { in_flight: 2, queued: 0, limit: 2 });
  });

  test('tells when to come back from the time that requests took', async () => {
    const { lane: way, clock } = lane(2, 3);
    const told = async (): Promise<number | null> => {
      const thrown = await way.enter(never).catch((error: unknown) => error);
      assert.ok(thrown instanceof MeshError && thrown.code === 'overloaded');
      return thrown.retryAfterMs;
    };
    const [one] = [await way.enter(never), await way.enter(never)];
    const waiting = [way.enter(never), way.enter(never), way.enter(never)];
    assert.equal(await told(), 1_000);
    clock.step(400);
    one?.leave(true);
    await waiting[0];
    void way.enter(never);
    // Four are before it, two at a time, 400 ms each.
    assert.equal(await told(), 800);
  });

  test('forgets one that goes while it waits', async () => {
    const { lane: way } = lane(1, 2);
    const first = await way.enter(never);
    const cancel = new AbortController();
    const second = way.enter(cancel.signal);
    const third = way.enter(never);
    cancel.abort();
    await assert.rejects(second, { name: 'AbortError' });
    assert.equal(way.load.queued, 1);
    first.leave(false);
    (await third).leave(true);
    assert.deepEqual(way.load, { in_flight: 0, queued: 0, limit: 1 });
    await assert.rejects(way.enter(cancel.signal), { name: 'AbortError' });
    assert.equal(way.load.in_flight, 0);
  });
});
