import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ResetCode, limits } from '@cocoon-mesh/protocol';
import { localStreamPair } from './local-stream.ts';

const pair = () => localStreamPair('/cocoon/http/1', new Uint8Array([1]));

describe('a stream to the own device', () => {
  test('carries bytes both ways and ends each direction by itself', async () => {
    const [asking, serving] = pair();
    assert.deepEqual([asking.header, serving.header], [new Uint8Array([1]), new Uint8Array([1])]);
    asking.write(new Uint8Array([1, 2]));
    asking.end();
    assert.deepEqual(await serving.read(), new Uint8Array([1, 2]));
    assert.equal(await serving.read(), null);
    const reading = asking.read();
    serving.write(new Uint8Array([3]));
    assert.deepEqual(await reading, new Uint8Array([3]));
    serving.end();
    assert.equal(await asking.read(), null);
    await asking.closed;
    await serving.closed;
    assert.equal(asking.signal.aborted, false);
  });

  test('asks its writer to wait until somebody has read', async () => {
    const [asking, serving] = pair();
    assert.equal(asking.write(new Uint8Array(limits.streamQueueBytes)), false);
    let drained = false;
    const waiting = asking.drained().then(() => (drained = true));
    await Promise.resolve();
    assert.equal(drained, false);
    await serving.read();
    await waiting;
  });

  test('ends on both sides at once when one resets it, with the code', async () => {
    const [asking, serving] = pair();
    const reading = asking.read();
    const draining = asking.write(new Uint8Array(limits.streamQueueBytes)) ? null : asking.drained();
    serving.reset(ResetCode.cancel);
    await assert.rejects(reading, { code: 'stream_reset', cause: ResetCode.cancel });
    await assert.rejects(draining ?? Promise.resolve(), { code: 'stream_reset' });
    assert.throws(() => asking.write(new Uint8Array(1)), { code: 'stream_reset' });
    await asking.closed;
    assert.ok(asking.signal.aborted && serving.signal.aborted);
    serving.reset(ResetCode.internal);
  });

  test('is not reset any more once both directions are over', async () => {
    const [asking, serving] = pair();
    asking.end();
    serving.end();
    await Promise.all([asking.read(), serving.read()]);
    asking.reset(ResetCode.cancel);
    assert.equal(serving.signal.aborted, false);
  });
});
