import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { DeviceEntry, Hello, Rights, SigningKey } from '@cocoon-mesh/protocol';
import {
  coOwnerRights,
  encodeJson,
  generateSigningKey,
  helloSchema,
  narrowRights,
  signDeviceRecord,
  signRevocation,
  verifyDeviceRecord,
} from '@cocoon-mesh/protocol';
import { Admission } from './admission.ts';
import type { AdmissionOptions } from './admission.ts';
import { Directory } from './directory.ts';
import { RevocationNews } from './revocation-news.ts';
import { SelfRecords } from './self-records.ts';
import type { Party } from './trust-parties.contract.ts';
import { TrustOfPeer, member, newOwner, now, share } from './trust-parties.contract.ts';

const [mine, theirs, strangers] = [await newOwner(), await newOwner(), await newOwner()];

const services = [
  { name: 'web', type: 'http' },
  { name: 'wiki', type: 'http' },
  { name: 'db', type: 'tcp' },
] as const;
const capabilities = [
  { protocol: 'proxy.http', version: '1.0.0' },
  { protocol: 'llm.chat', version: '1.0.0' },
] as const;

async function device(owner: Party, change: Partial<Pick<AdmissionOptions, 'signs'>> = {}) {
  const key = await generateSigningKey();
  const { trust, clock } = await TrustOfPeer.create(key, await member(owner, key));
  const directory = new Directory({
    trust,
    self: key.peerId,
    pins: {},
    pinned: () => undefined,
    rejected: () => undefined,
  });
  const records = new SelfRecords(
    { key, clock, shares: () => trust.shares },
    { kind: 'cocoon', name: 'server', services, capabilities, location: 'attic' },
  );
  const log = (): void => undefined;
  const news = new RevocationNews({
    trust,
    clock,
    links: () => [],
    enforce: () => undefined,
    upload: () => false,
    log,
  });
  const admission = new Admission({
    self: key.peerId,
    instance: 'A'.repeat(22),
    engine: 'werift',
    trust,
    directory,
    news,
    records,
    signs: () => false,
    policy: () => true,
    denied: () => undefined,
    log,
    ...change,
  });
  return { key, trust, directory, admission };
}

type Device = Awaited<ReturnType<typeof device>>;

/** As signaling shows a device; with a record for one owner only when it says so. */
async function entry(
  key: SigningKey,
  owner: Party,
  more: Partial<DeviceEntry> & { audience?: string } = {},
): Promise<DeviceEntry> {
  const { audience, ...rest } = more;
  return {
    peer_id: key.peerId,
    online: true,
    load: 0,
    record: await signDeviceRecord(key, {
      kind: 'cocoon',
      name: 'other',
      seq: 1,
      services: [],
      capabilities: [],
      ...(audience === undefined ? {} : { audience }),
      iat: now,
    }),
    membership: await member(owner, key),
    last_seen: now,
    ...rest,
  };
}

/** What one device says to another in HELLO, when the other dials it. */
async function helloTo(from: Device, shown: DeviceEntry): Promise<Hello> {
  const vouched = await from.admission.vouch(shown);
  return from.admission.hello(shown.peer_id, vouched);
}

/** A cocoon of mine that is shared with a device of theirs, which knows it. */
async function visit(rights: Rights = coOwnerRights) {
  const cocoon = await device(mine);
  const visitor = await device(theirs);
  const proof = await share(mine, cocoon.key, theirs, { rights });
  await visitor.directory.apply(await entry(cocoon.key, mine, { audience: theirs.keys.id, share: proof }));
  return { cocoon, visitor, shown: await entry(visitor.key, theirs, { share: proof }) };
}

