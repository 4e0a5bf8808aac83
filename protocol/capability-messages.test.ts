import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  capabilityAnswerSchema,
  capabilityRequestOpenSchema,
  capabilityRequestSchema,
  capabilityStateSchema,
} from './capability-messages.ts';
import { check, decode, encode } from './codec.ts';
import type { Json } from './json.ts';
import { limits } from './limits.ts';
import { sampleCapabilityAnswers, sampleCapabilityRequests, sampleDescriptions } from './sample-messages.ts';

const refused = { code: 'bad_message' };
const [request] = sampleCapabilityRequests;

describe('a capability request', () => {
  it('names its capability and a range', () => {
    check(capabilityRequestOpenSchema, { protocol: 'llm.chat', version: '>=1.2 <3' });
    for (const change of [
      { protocol: 'LLM' },
      { protocol: '' },
      { version: undefined },
      { version: 'x'.repeat(129) },
    ])
      assert.throws(
        () => check(capabilityRequestOpenSchema, { protocol: 'llm.chat', version: '*', ...change }),
        refused,
      );
  });

  it('is within its limits', () => {
    const many = (count: number, value: unknown) => Array.from({ length: count }, () => value);
    for (const change of [
      { payload: undefined },
      { payload: new Date(0) },
      { parts: null },
      { parts: ['text'] },
      { parts: many(limits.maxCapabilityParts + 1, new Uint8Array()) },
      { timeout_ms: 0 },
      { timeout_ms: limits.maxCapabilityTimeoutMs + 1 },
      { session: undefined },
      { session: 'x'.repeat(129) },
      { features: [''] },
      { features: many(limits.maxCapabilityFeatures + 1, 'x') },
    ])
      assert.throws(
        () => check(capabilityRequestSchema, { ...request, ...change }),
        refused,
        Object.keys(change)[0],
      );
  });

  it('carries JSON of every depth that it may have, and no deeper', () => {
    let payload: Json = 0;
    for (let level = 0; level < limits.maxCapabilityJsonDepth; level++) payload = [payload];
    assert.ok(request);
    const bytes = encode(capabilityRequestSchema, { ...request, payload });
    assert.deepEqual(
      decode(capabilityRequestSchema, bytes, limits.maxCapabilityMessageBytes).payload,
      payload,
    );
    assert.throws(() => check(capabilityRequestSchema, { ...request, payload: [payload] }), refused);
  });
});

describe('an answer to a capability request', () => {
  it('is a chunk, an end or an error', () => {
    for (const message of sampleCapabilityAnswers)
      assert.deepEqual(check(capabilityAnswerSchema, message), message);
    const [, end, overloaded] = sampleCapabilityAnswers;
    for (const change of [
      { version: '1.0' },
      { queue_ms: -1 },
      { load: null },
      { load: { in_flight: 0, queued: 0, limit: 0 } },
    ])
      assert.throws(
        () => check(capabilityAnswerSchema, { ...end, ...change }),
        refused,
        JSON.stringify(change),
      );
    for (const change of [{ code: 'No!' }, { message: 'x'.repeat(1025) }, { retry_after_ms: -1 }])
      assert.throws(() => check(capabilityAnswerSchema, { ...overloaded, ...change }), refused);
    assert.throws(() => check(capabilityAnswerSchema, { kind: 'part' }), { code: 'unsupported' });
  });
});

describe('what a device tells of a provider', () => {
  it('is how busy it is and what it has', () => {
    const state = sampleDescriptions[0]?.capabilities[0];
    assert.deepEqual(check(capabilityStateSchema, state), state);
    for (const change of [{ limit: 0 }, { in_flight: -1 }, { warm: 1 }, { features: ['x'.repeat(257)] }])
      assert.throws(() => check(capabilityStateSchema, { ...state, ...change }), refused);
  });
});
