import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { DeviceAnswer, DeviceAnswerStatus } from '@cocoon-mesh/protocol';
import { failureOf, missingShares } from './query-stream.ts';

function device(name: string, status: DeviceAnswerStatus, code = ''): DeviceAnswer {
  const error = code === '' ? {} : { error: { code, message: 'It went wrong' } };
  return { id: `peer-of-${name}`, name, status, count: 0, ms: 1, ...error };
}

describe('an answer of many devices', () => {
  test('is no failure as long as one of them has answered', () => {
    assert.equal(failureOf({ devices: [device('a', 'ok'), device('b', 'timeout')] }), null);
    assert.equal(failureOf({ devices: [] }), null);
  });

  test('of nobody fails with what the first one said that was there', () => {
    const devices = [device('a', 'offline'), device('b', 'error', 'storage_failed')];
    assert.equal(failureOf({ devices })?.code, 'storage_failed');
    assert.equal(failureOf({ devices: [device('a', 'offline')] })?.code, 'device_offline');
    assert.equal(failureOf({ devices: [device('a', 'denied')] })?.exitCode, 4);
    assert.equal(failureOf({ devices: [device('a', 'timeout')] })?.exitCode, 5);
    assert.equal(failureOf({ devices: [device('a', 'error', 'of_another_version')] })?.code, 'internal');
  });

  test('says whose share is missing, and why', () => {
    assert.deepEqual(
      missingShares({
        devices: [device('a', 'ok'), device('b', 'offline'), device('c', 'error', 'bad_message')],
      }),
      ['b is offline', 'c failed: It went wrong (bad_message)'],
    );
  });
});
