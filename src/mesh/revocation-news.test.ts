import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { RevocationMessage } from '@cocoon-mesh/protocol';
import {
  ResetCode,
  decode,
  encode,
  generateSigningKey,
  limits,
  revocationMessageSchema,
  sessionVersions,
  signRevocation,
  streamProtocols,
} from '@cocoon-mesh/protocol';
import type { Link } from './links.ts';
import { readMessage } from './read-message.ts';
import { RevocationNews } from './revocation-news.ts';
import { sessionPair, turn } from './session-pair.contract.ts';
import { resetCodeOf } from './session-stream.ts';
import type { Session } from './session.ts';
import type { Stream } from './stream.ts';
import type { Standing } from './trust.ts';
import type { Party } from './trust-parties.contract.ts';
import { TrustOfPeer, member, newOwner, now, share } from './trust-parties.contract.ts';

const [mine, theirs, strangers] = [await newOwner(), await newOwner(), await newOwner()];

async function revocations({ keys }: Party, count: number): Promise<string[]> {
  const list: string[] = [];
  for (let n = 0; n < count; n++)
    list.push(await signRevocation(keys, list, { kind: 'device', subject: `device-${n}`, now }));
  return list;
}

const list = await revocations(mine, 5);

/** The news of one device, and links to peers whose ends the test holds. */
async function setUp() {
  const key = await generateSigningKey();
  const { trust, clock } = await TrustOfPeer.create(key, await member(mine, key));
  const links: Link[] = [];
  const uploads: (readonly string[])[] = [];
  const seen = { enforced: 0, online: true };
  const news = new RevocationNews({
    trust,
    clock,
    links: () => links,
    enforce: () => seen.enforced++,
    upload: (_owner, _records, piece) => {
      if (seen.online) uploads.push(piece);
      return seen.online;
    },
    log: () => undefined,
  });
  const meet = (peerId: string, owner = mine) => {
    const pair = sessionPair();
    const link = linkTo(peerId, owner, owner === mine ? 'own' : 'co-owner', pair.left);
    links.push(link);
    return { link, far: pair.right, come: pair.acceptedByRight, pair };
  };
  return { key, clock, trust, news, uploads, seen, meet };
}

function linkTo(
  peerId: string,
  { keys: owner }: Party,
  relation: Standing['relation'],
  session: Session,
): Link {
  const membership = {
    owner: owner.id,
    epoch: 0,
    peerId,
    rights: [],
    granted: 0,
    expires: null,
    until: null,
    jti: null,
    grantHash: null,
    serial: 1,
    provisional: false,
  };
  return {
    peerId,
    session,
    standing: { peerId, membership, share: null, relation, rights: [], expires: null },
    record: {
      v: 1,
      crit: [],
      peer_id: peerId,
      kind: 'cocoon',
      name: peerId,
      seq: 1,
      services: [],
      capabilities: [],
      iat: 0,
    },
    hello: {
      versions: [...sessionVersions],
      carriers: ['webrtc'],
      engine: 'werift',
      instance: 'x'.repeat(22),
      membership: { kind: 'membership', records: owner.records, membership: 'x.x.x' },
      record: 'x.x.x',
      revocations: [],
      max_streams: 16,
    },
    engine: 'werift',
    path: null,
  };
}

/** Signatures are checked outside this thread. */
async function until(done: () => boolean): Promise<void> {
  for (let rounds = 0; !done(); rounds++) {
    assert.ok(rounds < 5_000, 'it never came to that');
    await turn();
  }
}

async function told(stream: Stream): Promise<RevocationMessage> {
  const bytes = await readMessage(stream, limits.maxRevocationMessageBytes);
  return decode(revocationMessageSchema, bytes, limits.maxRevocationMessageBytes);
}

/** Says something to a device on a stream of its own; what it answers, or the code with which it refuses. */
async function say(
  { news }: Awaited<ReturnType<typeof setUp>>,
  { link, far, pair }: ReturnType<Awaited<ReturnType<typeof setUp>>['meet']>,
  bytes: Uint8Array,
): Promise<RevocationMessage | ResetCode | null> {
  const stream = far.open(streamProtocols.revocations);
  await turn();
  const arrived = pair.acceptedByLeft.at(-1) ?? assert.fail('no stream');
  void news.answer(arrived, link);
  stream.write(bytes);
  stream.end();
  try {
    const answer = await readMessage(stream, limits.maxRevocationMessageBytes);
    return answer.length === 0
      ? null
      : decode(revocationMessageSchema, answer, limits.maxRevocationMessageBytes);
  } catch (thrown) {
    return resetCodeOf(thrown);
  }
}

const ask = ({ keys }: Party): Uint8Array =>
  encode(revocationMessageSchema, { kind: 'ask', owner: keys.id, epoch: 0, after: 0 });

