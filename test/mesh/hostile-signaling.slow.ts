import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Introduction } from '@cocoon-mesh/mesh/introduction.ts';
import type { Engine } from '@cocoon-mesh/mesh';
import { libdatachannelEngine } from '@cocoon-mesh/mesh/engines/libdatachannel.node.ts';
import { weriftEngine } from '@cocoon-mesh/mesh/engines/werift.node.ts';
import type { DeviceEntry, SigningKey } from '@cocoon-mesh/protocol';
import {
  SignatureLabel,
  concat,
  fromBase64Url,
  generateSigningKey,
  importPublicKey,
  lengthPrefixed,
  limits,
  memberRights,
  publicKeyOf,
  randomBytes,
  sessionVersions,
  signDeviceRecord,
  signInParts,
  signMembership,
  systemClock,
  toBase64Url,
  toMeshError,
  utf8,
  verifyDeviceRecord,
  verifyLabelled,
} from '@cocoon-mesh/protocol';
import type { HostileHooks } from '../doubles/hostile-signaling.ts';
import { HostileSignaling, jtiOf, swapFingerprint } from '../doubles/hostile-signaling.ts';
import type { Peer } from './two-peers.ts';
import { listed, newOwner, standingOf, startPeer } from './two-peers.ts';

const engines: readonly (readonly [string, () => Promise<Engine>])[] = [
  ['libdatachannel', () => libdatachannelEngine()],
  ['werift', () => weriftEngine()],
];

for (const [name, load] of engines) {
  describe(`with ${name}, a signaling server that is hostile`, () => {
    let engine: Engine;
    let signaling: HostileSignaling;
    let anna: Peer;
    let ben: Peer;
    const log: string[] = [];

    before(async () => {
      engine = await load();
      signaling = await HostileSignaling.start();
      const owner = await newOwner();
      const common = { owner, engine, signalingUrl: signaling.url, logged: (line: string) => log.push(line) };
      anna = await startPeer({ ...common, name: 'anna' });
      ben = await startPeer({ ...common, name: 'ben' });
      await Promise.all([listed(anna.mesh, ben.key.peerId), listed(ben.mesh, anna.key.peerId)]);
    });

    after(async () => {
      await anna.mesh.close();
      await ben.mesh.close();
      await signaling.close();
    });

    /** Runs with a fresh link between the two, and says how the ping of a session ended. */
    async function pingWith(hooks: HostileHooks): Promise<string> {
      signaling.hooks = hooks;
      try {
        await anna.mesh.ping(ben.key.peerId);
        return 'ok';
      } catch (thrown) {
        return toMeshError(thrown).code;
      } finally {
        signaling.hooks = {};
        await apart(anna, ben);
      }
    }

    test('that behaves lets two devices of one owner meet', async () => {
      assert.equal(await pingWith({}), 'ok');
    });

    test('that swaps the fingerprint of the offer gets no session', async () => {
      const outcome = await pingWith({
        relay: (payload) => (payload.kind === 'offer' ? swapFingerprint(payload) : payload),
      });
      assert.notEqual(outcome, 'ok');
      assert.equal(ben.mesh.sessionCount, 0);
    });

    test('that swaps the fingerprint of the answer gets no session', async () => {
      const outcome = await pingWith({
        relay: (payload) => (payload.kind === 'answer' ? swapFingerprint(payload) : payload),
      });
      assert.notEqual(outcome, 'ok');
      assert.equal(ben.mesh.sessionCount, 0);
    });

    test('that shows a ticket a second time is refused', async () => {
      assert.equal(await pingWith({}), 'ok');
      const used = signaling.tickets.at(-1) ?? '';
      assert.equal(await pingWith({ ticket: () => used }), 'ticket_used');
    });

    test('that mints a ticket between others than it says is refused', async () => {
      const other = await signaling.mint(ben.key.peerId, anna.key.peerId);
      const outcome = await pingWith({ ticket: () => other });
      assert.equal(outcome, 'ticket_invalid');
    });

    test('that introduces a peer of its own with its own membership is refused before a connection is made', async () => {
      const stranger = await generateSigningKey();
      const theirs = await newOwner();
      const membership = await signMembership(theirs, terms(stranger.peerId));
      const entry = await entryOf(stranger, 'ben', membership);
      const said = logged(log, 'An introduction was refused');
      signaling.introduce(anna.key.peerId, await signaling.mint(stranger.peerId, anna.key.peerId), entry);
      assert.match(await said, /denied/);
      assert.equal(anna.mesh.sessionCount, 0);
    });

    test("that introduces a peer of its own with ben's stolen membership is refused before a connection is made", async () => {
      const stranger = await generateSigningKey();
      const entry = await entryOf(stranger, 'ben', ben.membership);
      const said = logged(log, 'An introduction was refused');
      signaling.introduce(anna.key.peerId, await signaling.mint(stranger.peerId, anna.key.peerId), entry);
      assert.match(await said, /membership_invalid/);
      assert.equal(anna.mesh.sessionCount, 0);
    });

    test('that poses as ben with everything but his key gets no session', async () => {
      const stranger = await generateSigningKey();
      const outcome = await pose(signaling, engine, { as: ben, to: anna, key: stranger });
      assert.equal(outcome, 'proof_failed');
      assert.equal(anna.mesh.sessionCount, 0);
    });

    test("that shows anna ben's membership while his HELLO shows another owner's gets no session", async () => {
      const membership = await signMembership(await newOwner(), terms(ben.key.peerId));
      const said = logged(log, 'An introduction was refused');
      await pose(signaling, engine, { as: ben, to: anna, key: ben.key, membership });
      assert.match(await said, /denied/);
      assert.equal(anna.mesh.sessionCount, 0);
    });

    test('that renames a device or adds a capability to it is not believed', async () => {
      const entry = signaling.entry(ben.key.peerId);
      const [head = '', payload = '', signature = ''] = entry.record.split('.');
      const record = JSON.parse(Buffer.from(payload, 'base64url').toString()) as Record<string, unknown>;
      const forged = (change: Record<string, unknown>): DeviceEntry => ({
        ...entry,
        record: `${head}.${Buffer.from(JSON.stringify({ ...record, seq: Number(record['seq']) + 1, ...change })).toString('base64url')}.${signature}`,
      });
      for (const change of [
        { name: 'bank' },
        { capabilities: [{ protocol: 'llm.chat', version: '9.0.0' }] },
      ]) {
        const said = logged(log, 'proves nothing');
        signaling.send(anna.key.peerId, { type: 'device', device: forged(change) });
        await said;
        const seen = anna.mesh.resolve(ben.key.peerId);
        assert.equal(seen.name, 'ben');
        assert.deepEqual(seen.capabilities, []);
      }
    });

    test('that chooses the challenge obtains no signature that Noise or another server would take', async () => {
      const signIn = signaling.signIns.find(({ peerId }) => peerId === anna.key.peerId);
      assert.ok(signIn);
      const signature = fromBase64Url(signIn.signature);
      const key = publicKeyOf(anna.key.peerId);
      const parts = (publicUrl: string): Uint8Array =>
        signInParts({
          publicUrl,
          clientNonce: signIn.clientNonce,
          serverNonce: signIn.serverNonce,
          time: signIn.time,
        });
      await verifyLabelled(key, signature, SignatureLabel.signIn, parts(signaling.url));
      await assert.rejects(
        verifyLabelled(key, signature, SignatureLabel.signIn, parts('wss://mesh.example/ws')),
      );
      const noise = concat(utf8('noise-libp2p-static-key:'), randomBytes(32));
      const signed = concat(utf8(SignatureLabel.signIn), lengthPrefixed(parts(signaling.url)));
      assert.notDeepEqual(signed.subarray(0, 24), noise.subarray(0, 24));
      assert.equal(
        await crypto.subtle.verify('Ed25519', await importPublicKey(key), signature, noise),
        false,
      );
    });
  });
}

