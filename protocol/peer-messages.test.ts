import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { check, decode } from './codec.ts';
import { limits } from './limits.ts';
import type { Hello } from './peer-messages.ts';
import { encodeHello, helloSchema } from './peer-messages.ts';
import { sampleHello, sampleObjects } from './sample-objects.ts';

const sample = await sampleObjects();
const hello = sampleHello(sample);
const [entry = ''] = sample.revocations;

function read(bytes: Uint8Array): Hello {
  return decode(helloSchema, bytes, limits.maxHelloBytes);
}

/** Numbered, so that it shows which of them are left. */
function lists(count: number, length: number): Hello['revocations'] {
  return Array.from({ length: count }, () => ({
    owner: sample.owner.id,
    epoch: 0,
    n: length,
    entries: Array.from({ length }, (_, i) => `${entry}${i}`),
  }));
}

describe('HELLO', () => {
  it('is read as it was written', () => {
    assert.deepEqual(read(encodeHello(hello)), hello);
  });

  it('of two owners with the newest end of both lists has room for both chains after some rotations', () => {
    const full = { ...hello, share: sample.shareClaim, revocations: lists(2, limits.maxHelloRevocations) };
    const bytes = encodeHello(full);
    assert.deepEqual(read(bytes), full);
    // Each rotation adds a record of some 650 bytes to each of the chains, of which there are four.
    assert.ok(limits.maxHelloBytes - bytes.length > 8 * 4 * 650);
  });

  it('that would be too large leaves out the oldest revocations, and says still how far the lists go', () => {
    const length = limits.maxHelloRevocations;
    const shorter = read(encodeHello({ ...hello, revocations: lists(8, length) }));
    for (const { n, entries } of shorter.revocations) {
      assert.equal(n, length);
      assert.ok(entries.length > 0 && entries.length < length);
      assert.equal(entries.at(-1), `${entry}${length - 1}`);
    }
    const { revocations, ...rest } = shorter;
    assert.equal(revocations.length, 8);
    const { revocations: _, ...before } = hello;
    assert.deepEqual(rest, before);
    const long = entry.padEnd(limits.maxSignedObjectBytes, 'A');
    const large = lists(64, 1).map((list) => ({ ...list, entries: [long] }));
    for (const list of read(encodeHello({ ...hello, revocations: large })).revocations)
      assert.deepEqual(list.entries, []);
  });

  it('that is too large by itself is not made, and says so', () => {
    const records = Array.from({ length: limits.maxOwnerRecords }, () => 'A'.repeat(2048));
    const membership = { ...sample.membership, records };
    assert.throws(() => encodeHello({ ...hello, membership }), {
      code: 'message_too_large',
      message: /chains are too long/,
    });
  });

  it('with more than it may have is refused', () => {
    const { resume } = hello;
    for (const change of [
      { revocations: lists(limits.maxRevocationLists + 1, 0) },
      { revocations: lists(1, limits.maxHelloRevocations + 1) },
      { versions: [] },
      { max_streams: 0 },
      { signs: 'yes' },
      { share: sample.membership },
      { membership: sample.share },
      { resume: { ...resume, generation: 0 } },
    ])
      assert.throws(() => check(helloSchema, { ...hello, ...change }), { code: 'bad_message' });
  });
});