describe('news of revocations', () => {
  test('is enforced first and then told to every peer but the one that told it, and to signaling', async () => {
    const device = await setUp();
    const [teller, other] = [device.meet('teller'), device.meet('other')];
    assert.equal(await device.news.learn(mine.keys.id, undefined, list, 'teller'), true);
    assert.equal(device.seen.enforced, 1);
    await until(() => other.come.length === 1);
    const message = await told(other.come[0] ?? assert.fail());
    assert.ok(message.kind === 'tell');
    assert.deepEqual([message.owner, message.after, message.list], [mine.keys.id, 0, list]);
    assert.deepEqual(teller.come, []);
    assert.deepEqual(device.uploads, [list]);
    assert.equal(await device.news.learn(mine.keys.id, undefined, list, 'teller'), false);
    assert.equal(device.uploads.length, 1);
  });

  test('of signaling is not sent back to it, and what it lacks is sent at the next sign-in', async () => {
    const device = await setUp();
    await device.news.learn(mine.keys.id, undefined, list.slice(0, 3), null);
    assert.deepEqual(device.uploads, []);
    device.seen.online = false;
    await device.news.learn(mine.keys.id, undefined, list, 'somebody');
    device.seen.online = true;
    device.news.signalingHas(list.slice(0, 3));
    device.news.upload();
    assert.deepEqual(device.uploads, [list.slice(3)]);
    device.news.signalingHas([]);
    device.news.upload();
    assert.deepEqual(device.uploads[1], list);
  });

  test('that begins after a gap is passed on as it came, and the gap is asked for', async () => {
    const device = await setUp();
    const [teller, other] = [device.meet('teller'), device.meet('other')];
    const tell = {
      kind: 'tell',
      owner: mine.keys.id,
      records: mine.keys.records,
      after: 3,
      list: list.slice(3),
    } as const;
    const bytes = encode(revocationMessageSchema, { ...tell, records: [...tell.records] });
    assert.equal(await say(device, teller, bytes), null);
    await until(() => teller.come.length === 1 && other.come.length === 1);
    const question = teller.come[0] ?? assert.fail();
    assert.deepEqual(await told(question), { kind: 'ask', owner: mine.keys.id, epoch: 0, after: 0 });
    const passedOn = await told(other.come[0] ?? assert.fail());
    assert.deepEqual(passedOn.kind === 'tell' && passedOn.list, list.slice(3));
    question.write(
      encode(revocationMessageSchema, { ...tell, records: [...tell.records], after: 0, list: [...list] }),
    );
    question.end();
    await until(() => device.trust.revocations(mine.keys.id).length === list.length);
  });

  test('about an owner that has nothing to do with this device is neither learned nor told', async () => {
    const device = await setUp();
    const other = device.meet('other');
    const foreign = await revocations(strangers, 1);
    assert.equal(
      await device.news.learn(strangers.keys.id, strangers.keys.records, foreign, 'teller'),
      false,
    );
    await turn();
    assert.deepEqual([other.come, device.seen.enforced], [[], 0]);
  });

  test('with a forged entry changes nothing', async () => {
    const device = await setUp();
    const forged = await revocations(theirs, 1);
    assert.equal(await device.news.learn(mine.keys.id, undefined, forged, 'teller'), false);
    assert.deepEqual(device.trust.revocations(mine.keys.id), []);
  });
});

describe('a peer that asks', () => {
  test('is told what comes next', async () => {
    const device = await setUp();
    await device.trust.learn(mine.keys.id, undefined, list);
    const answer = await say(device, device.meet('peer'), ask(mine));
    assert.deepEqual(answer, {
      kind: 'tell',
      owner: mine.keys.id,
      records: mine.keys.records,
      after: 0,
      list,
    });
  });

  test('for another owner’s list than its own and mine learns nothing, not even whether I know it', async () => {
    const device = await setUp();
    await device.trust.share(await share(mine, device.key, strangers));
    const visitor = device.meet('visitor', theirs);
    assert.equal(await say(device, visitor, ask(strangers)), ResetCode.denied);
    assert.equal(await say(device, visitor, ask(theirs)), ResetCode.denied);
    assert.equal(typeof (await say(device, visitor, ask(mine))), 'object');
    assert.equal(typeof (await say(device, device.meet('own'), ask(strangers))), 'object');
  });

  test('is told no news of an owner that it has nothing to do with', async () => {
    const device = await setUp();
    await device.trust.share(await share(mine, device.key, strangers));
    const [visitor, own] = [device.meet('visitor', theirs), device.meet('own')];
    await device.news.learn(strangers.keys.id, undefined, await revocations(strangers, 1), 'teller');
    await until(() => own.come.length === 1);
    assert.deepEqual(visitor.come, []);
    await device.news.learn(mine.keys.id, undefined, list, 'teller');
    await until(() => visitor.come.length === 1);
  });

  test('with nonsense, or with more than a message, is refused', async () => {
    const device = await setUp();
    const peer = device.meet('peer');
    assert.equal(await say(device, peer, Uint8Array.of(1, 2, 3)), ResetCode.badHeader);
    const large = new Uint8Array(limits.maxRevocationMessageBytes + 1);
    assert.equal(await say(device, peer, large), ResetCode.badHeader);
  });

  test('and says nothing more is given up, and only a few of its streams are looked at at once', async () => {
    const device = await setUp();
    const { link, far, pair } = device.meet('peer');
    const streams = Array.from({ length: limits.maxRevocationStreams + 1 }, () =>
      far.open(streamProtocols.revocations),
    );
    await turn();
    for (const arrived of pair.acceptedByLeft) void device.news.answer(arrived, link);
    const last = streams.at(-1) ?? assert.fail();
    await assert.rejects(last.read(), (error) => resetCodeOf(error) === ResetCode.tooManyStreams);
    device.clock.step(limits.revocationExchangeTimeoutMs);
    await assert.rejects(
      streams[0]?.read() ?? assert.fail(),
      (error) => resetCodeOf(error) === ResetCode.timeout,
    );
    await turn();
    assert.notEqual(
      await say(device, { link, far, come: pair.acceptedByRight, pair }, ask(mine)),
      ResetCode.tooManyStreams,
    );
  });
});
