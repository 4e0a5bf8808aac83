/** Real engines against somebody in the middle who holds the signaling, and what shows under DTLS. */

import { strict as assert } from 'node:assert';
import { createHash } from 'node:crypto';
import { before, describe, it } from 'node:test';
import type { SigningKey } from '@cocoon-mesh/protocol';
import { generateSigningKey, MeshError, randomBytes, systemClock, toHex, utf8 } from '@cocoon-mesh/protocol';
import type { Carrier } from './carrier.ts';
import type { Engine } from './engine.ts';
import type { Linked, Side } from './engine-pair.contract.ts';
import { link, listen, openSide } from './engine-pair.contract.ts';
import { libdatachannelEngine } from './engines/libdatachannel.node.ts';
import type { DtlsRecord } from './engines/werift-records.node.ts';
import { RecordOpener, RecordSealer } from './engines/werift-records.node.ts';
import { weriftEngine } from './engines/werift.node.ts';
import { nodeAead } from './noise-cipher.node.ts';
import type { ChannelBinding, Proven } from './proof.ts';
import { prove } from './proof.ts';
import { formatDescription, parseDescription } from './sdp.ts';
import { copiedCertificate, ownCertificate, StockPeer } from './stock-werift.contract.ts';

const marker = utf8('what only the two ends may read');
const introduction = randomBytes(32);
/** What the proof would be without its binding: the same bytes on every connection. */
const unbound: ChannelBinding = {
  kind: 'webrtc',
  offererFingerprint: new Uint8Array(32).fill(1),
  answererFingerprint: new Uint8Array(32).fill(2),
};

let alice: SigningKey;
let bob: SigningKey;
const engines: Record<string, Engine> = {};
before(async () => {
  [alice, bob] = await Promise.all([generateSigningKey(), generateSigningKey()]);
  engines['libdatachannel'] = await libdatachannelEngine();
  engines['werift'] = await weriftEngine();
});

const combinations = ['libdatachannel', 'werift'].flatMap((offering) =>
  ['libdatachannel', 'werift'].map((answering) => ({ offering, answering })),
);

for (const { offering, answering } of combinations) {
  describe(`${offering} to ${answering}`, { timeout: 90_000 }, () => {
    it('proves two peers that are linked directly', async () => {
      await using linked = await link(engine(offering), engine(answering));
      const proven = await proveBoth(
        [linked.offerer, linked.answerer],
        [bindingOf(linked, 'offerer'), bindingOf(linked, 'answerer')],
        [engine(offering).sealed, engine(answering).sealed],
      );
      const sealed = offering === 'werift' || answering === 'werift';
      for (const end of proven) assert.equal(accepted(end).sealed, sealed);
    });

    for (const relaying of ['libdatachannel', 'werift']) {
      it(`refuses a relay on ${relaying} that ends DTLS on both sides with its own certificates`, async () => {
        await using relay = await relayBetween(engine(offering), engine(relaying), engine(answering));
        const outcomes = await proveBoth(
          [relay.near.offerer, relay.far.answerer],
          [bindingOf(relay.near, 'offerer'), bindingOf(relay.far, 'answerer')],
          [engine(offering).sealed, engine(answering).sealed],
        );
        for (const outcome of outcomes) {
          assert.ok(outcome instanceof MeshError, 'the relay was accepted');
          assert.equal(outcome.code, 'proof_failed');
        }
      });
    }

    it('would accept that relay if the fingerprints were not in the prologue', async () => {
      await using relay = await relayBetween(engine(offering), engine('libdatachannel'), engine(answering));
      const seal = engine(offering).sealed || engine(answering).sealed;
      const [near, far] = await proveBoth(
        [relay.near.offerer, relay.far.answerer],
        [unbound, unbound],
        [engine(offering).sealed, engine(answering).sealed],
      );
      const arrived = listen(accepted(far).carrier);
      listen(accepted(near).carrier);
      accepted(near).carrier.send(marker.slice());
      await arrived.until(({ messages }) => messages.length === 1);
      // And where Noise does not keep encrypting, the relay would read along.
      assert.equal(relay.seen.some(containsMarker), !seal);
    });

    it('refuses a relay that shows the offerer a copy of the answerer’s certificate', async () => {
      // Signaling is the relay's: the answerer gets the relay's own certificate announced and presents its own.
      const victim = await startOffer(engine(offering));
      await using other = await answerTo(engine(answering), new StockPeer(await ownCertificate()));
      const copy = new StockPeer(copiedCertificate(other.certificate));
      const announced = parseDescription(await copy.answer(victim.offer), 'answer');
      assert.deepEqual(announced.fingerprint, other.side.connection.localFingerprint);
      for (const candidate of victim.side.candidates) copy.addCandidate(candidate);
      victim.onCandidate = (line) => copy.addCandidate(line);
      await victim.side.connection.acceptAnswer(formatDescription(announced));
      deliverCandidates(announced, victim.side);
      await assertNeverOpens(victim.side, copy);
    });

    it('refuses a relay that shows the answerer a copy of the offerer’s certificate', async () => {
      await using other = await offerTo(engine(offering), new StockPeer(await ownCertificate()));
      const copy = new StockPeer(copiedCertificate(other.certificate));
      const announced = parseDescription(await copy.offer(), 'offer');
      assert.deepEqual(announced.fingerprint, other.side.connection.localFingerprint);
      const victim = openSide(engine(answering), (line) => copy.addCandidate(line));
      await copy.acceptAnswer(await victim.connection.acceptOffer(formatDescription(announced)));
      for (const candidate of victim.candidates) copy.addCandidate(candidate);
      deliverCandidates(announced, victim);
      await assertNeverOpens(victim, copy);
    });
  });
}

