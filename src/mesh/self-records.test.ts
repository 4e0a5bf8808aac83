import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { ProvenShare } from '@cocoon-mesh/protocol';
import { generateSigningKey, narrowRights, verifyDeviceRecord } from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { SelfRecords } from './self-records.ts';

const coOwner = `own_${'A'.repeat(43)}`;
const key = await generateSigningKey();

function shareOf(jti: string, service: string): ProvenShare {
  const share: Partial<ProvenShare> = {
    cocoon: key.peerId,
    coOwner,
    jti,
    rights: narrowRights([service], []),
  };
  return share as ProvenShare;
}

function recordsOf(shares: readonly ProvenShare[]): { records: SelfRecords; shares: ProvenShare[] } {
  const list = [...shares];
  const services = [
    { name: 'web', type: 'http' },
    { name: 'wiki', type: 'http' },
  ] as const;
  const records = new SelfRecords(
    { key, clock: new SteppedClock(), shares: () => list },
    { kind: 'cocoon', name: 'box', services, capabilities: [] },
  );
  return { records, shares: list };
}

describe('what a device says to an owner it is shared with', () => {
  test('names what that owner was given and nothing else', async () => {
    const { records } = recordsOf([shareOf('first', 'web')]);
    assert.equal(await records.follow(), true);
    const [jws = ''] = records.granted();
    const record = await verifyDeviceRecord(jws, key.peerId);
    assert.deepEqual(
      record.services.map(({ name }) => name),
      ['web'],
    );
    assert.equal(record.audience, coOwner);
  });

  test('is said once for a share, and again when the owner was invited anew with the same rights', async () => {
    const { records, shares } = recordsOf([shareOf('first', 'web')]);
    assert.equal(await records.follow(), true);
    assert.equal(await records.follow(), false);
    const [before] = records.granted();
    shares[0] = shareOf('second', 'web');
    assert.equal(await records.follow(), true);
    assert.notEqual(records.granted()[0], before);
  });

  test('is gone with the share', async () => {
    const { records, shares } = recordsOf([shareOf('first', 'web')]);
    await records.follow();
    shares.length = 0;
    assert.equal(await records.follow(), false);
    assert.deepEqual(records.granted(), []);
  });
});
