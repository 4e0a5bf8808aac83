import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { Lane, WaitingText } from './tokens-lanes.ts';
import { TokenLanes } from './tokens-lanes.ts';

function texts(lane: Lane, lengths: readonly number[], request: object = {}): WaitingText[] {
  return lengths.map((length) => ({ lane, length, request }));
}

const lengthsOf = (taken: readonly WaitingText[]): number[] => taken.map(({ length }) => length);

describe('texts that wait for a model', () => {
  it('go together by their length, within the budget of padded tokens', () => {
    const lanes = new TokenLanes();
    lanes.push(texts('batch', [3, 100, 5, 90, 4, 512, 6]));
    assert.deepEqual(lengthsOf(lanes.take(512)), [512]);
    assert.deepEqual(lengthsOf(lanes.take(512)), [100, 90, 6, 5, 4]);
    assert.deepEqual(lengthsOf(lanes.take(512)), [3]);
    assert.deepEqual(lanes.take(512), []);
  });

  it('go alone when they are longer than the budget', () => {
    const lanes = new TokenLanes();
    lanes.push(texts('batch', [2_000, 1_000]));
    assert.deepEqual(lengthsOf(lanes.take(512)), [2_000]);
    assert.deepEqual(lengthsOf(lanes.take(512)), [1_000]);
  });

  it('go before those of a job when somebody waits for them, but do not stop the job', () => {
    const lanes = new TokenLanes();
    lanes.push(texts('batch', [10, 10]));
    for (let i = 0; i < 20; i++) lanes.push(texts('interactive', [400]));
    const order = Array.from({ length: 21 }, () => lanes.take(512)[0]?.lane);
    assert.deepEqual(
      order.slice(0, 8),
      Array.from({ length: 8 }, () => 'interactive'),
    );
    assert.equal(order.indexOf('batch'), 8);
    assert.equal(lanes.size, 0);
  });

  it('of the oldest request are in every batch, whatever came later', () => {
    const lanes = new TokenLanes();
    const oldest = {};
    lanes.push(texts('batch', [20, 10], oldest));
    lanes.push(texts('batch', [500, 400, 15, 300]));
    assert.deepEqual(lengthsOf(lanes.take(40)), [20, 15]);
    assert.deepEqual(lengthsOf(lanes.take(40)), [10]);
    assert.deepEqual(lengthsOf(lanes.take(40)), [500]);
  });

  it('are forgotten with their request', () => {
    const lanes = new TokenLanes();
    const given = {};
    lanes.push([...texts('batch', [7], given), ...texts('interactive', [9], given), ...texts('batch', [8])]);
    lanes.remove(given);
    assert.deepEqual(lengthsOf(lanes.take(512)), [8]);
    assert.equal(lanes.size, 0);
  });

  it('all come out once, in batches within the budget', () => {
    const some = fc.array(
      fc.record({
        lane: fc.constantFrom<Lane>('batch', 'interactive'),
        length: fc.integer({ min: 1, max: 700 }),
      }),
    );
    fc.assert(
      fc.property(fc.array(some), (requests) => {
        const lanes = new TokenLanes<WaitingText>();
        const pushed = requests.map((items) => {
          const request = {};
          return items.map((item) => ({ ...item, request }));
        });
        for (const items of pushed) lanes.push(items);
        const seen = new Set<WaitingText>();
        for (let batch = lanes.take(512); batch.length > 0; batch = lanes.take(512)) {
          const longest = Math.max(...lengthsOf(batch));
          assert.ok(batch.length === 1 || batch.length * longest <= 512);
          for (const text of batch) {
            assert.ok(!seen.has(text));
            seen.add(text);
          }
        }
        assert.equal(seen.size, pushed.flat().length);
      }),
    );
  });
});