/** Plays ben to anna with all that signaling knows of him, but with another key or another membership. */
async function pose(
  signaling: HostileSignaling,
  engine: Engine,
  roles: { as: Peer; to: Peer; key: SigningKey; membership?: DeviceEntry['membership'] },
): Promise<string> {
  const { as, to, key } = roles;
  const entry = signaling.entry(as.key.peerId);
  const { membership = entry.membership } = roles;
  const ticket = await signaling.mint(as.key.peerId, to.key.peerId);
  const jti = jtiOf(ticket);
  const introduction: Introduction = new Introduction({
    // The dialler's PeerId in the prologue is ben's; only the signature under Noise is by another key.
    key: { ...key, peerId: as.key.peerId },
    engine,
    iceServers: [],
    clock: systemClock,
    peerId: to.key.peerId,
    role: 'dialler',
    ticket,
    sendSignal: (payload) => signaling.send(to.key.peerId, { type: 'signal', jti, payload }),
    hello: async () => ({
      versions: [...sessionVersions],
      carriers: ['webrtc'],
      engine: engine.name,
      instance: toBase64Url(randomBytes(16)),
      membership,
      record: entry.record,
      revocations: [],
      max_streams: limits.maxStreams,
    }),
    judge: async (theirs) => {
      assert.ok(roles.membership, 'anna must not get this far');
      return {
        record: await verifyDeviceRecord(theirs.record, to.key.peerId),
        standing: await standingOf(to.key.peerId, theirs.membership),
      };
    },
  });
  signaling.intercept(jti, (payload) => introduction.receive(payload));
  signaling.introduce(to.key.peerId, ticket, entry);
  try {
    await (await introduction.run()).connection.close();
    return 'ok';
  } catch (thrown) {
    return toMeshError(thrown).code;
  }
}

function terms(peerId: string): Parameters<typeof signMembership>[1] {
  return { peerId, serial: 1, rights: memberRights, now: Math.floor(Date.now() / 1000) };
}

async function entryOf(
  key: SigningKey,
  name: string,
  membership: DeviceEntry['membership'],
): Promise<DeviceEntry> {
  const now = Math.floor(Date.now() / 1000);
  const record = await signDeviceRecord(key, {
    kind: 'cocoon',
    name,
    seq: Date.now(),
    services: [],
    capabilities: [],
    iat: now,
  });
  return { peer_id: key.peerId, online: true, load: 0, record, membership, last_seen: now };
}

/** The next line of the log that says this. */
async function logged(log: string[], text: string): Promise<string> {
  const from = log.length;
  for (const end = Date.now() + 10_000; Date.now() < end;) {
    const line = log.slice(from).find((candidate) => candidate.includes(text));
    if (line !== undefined) return line;
    await new Promise((resolve) => setImmediate(resolve));
  }
  throw new Error(`nobody said: ${text}`);
}

/** Ends the link between the two, on both sides. */
async function apart(left: Peer, right: Peer): Promise<void> {
  const gone = (peer: Peer): Promise<void> =>
    new Promise((resolve) => {
      if (peer.mesh.sessionCount === 0) return resolve();
      const forget = peer.mesh.on('session', (_, up) => {
        if (up || peer.mesh.sessionCount > 0) return;
        forget();
        resolve();
      });
    });
  left.mesh.disconnect(right.key.peerId);
  await Promise.all([gone(left), gone(right)]);
}
