/*
 * The wire as kept in files. To write them anew after an intended change of a format (which needs a new version
 * once there was a release): COCOON_WRITE_VECTORS=1 node test/run.ts fast protocol/vectors.test.ts
 */

import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { fromHex, toHex } from './bytes.ts';
import { decode, decodeJson } from './codec.ts';
import { verifyDeviceRecord } from './device-record.ts';
import { readFrameHead } from './frame.ts';
import type { Redemption } from './grant.ts';
import { readSetupToken, verifyReceipt, verifyRedemption } from './grant.ts';
import { verifyMembership } from './membership.ts';
import { ownerKeys, secretFromText, secretToText, verifyOwnerRecords } from './owner.ts';
import { helloSchema } from './peer-messages.ts';
import { verifyRevocations } from './revocation.ts';
import { verifyShare } from './share.ts';
import { sampleStreamEncodings } from './sample-messages.ts';
import {
  encodeFrame,
  sampleEncodings,
  sampleFrames,
  sampleNow,
  sampleObjects,
  sampleSignIn,
  sampleSigned,
} from './sample-objects.ts';
import { clientMessageSchema, serverMessageSchema } from './signaling-messages.ts';
import { verifyTicket } from './ticket.ts';

const folder = new URL('./vectors/', import.meta.url);
const maxBytes = 1024 * 1024;

/** What the file keeps, after writing `fresh` into it when asked to. */
function kept<T>(name: string, fresh: T): T {
  if (process.env['COCOON_WRITE_VECTORS'] === '1') {
    mkdirSync(folder, { recursive: true });
    writeFileSync(new URL(`${name}.json`, folder), `${JSON.stringify(fresh, null, 2)}\n`);
  }
  return read(name) as T;
}

function read(name: string): unknown {
  return JSON.parse(readFileSync(new URL(`${name}.json`, folder), 'utf8'));
}

const sample = await sampleObjects();
const { owner, device, otherDevice, signaling } = sample;