describe('a copied certificate', { timeout: 30_000 }, () => {
  it('is a real attack: an engine that does not check the key takes it, in both DTLS roles', async () => {
    const { certPem, ...rest } = await ownCertificate();
    const der = Buffer.from(certPem.replaceAll(/-----.*-----|\s/g, ''), 'base64');
    for (const copyOffers of [true, false]) {
      const copy = new StockPeer(copiedCertificate(der));
      const stock = new StockPeer({ certPem: (await ownCertificate()).certPem, ...rest });
      const [offerer, answerer] = copyOffers ? [copy, stock] : [stock, copy];
      await offerer.acceptAnswer(await answerer.answer(await offerer.offer()));
      await Promise.all([copy.opened, stock.opened]);
      copy.send(marker);
      while (stock.received.length === 0) await new Promise((resolve) => setTimeout(resolve, 10));
      await Promise.all([copy.close(), stock.close()]);
    }
  });
});

describe('under DTLS', { timeout: 60_000 }, () => {
  for (const { offering, answering } of combinations) {
    if (offering !== 'werift' && answering !== 'werift') continue;
    it(`${offering} to ${answering}: nothing readable, because Noise keeps encrypting`, async () => {
      const sealed = await plaintextsUnderDtls(offering, answering, [
        engine(offering).sealed,
        engine(answering).sealed,
      ]);
      assert.ok(sealed.outward.length > 0 && sealed.inward.length > 0, 'the tap saw nothing');
      assert.ok(![...sealed.outward, ...sealed.inward].some(containsMarker), 'readable under DTLS');
      // The same tap reads the marker both ways when nobody asks for the seal.
      const plain = await plaintextsUnderDtls(offering, answering, [false, false]);
      assert.ok(plain.outward.some(containsMarker) && plain.inward.some(containsMarker));
    });
  }
});

type Outcome = Proven | MeshError;

interface Relay extends AsyncDisposable {
  /** The offerer with the relay, and the relay with the answerer. */
  readonly near: Linked;
  readonly far: Linked;
  /** All that passed. */
  readonly seen: Uint8Array[];
}

/** Two honest DTLS connections with somebody between them who passes every message on. */
async function relayBetween(offering: Engine, relaying: Engine, answering: Engine): Promise<Relay> {
  const near = await link(offering, relaying);
  const far = await link(relaying, answering);
  const seen: Uint8Array[] = [];
  const pass = (from: Carrier, to: Carrier): void =>
    from.start({
      message: (bytes) => {
        seen.push(bytes.slice());
        to.send(bytes);
      },
      writable: () => {},
      closed: (reason) => to.abort(reason),
    });
  pass(near.answerer, far.offerer);
  pass(far.offerer, near.answerer);
  return {
    near,
    far,
    seen,
    async [Symbol.asyncDispose]() {
      await Promise.all([near[Symbol.asyncDispose](), far[Symbol.asyncDispose]()]);
    },
  };
}

async function proveBoth(
  [near, far]: readonly [Carrier, Carrier],
  [nearBinding, farBinding]: readonly [ChannelBinding, ChannelBinding],
  [nearSeal, farSeal]: readonly [boolean, boolean],
): Promise<[Outcome, Outcome]> {
  const shared = { introduction, clock: systemClock, aead: nodeAead, hello: utf8('hello') };
  const refused = (error: unknown): MeshError => error as MeshError;
  const dialling = prove(near, {
    ...shared,
    role: 'dialler',
    key: alice,
    expectedPeer: bob.peerId,
    binding: nearBinding,
    seal: nearSeal,
  });
  const listening = prove(far, {
    ...shared,
    role: 'listener',
    key: bob,
    expectedPeer: alice.peerId,
    binding: farBinding,
    seal: farSeal,
  });
  return Promise.all([dialling.catch(refused), listening.catch(refused)]);
}

function accepted(outcome: Outcome): Proven {
  if (outcome instanceof MeshError) assert.fail(outcome);
  return outcome;
}

/** As each end of a connection sees it. */
function bindingOf({ pair }: Linked, end: 'offerer' | 'answerer'): ChannelBinding {
  const { localFingerprint, remoteFingerprint } = pair[end].connection;
  return end === 'offerer'
    ? { kind: 'webrtc', offererFingerprint: localFingerprint, answererFingerprint: remoteFingerprint }
    : { kind: 'webrtc', offererFingerprint: remoteFingerprint, answererFingerprint: localFingerprint };
}

interface Offering {
  readonly side: Side;
  readonly offer: string;
  onCandidate: (line: string | null) => void;
}

