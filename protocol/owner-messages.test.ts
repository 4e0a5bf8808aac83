import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { check, decode, encode } from './codec.ts';
import { limits } from './limits.ts';
import type { OwnerAnswer, OwnerRequest } from './owner-messages.ts';
import { ownerAnswerSchema, ownerRequestSchema } from './owner-messages.ts';
import { sampleNow, sampleObjects } from './sample-objects.ts';

const { owner, otherOwner, device, token, jti, membership, share, revocations } = await sampleObjects();

const request: OwnerRequest & { op: 'token' } = {
  op: 'token',
  token: {
    scope: 'co-own',
    expires_s: 3600,
    until: sampleNow + 86_400,
    admin: false,
    services: ['grafana'],
    capabilities: ['llm.chat'],
    cocoon: device.peerId,
  },
};

describe('a request to a device that holds the secret', () => {
  it('is one of five, written and read as the same', () => {
    const requests: OwnerRequest[] = [
      request,
      { op: 'remove_owner', owner: otherOwner.id },
      { op: 'revoke', device: device.peerId },
      { op: 'revoke_token', jti: 'A'.repeat(43) },
      { op: 'renew' },
    ];
    for (const each of requests) {
      const bytes = encode(ownerRequestSchema, each);
      assert.deepEqual(decode(ownerRequestSchema, bytes, limits.maxOwnerMessageBytes), each);
    }
    assert.equal(ownerRequestSchema.def.options.length, requests.length);
  });

  it('for the secret, plugins or configuration does not exist', () => {
    for (const op of ['secret', 'rotate', 'config', 'plugins', 'sign'])
      assert.throws(() => check(ownerRequestSchema, { op }), { code: 'unsupported' });
  });

  it('is about named things: no other scope, end, service, capability or device', () => {
    for (const change of [
      { scope: 'admin' },
      { expires_s: 0 },
      { expires_s: 1.5 },
      { until: -1 },
      { admin: 'yes' },
      { services: ['*'] },
      { services: ['Grafana'] },
      { capabilities: ['*'] },
      { cocoon: 'laptop' },
      { services: Array.from({ length: limits.maxServices + 1 }, () => 'web') },
    ])
      assert.throws(() => check(ownerRequestSchema, { ...request, token: { ...request.token, ...change } }), {
        code: 'bad_message',
      });
    assert.throws(() => check(ownerRequestSchema, { op: 'revoke', device: otherOwner.id }), {
      code: 'bad_message',
    });
    assert.throws(() => check(ownerRequestSchema, { op: 'revoke_token', jti: 'x' }), { code: 'bad_message' });
    assert.throws(() => check(ownerRequestSchema, { op: 'remove_owner', owner: device.peerId }), {
      code: 'bad_message',
    });
  });
});

describe('the answer of a device that holds the secret', () => {
  it('fits into its limit with everything in it', () => {
    const expires = '2026-01-01T01:00:00.000Z';
    const answers: OwnerAnswer[] = [
      { token: { token, jti, scope: 'co-own', expires_at: expires, signaling: 'ws://192.0.2.10/ws' } },
      { membership, share },
      {
        revocations: {
          kind: 'tell',
          owner: owner.id,
          records: owner.records,
          after: 1,
          list: revocations.slice(1),
        },
      },
      { error: { code: 'denied', message: 'You may not do that', hint: 'Ask the owner for the right.' } },
      {},
    ];
    for (const each of answers) {
      const bytes = encode(ownerAnswerSchema, each);
      assert.deepEqual(decode(ownerAnswerSchema, bytes, limits.maxOwnerMessageBytes), each);
    }
  });
});