describe('what a device says of itself', () => {
  test('to a device of its own owner is everything, and that it can sign', async () => {
    const server = await device(mine, { signs: () => true });
    const hello = await helloTo(server, await entry(await generateSigningKey(), mine));
    const record = await verifyDeviceRecord(hello.record, server.key.peerId);
    assert.deepEqual([record.services, record.capabilities], [[...services], [...capabilities]]);
    assert.deepEqual([record.location, record.audience, hello.signs], ['attic', undefined, true]);
  });

  test('to a guest is what the guest may use, with no place and no word of who signs', async () => {
    const { cocoon, shown } = await visit(narrowRights(['db'], ['llm.chat']));
    const hello = await helloTo(cocoon, shown);
    const record = await verifyDeviceRecord(hello.record, cocoon.key.peerId);
    assert.deepEqual(record.services, [services[2]]);
    assert.deepEqual(record.capabilities, [capabilities[1]]);
    assert.deepEqual([record.audience, record.location], [theirs.keys.id, undefined]);
    assert.equal(hello.signs, undefined);
  });

  test('to a cocoon of another owner that it dials is its name, with the share that lets it come', async () => {
    const { cocoon, visitor, shown } = await visit();
    const hello = await visitor.admission.hello(cocoon.key.peerId, null);
    const record = await verifyDeviceRecord(hello.record, visitor.key.peerId);
    assert.deepEqual([record.services, record.capabilities, record.location], [[], [], undefined]);
    assert.deepEqual([record.name, record.audience], ['server', mine.keys.id]);
    assert.deepEqual(hello.share, shown.share);
    const { standing } = await cocoon.admission.judge(visitor.key.peerId, hello);
    assert.equal(standing.relation, 'co-owner');
  });

  test('is nothing before it knows whose device the other one is', async () => {
    const server = await device(mine);
    const other = await generateSigningKey();
    await assert.rejects(server.admission.hello(other.peerId, null), { code: 'device_not_found' });
  });
});

describe('a HELLO', () => {
  test('that brings the news that its sender is revoked is its last', async () => {
    const server = await device(mine);
    const lost = await generateSigningKey();
    const shown = await entry(lost, mine);
    const lostDevice = await device(mine);
    const hello = await helloTo(lostDevice, await entry(server.key, mine));
    const revoked = await signRevocation(mine.keys, [], { kind: 'device', subject: lost.peerId, now });
    const { membership, record } = shown;
    await server.admission.judge(lost.peerId, { ...hello, membership, record });
    const head = { owner: mine.keys.id, epoch: 0, n: 1, entries: [revoked] };
    await assert.rejects(
      server.admission.judge(lost.peerId, { ...hello, membership, record, revocations: [head] }),
      { code: 'revoked' },
    );
  });

  test('by which its sender’s owner gives the cocoon back lets nobody in, though the share is new to me', async () => {
    const { cocoon, visitor } = await visit();
    const hello = await visitor.admission.hello(cocoon.key.peerId, null);
    const content = { kind: 'share', subject: cocoon.key.peerId, now } as const;
    const given = await signRevocation(theirs.keys, [], content);
    const head = { owner: theirs.keys.id, epoch: 0, n: 1, entries: [given] };
    await assert.rejects(cocoon.admission.judge(visitor.key.peerId, { ...hello, revocations: [head] }), {
      code: 'revoked',
    });
  });

  test('of a stranger is refused, also with a share of another cocoon or of another owner', async () => {
    const { cocoon, visitor } = await visit();
    const stranger = await device(strangers);
    const hello = await visitor.admission.hello(cocoon.key.peerId, null);
    const { record } = await entry(stranger.key, strangers, { audience: mine.keys.id });
    const membership = await member(strangers, stranger.key);
    const others = await share(mine, visitor.key, strangers);
    for (const proof of [hello.share, others]) {
      const shown = { ...hello, membership, record, ...(proof ? { share: proof } : {}) };
      await assert.rejects(cocoon.admission.judge(stranger.key.peerId, shown), { code: 'denied' });
    }
  });

  test('fits the schema whoever it is for', async () => {
    const { cocoon, visitor, shown } = await visit();
    encodeJson(helloSchema, await helloTo(cocoon, shown));
    encodeJson(helloSchema, await visitor.admission.hello(cocoon.key.peerId, null));
  });
});

test('a cocoon that is shared with us is dialled and never dials us', async () => {
  const { cocoon, visitor, shown } = await visit();
  const { share: proof } = shown;
  const dials = await entry(cocoon.key, mine, {
    audience: theirs.keys.id,
    ...(proof ? { share: proof } : {}),
  });
  await assert.rejects(visitor.admission.vouch(dials), { code: 'denied' });
});