describe('the kept vectors', () => {
  it('of keys and texts come out of the same seeds', async () => {
    const fresh = {
      owner: owner.id,
      rotated_owner: sample.rotated.id,
      owner_key: toHex(owner.key.publicKey),
      discovery_key: toHex(owner.discoveryKey),
      secret: await secretToText(sample.secret),
      secret_of_epoch_1: await secretToText({ ...sample.nextSecret, records: sample.rotated.records }),
      recovery_code: sample.recoveryCode,
      device: device.peerId,
      device_key: toHex(device.publicKey),
      setup_token: sample.token,
      co_own_token: sample.coOwnToken,
      sign_in_signature: toHex(await sampleSignIn(sample)),
    };
    assert.deepEqual(kept('keys', fresh), fresh);
  });

  it('of signed objects come out of the same keys', () => {
    const fresh = {
      ...sampleSigned(sample),
      'owner-record of epoch 1': sample.rotated.records[1] ?? '',
      'second revocation': sample.revocations[1] ?? '',
      redemption: sample.redemption,
      co_own_redemption: sample.coOwnRedemption,
      co_own_receipt: sample.coOwnReceipt,
      'device-record for another owner': sample.guestRecord,
    };
    assert.deepEqual(kept('signed-objects', fresh), fresh);
  });

  it('of signed objects are accepted, each in its place', async () => {
    const file = read('signed-objects') as ReturnType<typeof sampleSigned> & {
      redemption: Redemption;
      co_own_redemption: Redemption;
      co_own_receipt: string;
      'device-record for another owner': string;
    };
    const { redemption, receipt, membership, ticket, share, co_own_redemption: accepted } = file;
    const records = [file['owner-record']];
    assert.equal((await verifyOwnerRecords(records)).id, owner.id);
    const { grant } = await verifyRedemption(redemption);
    assert.equal((await verifyReceipt(receipt, grant, device.peerId)).iat, sampleNow + 60);
    const claim = await verifyMembership({ kind: 'claim', redemption, receipt }, device.peerId, sampleNow);
    assert.equal(claim.provisional, true);
    const proof = { kind: 'membership', records, membership } as const;
    assert.equal((await verifyMembership(proof, device.peerId, sampleNow)).serial, 3);
    const signedShare = { kind: 'share', records, share, redemption: accepted } as const;
    assert.equal((await verifyShare(signedShare, sampleNow)).coOwner, sample.otherOwner.id);
    const shareClaim = { kind: 'claim', redemption: accepted, receipt: file.co_own_receipt } as const;
    assert.equal((await verifyShare(shareClaim, sampleNow)).provisional, true);
    assert.equal((await verifyDeviceRecord(file['device-record'], device.peerId)).name, 'laptop');
    const guestRecord = await verifyDeviceRecord(file['device-record for another owner'], device.peerId);
    assert.equal(guestRecord.audience, sample.otherOwner.id);
    const [entry] = await verifyRevocations([file.revocation], await verifyOwnerRecords(records));
    assert.equal(entry?.subject, otherDevice.peerId);
    const expected = { offerer: device.peerId, answerer: otherDevice.peerId };
    const opened = await verifyTicket(ticket, signaling.ticketKey.publicKey, expected, sampleNow);
    assert.equal(opened.owner, owner.id);
  });

  it('of texts are read back', async () => {
    const file = read('keys') as Record<
      'secret' | 'secret_of_epoch_1' | 'setup_token' | 'co_own_token',
      string
    >;
    assert.deepEqual(await secretFromText(file.secret), sample.secret);
    const rotated = await ownerKeys(await secretFromText(file.secret_of_epoch_1));
    assert.deepEqual([rotated.id, rotated.epoch], [owner.id, 1]);
    assert.equal((await readSetupToken(file.setup_token)).grant.scope, 'enroll');
    assert.equal((await readSetupToken(file.co_own_token)).grant.cocoon, device.peerId);
  });

  it('of messages are written and read, byte for byte, in both encodings', async () => {
    const { client, server, hello } = await sampleEncodings(sample);
    const fresh = {
      client: client.map(({ message, msgpack, json }) => ({
        type: message.type,
        msgpack: toHex(msgpack),
        json,
      })),
      server: server.map(({ message, msgpack, json }) => ({
        type: message.type,
        msgpack: toHex(msgpack),
        json,
      })),
      hello: toHex(hello.msgpack),
    };
    const file = kept('messages', fresh);
    assert.deepEqual(file, fresh);
    for (const [i, { msgpack, json }] of file.client.entries()) {
      assert.deepEqual(decode(clientMessageSchema, fromHex(msgpack), maxBytes), client[i]?.message);
      assert.deepEqual(decodeJson(clientMessageSchema, json, maxBytes), client[i]?.message);
    }
    for (const [i, { msgpack, json }] of file.server.entries()) {
      assert.deepEqual(decode(serverMessageSchema, fromHex(msgpack), maxBytes), server[i]?.message);
      assert.deepEqual(decodeJson(serverMessageSchema, json, maxBytes), server[i]?.message);
    }
    assert.deepEqual(decode(helloSchema, fromHex(file.hello), maxBytes), hello.message);
  });

  it('of messages about tasks, queries and capabilities are written and read, byte for byte', () => {
    const samples = Object.entries(sampleStreamEncodings());
    const fresh = Object.fromEntries(
      samples.map(([name, messages]) => [name, messages.map(({ msgpack }) => toHex(msgpack))]),
    );
    const file = kept('stream-messages', fresh);
    assert.deepEqual(file, fresh);
    for (const [name, messages] of samples)
      for (const [i, sample] of messages.entries())
        assert.deepEqual(sample.read(fromHex(file[name]?.[i] ?? '')), sample.message);
  });

  it('of frames are written and read, byte for byte', () => {
    const frames = sampleFrames();
    const fresh = frames.map((frame) => ({
      name: frame.name,
      type: frame.type as number,
      flags: frame.flags,
      stream: frame.streamId,
      length: frame.payload.length,
      hex: toHex(encodeFrame(frame)),
    }));
    const file = kept('frames', fresh);
    assert.deepEqual(file, fresh);
    for (const { type, flags, stream, length, hex } of file)
      assert.deepEqual(readFrameHead(fromHex(hex), 0), { type, flags, streamId: stream, length });
  });
});