async function startOffer(victim: Engine): Promise<Offering> {
  const hook: { onCandidate: Offering['onCandidate'] } = { onCandidate: () => {} };
  const side = openSide(victim, (line) => hook.onCandidate(line));
  const offer = await side.connection.createOffer();
  return Object.assign(hook, { side, offer });
}

interface Reached extends AsyncDisposable {
  readonly side: Side;
  /** DER of what our engine presented to the relay. */
  readonly certificate: Buffer;
}

/** The relay's own certificate, honestly announced, towards an answering engine. */
async function answerTo(answering: Engine, own: StockPeer): Promise<Reached> {
  const announced = parseDescription(await own.offer(), 'offer');
  const side = openSide(answering, (line) => own.addCandidate(line));
  await own.acceptAnswer(await side.connection.acceptOffer(formatDescription(announced)));
  for (const candidate of side.candidates) own.addCandidate(candidate);
  deliverCandidates(announced, side);
  return reached(side, own);
}

async function offerTo(offering: Engine, own: StockPeer): Promise<Reached> {
  const victim = await startOffer(offering);
  const announced = parseDescription(await own.answer(victim.offer), 'answer');
  victim.onCandidate = (line) => own.addCandidate(line);
  for (const candidate of victim.side.candidates) own.addCandidate(candidate);
  await victim.side.connection.acceptAnswer(formatDescription(announced));
  deliverCandidates(announced, victim.side);
  return reached(victim.side, own);
}

async function reached(side: Side, own: StockPeer): Promise<Reached> {
  const certificate = await own.remoteCertificate;
  const print = createHash('sha256').update(certificate).digest();
  assert.deepEqual(new Uint8Array(print), side.connection.localFingerprint);
  return {
    side,
    certificate,
    async [Symbol.asyncDispose]() {
      await Promise.all([side.connection.close(), own.close()]);
    },
  };
}

/** Stock werift writes its candidates into the description. */
function deliverCandidates({ candidates }: ReturnType<typeof parseDescription>, to: Side): void {
  for (const { foundation, component, priority, address, port, type } of candidates) {
    to.connection.addCandidate(
      `candidate:${foundation} ${component} udp ${priority} ${address} ${port} typ ${type}`,
    );
  }
}

async function assertNeverOpens({ connection }: Side, copy: StockPeer): Promise<void> {
  const opened = await connection.opened(AbortSignal.timeout(30_000)).then(
    () => true,
    (error: unknown) => {
      assert.ok(error instanceof MeshError);
      assert.match(error.code, /^(carrier_lost|connect_timeout)$/);
      return false;
    },
  );
  await Promise.all([connection.close(), copy.close()]);
  assert.equal(opened, false, 'the copy was accepted');
  assert.equal(copy.received.length, 0);
}

/** Everything that werift's side encrypted and decrypted by DTLS while the marker went both ways. */
async function plaintextsUnderDtls(
  offering: string,
  answering: string,
  seal: readonly [boolean, boolean],
): Promise<Tap> {
  const tap = tapRecords();
  try {
    await using linked = await link(engine(offering), engine(answering));
    const proven = await proveBoth(
      [linked.offerer, linked.answerer],
      [bindingOf(linked, 'offerer'), bindingOf(linked, 'answerer')],
      seal,
    );
    const carriers = proven.map((end) => accepted(end).carrier);
    const listeners = carriers.map(listen);
    for (const carrier of carriers) carrier.send(marker.slice());
    await Promise.all(listeners.map((listener) => listener.until(({ messages }) => messages.length === 1)));
    for (const { messages } of listeners) assert.deepEqual(new Uint8Array(messages[0] ?? []), marker);
    return tap;
  } finally {
    tap.restore();
  }
}

interface Tap {
  readonly outward: Uint8Array[];
  readonly inward: Uint8Array[];
  readonly restore: () => void;
}

type SealRecord = (this: RecordSealer, type: number, plaintext: Buffer) => Buffer;
type OpenRecord = (this: RecordOpener, record: DtlsRecord) => Buffer | null;

/** All plaintexts of our werift engine's records, in this process. */
function tapRecords(): Tap {
  const outward: Uint8Array[] = [];
  const inward: Uint8Array[] = [];
  const seal: SealRecord = Reflect.get(RecordSealer.prototype, 'seal');
  const open: OpenRecord = Reflect.get(RecordOpener.prototype, 'open');
  RecordSealer.prototype.seal = function (type, plaintext) {
    outward.push(new Uint8Array(plaintext));
    return seal.call(this, type, plaintext);
  };
  RecordOpener.prototype.open = function (record) {
    const plaintext = open.call(this, record);
    if (plaintext) inward.push(new Uint8Array(plaintext));
    return plaintext;
  };
  return {
    outward,
    inward,
    restore: () => {
      RecordSealer.prototype.seal = seal;
      RecordOpener.prototype.open = open;
    },
  };
}

function containsMarker(bytes: Uint8Array): boolean {
  return toHex(bytes).includes(toHex(marker));
}

function engine(name: string): Engine {
  const found = engines[name];
  assert.ok(found);
  return found;
}
