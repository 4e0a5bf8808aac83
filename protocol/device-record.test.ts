import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { CompactSign } from 'jose';
import { utf8 } from './bytes.ts';
import { signDeviceRecord, verifyDeviceRecord } from './device-record.ts';
import type { SigningKey } from './identity.ts';
import { limits } from './limits.ts';
import { sampleObjects } from './sample-objects.ts';

const { device, otherDevice, otherOwner, record, guestRecord } = await sampleObjects();
const content = await verifyDeviceRecord(record, device.peerId);

function signRaw(payload: object, key: SigningKey): Promise<string> {
  return new CompactSign(utf8(JSON.stringify(payload)))
    .setProtectedHeader({ alg: 'EdDSA', typ: 'device-record' })
    .sign(key.privateKey);
}

describe('a device record', () => {
  it("is the device's own and nobody else's", async () => {
    assert.equal(content.peer_id, device.peerId);
    await assert.rejects(verifyDeviceRecord(record, otherDevice.peerId), { code: 'bad_signature' });
    const misnamed = await signRaw({ ...content, peer_id: otherDevice.peerId }, device);
    await assert.rejects(verifyDeviceRecord(misnamed, device.peerId), { code: 'bad_signature' });
    const forged = await signRaw(content, otherDevice);
    await assert.rejects(verifyDeviceRecord(forged, device.peerId), { code: 'bad_signature' });
  });

  it('says for which other owner it was written, where it was', async () => {
    assert.equal(content.audience, undefined);
    assert.equal((await verifyDeviceRecord(guestRecord, device.peerId)).audience, otherOwner.id);
    const wrong = await signRaw({ ...content, audience: 'everybody' }, device);
    await assert.rejects(verifyDeviceRecord(wrong, device.peerId), { code: 'bad_message' });
  });

  it('with a name, service or capability outside the rules is refused', async () => {
    const many = Array.from({ length: limits.maxServices + 1 }, (_, i) => ({ name: `s${i}`, type: 'http' }));
    for (const change of [
      { name: 'Laptop' },
      { name: '' },
      { name: 'a--b' },
      { name: 'xn-a' },
      { name: '-a' },
      { name: 'a-' },
      { name: 'a'.repeat(32) },
      { name: 'a.b' },
      { services: [{ name: '../x', type: 'http' }] },
      { services: many },
      { capabilities: [{ protocol: 'LLM', version: '1.0.0' }] },
      { capabilities: [{ protocol: 'llm.chat', version: '^1.0.0' }] },
      { seq: -1 },
      { location: 'x'.repeat(129) },
    ]) {
      const jws = await signRaw({ ...content, ...change }, device);
      await assert.rejects(
        verifyDeviceRecord(jws, device.peerId),
        { code: 'bad_message' },
        JSON.stringify(change),
      );
    }
  });

  it('may say more than this version knows, unless it says that it matters', async () => {
    const more = await verifyDeviceRecord(
      await signRaw({ ...content, colour: 'red' }, device),
      device.peerId,
    );
    assert.deepEqual(more, content);
    const critical = await signRaw({ ...content, crit: ['colour'], colour: 'red' }, device);
    await assert.rejects(verifyDeviceRecord(critical, device.peerId), { code: 'unknown_constraint' });
  });

  it('that would be too large for others is not made', async () => {
    const { v: _, crit: __, peer_id: ___, ...own } = content;
    const services = Array.from({ length: 64 }, (_unused, i) => ({
      name: `s${i}`.padEnd(31, 's'),
      type: 'http' as const,
    }));
    const capabilities = Array.from({ length: 64 }, (_unused, i) => ({
      protocol: `p${i}`.padEnd(64, 'p'),
      version: '1.0.0',
    }));
    await assert.rejects(signDeviceRecord(device, { ...own, services, capabilities }), {
      code: 'message_too_large',
    });
    await signDeviceRecord(device, { ...own, services });
  });
});
