import { strict as assert } from 'node:assert';
import test from 'node:test';
import type { Bytes, SigningKey } from '@cocoon-mesh/protocol';
import {
  concat,
  fromHex,
  fromUtf8,
  FrameType,
  frameHeadBytes,
  generateSigningKey,
  lengthPrefixed,
  limits,
  MeshError,
  randomBytes,
  toHex,
  utf8,
  writeFrameHead,
} from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import type { Carrier } from './carrier.ts';
import { MemoryCarrier, memoryCarrierPair } from './memory-carrier.ts';
import { nodeAead } from './noise-cipher.node.ts';
import { NoiseCipher, portableAead } from './noise-cipher.ts';
import { NoiseHandshake } from './noise.ts';
import type { ChannelBinding, ProofOptions, Proven } from './proof.ts';
import { proofPrologue, prove } from './proof.ts';

const [alice, bob, carol] = await Promise.all([
  generateSigningKey(),
  generateSigningKey(),
  generateSigningKey(),
]);
const clock = new SteppedClock();
const introduction = randomBytes(32);
const binding: ChannelBinding = { kind: 'memory', value: utf8('this pair') };
const shared = { binding, introduction, seal: false, clock };
/** Alice dials Bob. */
const dialler: ProofOptions = {
  ...shared,
  role: 'dialler',
  key: alice,
  expectedPeer: bob.peerId,
  hello: utf8('hello of alice'),
};
const listener: ProofOptions = {
  ...shared,
  role: 'listener',
  key: bob,
  expectedPeer: alice.peerId,
  hello: utf8('hello of bob'),
};

test.afterEach(() => assert.equal(clock.pendingTimers, 0, 'a proof left a timer behind'));

test('two peers that agree on everything learn who the other is and what it says', async () => {
  const [left, right] = memoryCarrierPair();
  const [ours, theirs] = await Promise.all([prove(left, dialler), prove(right, listener)]);
  assert.equal(fromUtf8(ours.remoteHello), 'hello of bob');
  assert.equal(fromUtf8(theirs.remoteHello), 'hello of alice');
  assert.equal(ours.sealed, false);
  await exchange(ours, theirs);
});

test('the carrier is sealed on both sides as soon as one side demands it', async () => {
  for (const [ours, theirs] of [
    [true, false],
    [false, true],
    [true, true],
  ] as const) {
    const [left, right] = memoryCarrierPair();
    const proven = await Promise.all([
      prove(left, { ...dialler, seal: ours, aead: nodeAead }),
      prove(right, { ...listener, seal: theirs, aead: portableAead }),
    ]);
    assert.deepEqual(
      proven.map(({ sealed }) => sealed),
      [true, true],
    );
    await exchange(...proven);
    for (const { carrier } of proven) carrier.abort('done');
  }
});

test('any difference in what both sides must agree on is refused by both', async (t) => {
  const fingerprints = [randomBytes(32), randomBytes(32), randomBytes(32)] as const;
  const webrtc = (offerer: Bytes, answerer: Bytes): Partial<ProofOptions> => ({
    binding: { kind: 'webrtc', offererFingerprint: offerer, answererFingerprint: answerer },
  });
  const agreed = webrtc(fingerprints[0], fingerprints[1]);
  const cases: Record<string, [Partial<ProofOptions>, Partial<ProofOptions>]> = {
    'the dialler waits for another peer': [{ expectedPeer: carol.peerId }, {}],
    'the listener waits for another peer': [{}, { expectedPeer: carol.peerId }],
    'another peer dials': [{ key: carol }, {}],
    'another peer listens': [{}, { key: carol }],
    'other introductions': [{}, { introduction: randomBytes(32) }],
    'other carriers': [{}, { binding: { kind: 'memory', value: utf8('that pair') } }],
    'other offerer fingerprints': [agreed, webrtc(fingerprints[2], fingerprints[1])],
    'other answerer fingerprints': [agreed, webrtc(fingerprints[0], fingerprints[2])],
    'fingerprints the wrong way round': [agreed, webrtc(fingerprints[1], fingerprints[0])],
    'another kind of carrier': [agreed, { binding: { kind: 'memory', value: utf8('this pair') } }],
    'both dial': [{}, { role: 'dialler' }],
    'both listen': [{ role: 'listener' }, {}],
  };
  const kind = ({ binding }: Partial<ProofOptions>): Carrier['kind'] => binding?.kind ?? 'memory';
  for (const [name, [ours, theirs]] of Object.entries(cases)) {
    await t.test(name, async () => {
      const [left, right] = memoryCarrierPair();
      const outcomes = await endOfBoth([
        prove(as(kind(ours), left), { ...dialler, ...ours }),
        prove(as(kind(theirs), right), { ...listener, ...theirs }),
      ]);
      for (const outcome of outcomes) {
        assert.ok(outcome instanceof MeshError, 'the proof passed');
        assert.match(outcome.code, /^proof_(failed|timeout)$/);
      }
      assertClosed(left);
      assertClosed(right);
    });
  }
  await t.test('and no difference passes', async () => {
    const [left, right] = memoryCarrierPair();
    await Promise.all([
      prove(as('webrtc', left), { ...dialler, ...agreed }),
      prove(as('webrtc', right), { ...listener, ...agreed }),
    ]);
  });
});

test('a relay between two carriers is refused, and would pass if the carriers were not in the proof', async () => {
  for (const bound of [true, false]) {
    const [left, relayLeft] = memoryCarrierPair();
    const [relayRight, right] = memoryCarrierPair();
    pipe(relayLeft, relayRight);
    const bindingOf = (value: string): ChannelBinding => ({
      kind: 'memory',
      value: utf8(bound ? value : ''),
    });
    const outcomes = await Promise.allSettled([
      prove(left, { ...dialler, binding: bindingOf('left') }),
      prove(right, { ...listener, binding: bindingOf('right') }),
    ]);
    const expected = bound ? 'rejected' : 'fulfilled';
    assert.deepEqual(
      outcomes.map(({ status }) => status),
      [expected, expected],
    );
  }
});

test('the own PeerId is refused before anything is sent', async () => {
  const [left, right] = memoryCarrierPair();
  const sent = tap(left);
  await assert.rejects(prove(sent.carrier, { ...dialler, expectedPeer: alice.peerId }), {
    code: 'self_connect',
  });
  assert.equal(sent.messages.length, 0);
  assertClosed(left);
  assertClosed(right);
});

test('a mirror that sends everything back proves nothing', async () => {
  const [left, right] = memoryCarrierPair();
  pipe(right, right);
  await assert.rejects(prove(left, dialler), { code: 'proof_failed' });
});

test('a carrier is proven once, by whatever name it goes', async () => {
  for (const again of ['the one passed in', 'the one that came out', 'the sealed one'] as const) {
    const [left, right] = memoryCarrierPair();
    const seal = again === 'the sealed one';
    const [ours] = await Promise.all([prove(left, { ...dialler, seal }), prove(right, listener)]);
    const carrier = again === 'the one passed in' ? left : ours.carrier;
    await assert.rejects(prove(carrier, dialler), { code: 'proof_failed', message: /proven before/ });
    assertClosed(left);
  }
});

test('the prologue has one reading: no two proofs that differ have the same', () => {
  const other = randomBytes(32);
  const prints = { offererFingerprint: introduction, answererFingerprint: other };
  const all = [
    dialler,
    { ...dialler, expectedPeer: carol.peerId },
    { ...dialler, key: carol },
    { ...dialler, role: 'listener' as const },
    { ...dialler, introduction: other },
    { ...dialler, binding: { kind: 'memory' as const, value: utf8('that pair') } },
    { ...dialler, binding: { kind: 'webrtc' as const, ...prints } },
    { ...dialler, binding: { kind: 'memory' as const, value: lengthPrefixed(introduction, other) } },
    {
      ...dialler,
      binding: { kind: 'webrtc' as const, offererFingerprint: other, answererFingerprint: introduction },
    },
  ].map((options) => toHex(proofPrologue(options, options.introduction)));
  assert.equal(new Set(all).size, all.length);
  assert.equal(all[0], toHex(proofPrologue(listener, introduction)), 'both sides see the same');
});

test('the prologue is the one that docs/protocol.md describes', () => {
  const peers = { role: 'dialler' as const, key: { ...alice, peerId: 'A' }, expectedPeer: 'BC' };
  const prints = { offererFingerprint: Uint8Array.of(1), answererFingerprint: Uint8Array.of(2, 3) };
  const hex = toHex(proofPrologue({ ...peers, binding: { kind: 'webrtc', ...prints } }, Uint8Array.of(9)));
  const part = (bytes: Uint8Array): string => bytes.length.toString(16).padStart(8, '0') + toHex(bytes);
  const binding = fromHex('0000000101000000020203');
  const parts = [utf8('cocoon/proof/1'), utf8('webrtc'), utf8('A'), utf8('BC'), binding, Uint8Array.of(9)];
  assert.equal(hex, parts.map(part).join(''));
});

test('a silent peer is given up after the time limit', async () => {
  for (const options of [dialler, listener]) {
    const [left, right] = memoryCarrierPair();
    const outcome = prove(left, options);
    await ticks();
    clock.step(limits.proofTimeoutMs - 1);
    assert.equal(right.writable, true, 'given up too early');
    clock.step(1);
    await assert.rejects(outcome, { code: 'proof_timeout' });
    assertClosed(left);
  }
});

test('a peer that stops anywhere in the proof is given up after the time limit', async () => {
  // The dialler sends two handshake messages and HELLO, the listener one and HELLO.
  for (const [stopper, messages] of [
    [dialler, 3],
    [listener, 2],
  ] as const) {
    for (let allowed = 0; allowed < messages; allowed++) {
      const [left, right] = memoryCarrierPair();
      const half = as('memory', left, (message, count) => (count < allowed ? message : null));
      const honest = prove(right, stopper === dialler ? listener : dialler);
      const stopped = prove(half, stopper).catch(() => {});
      await ticks();
      await ticks();
      clock.step(limits.proofTimeoutMs);
      await assert.rejects(honest, { code: 'proof_timeout' }, `${stopper.role} after ${allowed}`);
      assertClosed(right);
      await stopped;
    }
  }
});

test('one changed bit in any message of the proof is noticed', async () => {
  for (const [changer, messages] of [
    [dialler, 3],
    [listener, 2],
  ] as const) {
    for (let changed = 0; changed < messages; changed++) {
      const [left, right] = memoryCarrierPair();
      const flip = (message: Uint8Array, count: number): Uint8Array => {
        if (count === changed) message[message.length >>> 1] = (message[message.length >>> 1] ?? 0) ^ 1;
        return message;
      };
      const [, honest] = await endOfBoth([
        prove(as('memory', left, flip), changer),
        prove(right, changer === dialler ? listener : dialler),
      ]);
      assert.ok(honest instanceof MeshError, `${changer.role}'s message ${changed} passed`);
      assert.match(honest.code, /^proof_(failed|timeout)$/);
      assertClosed(right);
    }
  }
});

test('garbage of any size ends the proof', async () => {
  for (const options of [dialler, listener]) {
    for (const length of [1, 31, 32, 96, 500, limits.maxProofBytes]) {
      const [left, right] = memoryCarrierPair();
      const outcome = prove(left, options);
      for (let i = 0; i < 4; i++) right.send(randomBytes(length));
      await assert.rejects(outcome, { code: 'proof_failed' });
      assertClosed(left);
    }
  }
});

test('more bytes than a handshake may have close the carrier at once', async () => {
  for (const options of [dialler, listener]) {
    const [left, right] = memoryCarrierPair();
    const outcome = prove(left, options);
    right.send(randomBytes(limits.maxProofBytes + 1));
    await assert.rejects(outcome, { code: 'proof_failed', message: /too large/ });
    assertClosed(left);
  }
});

test('messages of an earlier proof prove nothing', async () => {
  const [left, right] = memoryCarrierPair();
  const sent = { dialler: tap(left), listener: tap(right) };
  await Promise.all([prove(sent.dialler.carrier, dialler), prove(sent.listener.carrier, listener)]);
  for (const [options, replayed] of [
    [listener, sent.dialler.messages],
    [dialler, sent.listener.messages],
  ] as const) {
    assert.ok(replayed.length >= 2);
    const [victim, attacker] = memoryCarrierPair();
    const outcome = prove(victim, options);
    for (const message of replayed) attacker.send(message);
    await assert.rejects(outcome, { code: 'proof_failed' });
  }
});

test('a HELLO of our own that is too large is refused before anything is sent', async () => {
  const [left] = memoryCarrierPair();
  const hello = new Uint8Array(limits.maxHelloBytes + 1);
  await assert.rejects(prove(left, { ...dialler, hello }), { code: 'message_too_large' });
  assertClosed(left);
});

test('the largest HELLO passes', async () => {
  const [left, right] = memoryCarrierPair();
  const hello = randomBytes(limits.maxHelloBytes);
  const [, theirs] = await Promise.all([prove(left, { ...dialler, hello }), prove(right, listener)]);
  assert.deepEqual(theirs.remoteHello, hello);
});

test('after the handshake only one well-formed HELLO is taken', async (t) => {
  const hello = (length: number, flags: number, type: number = FrameType.hello, stream = 0): Bytes => {
    const frame = new Uint8Array(frameHeadBytes + 1 + length);
    writeFrameHead(frame, 0, type as FrameType, 0, 1 + length, stream);
    frame[frameHeadBytes] = flags;
    return frame;
  };
  const cases: Record<string, Bytes> = {
    'an unknown flag': hello(4, 2),
    'another frame': hello(4, 0, FrameType.ping),
    'a HELLO on a stream': hello(4, 0, FrameType.hello, 1),
    'two HELLOs in one message': concat(hello(4, 0), hello(4, 0)),
    'a HELLO without flags': Uint8Array.of(FrameType.hello << 4, 0, 0, 0, 0, 0, 0, 0),
    'a HELLO that is cut off': hello(4, 0).subarray(0, 10),
    'a HELLO with frame flags': Uint8Array.of((FrameType.hello << 4) | 1, 0, 0, 1, 0, 0, 0, 0, 0),
    'one byte too many': hello(limits.maxHelloBytes + 1, 0),
    nothing: new Uint8Array(0),
  };
  for (const role of ['dialler', 'listener'] as const) {
    for (const [name, frame] of Object.entries(cases)) {
      await t.test(`${name}, at the ${role}`, async () => {
        const [left, right] = memoryCarrierPair();
        const outcome = prove(left, role === 'dialler' ? dialler : listener);
        const raw = await rawPeer(right, role === 'dialler' ? listener : dialler);
        right.send(raw.send.seal(frame));
        await assert.rejects(outcome, { code: 'proof_failed' });
        assertClosed(left);
      });
    }
    await t.test(`a good one passes at the ${role}`, async () => {
      const [left, right] = memoryCarrierPair();
      const outcome = prove(left, role === 'dialler' ? dialler : listener);
      const raw = await rawPeer(right, role === 'dialler' ? listener : dialler);
      right.send(raw.send.seal(hello(4, 0)));
      assert.equal((await outcome).remoteHello.length, 4);
    });
  }
});

test('more than HELLO before our own HELLO is out ends the proof', async () => {
  const [left, right] = memoryCarrierPair();
  const slow: SigningKey = { ...bob, sign: () => new Promise(() => {}) };
  const outcome = prove(left, { ...listener, key: slow });
  for (let i = 0; i < 4; i++) right.send(randomBytes(64));
  await assert.rejects(outcome, { code: 'proof_failed' });
});

test('frames packed right behind HELLO reach the session whole and in order', async (t) => {
  for (const role of ['dialler', 'listener'] as const) {
    for (const seal of [false, true]) {
      await t.test(`at a ${role}, ${seal ? 'sealed' : 'plain'}`, async () => {
        const [left, right] = memoryCarrierPair();
        const burst = new Burst(left);
        const outcome = prove(burst.carrier, { ...(role === 'dialler' ? dialler : listener), seal });
        const raw = await rawPeer(right, role === 'dialler' ? listener : dialler);
        const hello = new Uint8Array(frameHeadBytes + 1);
        writeFrameHead(hello, 0, FrameType.hello, 0, 1, 0);
        // The session's first bytes look like handshake, HELLO and anything else.
        const frames = [Uint8Array.of(0), hello, randomBytes(1000), utf8('last')];
        const gathered = burst.gather(1 + frames.length);
        right.send(raw.send.seal(hello));
        for (const bytes of frames) right.send(seal ? raw.send.seal(bytes, Uint8Array.of(0)) : bytes);
        await gathered;
        burst.release();
        const { carrier, sealed } = await outcome;
        assert.equal(sealed, seal);
        // The caller judges the HELLO first, while more comes.
        right.send(seal ? raw.send.seal(utf8('later'), Uint8Array.of(0)) : utf8('later'));
        await new Promise(setImmediate);
        const got: Uint8Array[] = [];
        await new Promise<void>((resolve) =>
          carrier.start({
            message: (bytes) => {
              got.push(bytes);
              if (got.length === frames.length + 1) resolve();
            },
            writable: () => {},
            closed: () => resolve(),
          }),
        );
        assert.deepEqual(
          got.map((bytes) => [...bytes]),
          [...frames, utf8('later')].map((bytes) => [...bytes]),
        );
        carrier.abort('done');
      });
    }
  }
});

test('bytes that nobody listens to are bounded after the proof', async () => {
  const [left, right] = memoryCarrierPair();
  const [, theirs] = await Promise.all([prove(left, dialler), prove(right, listener)]);
  const message = new Uint8Array(limits.maxCarrierMessageBytes);
  const most = (2 * limits.sessionWindowBytes) / message.length;
  for (let i = 0; i <= most; i++) left.send(message);
  await ticks();
  assertClosed(right);
  let reason = '';
  theirs.carrier.start({ message: () => {}, writable: () => {}, closed: (text) => (reason = text) });
  assert.match(reason, /too many bytes/);
});

test('a cancelled proof and a carrier that closes end it at once', async () => {
  const controller = new AbortController();
  const [left, right] = memoryCarrierPair();
  const cancelled = prove(left, { ...dialler, signal: controller.signal });
  const abandoned = prove(right, listener);
  controller.abort();
  await assert.rejects(cancelled, { code: 'cancelled' });
  await assert.rejects(abandoned, { code: 'proof_failed' });
  await assert.rejects(prove(memoryCarrierPair()[0], { ...dialler, signal: controller.signal }), {
    code: 'cancelled',
  });
});

test('a failed signature of our own key fails the proof and nothing else', async () => {
  const broken: SigningKey = { ...alice, sign: () => Promise.reject(new Error('the key store is locked')) };
  const [left] = memoryCarrierPair();
  await assert.rejects(prove(left, { ...dialler, key: broken }), (error: unknown) => {
    assert.ok(error instanceof MeshError);
    assert.equal(error.code, 'proof_failed');
    assert.match(String(error.cause), /locked/);
    return true;
  });
  assertClosed(left);
});

test('the device key signs nothing but a labelled key of this connection', async () => {
  const signed: string[] = [];
  const watched = (key: SigningKey): SigningKey => ({
    ...key,
    sign: (bytes) => {
      signed.push(new TextDecoder('latin1').decode(bytes));
      return key.sign(bytes);
    },
  });
  for (let i = 0; i < 2; i++) {
    const [left, right] = memoryCarrierPair();
    await Promise.all([
      prove(left, { ...dialler, key: watched(alice) }),
      prove(right, { ...listener, key: watched(bob) }),
    ]);
  }
  assert.equal(new Set(signed).size, 4, 'a Noise key was used twice');
  for (const text of signed) {
    assert.ok(text.startsWith('noise-libp2p-static-key:'));
    assert.equal(text.length, 'noise-libp2p-static-key:'.length + 32);
  }
});

/** Both proofs to their end: what remains waiting is ended by time. */
async function endOfBoth(proofs: Promise<Proven>[]): Promise<(Proven | MeshError)[]> {
  const ends = proofs.map((proof) => proof.catch((error: unknown) => error as MeshError));
  const stuck = Symbol('stuck');
  const first = await Promise.race([Promise.all(ends), ticks().then(() => stuck)]);
  if (first === stuck) clock.step(limits.proofTimeoutMs);
  return Promise.all(ends);
}

async function exchange(ours: Proven, theirs: Proven): Promise<void> {
  const arrivals = [arrival(ours.carrier), arrival(theirs.carrier)];
  ours.carrier.send(utf8('to you'));
  theirs.carrier.send(utf8('to me'));
  assert.deepEqual((await Promise.all(arrivals)).map(fromUtf8), ['to me', 'to you']);
}

function arrival(carrier: Carrier): Promise<Uint8Array> {
  return new Promise((message, closed) => carrier.start({ message, writable: () => {}, closed }));
}

/** A peer that does the handshake, waits for the other's HELLO, and then does whatever a test wants. */
async function rawPeer(carrier: Carrier, options: ProofOptions): Promise<{ send: NoiseCipher }> {
  const { role, key, expectedPeer, introduction } = options;
  const hello = Promise.withResolvers<void>();
  const handshake = new NoiseHandshake({
    role,
    key,
    expectedPeer,
    prologue: proofPrologue(options, introduction),
    send: (message) => carrier.send(message),
    signal: new AbortController().signal,
  });
  carrier.start({
    message: (bytes) => {
      if (handshake.wantsMessage) handshake.receive(bytes);
      else hello.resolve();
    },
    writable: () => {},
    closed: (reason) => hello.reject(new Error(reason)),
  });
  const { keys, lastMessage } = await handshake.finished;
  if (lastMessage) carrier.send(lastMessage);
  await hello.promise;
  return { send: new NoiseCipher(portableAead(keys.send)) };
}

/** The carrier under another name, its messages changed (or, with null, dropped) on the way out. */
function as(
  kind: Carrier['kind'],
  inner: Carrier,
  change: (message: Uint8Array, count: number) => Uint8Array | null = (message) => message,
): Carrier {
  let count = 0;
  return {
    kind,
    maxMessageBytes: inner.maxMessageBytes,
    writable: true,
    bufferedBytes: 0,
    send: (message) => {
      const changed = change(message, count++);
      if (changed) inner.send(changed);
    },
    start: (events) => inner.start(events),
    close: (reason) => inner.close(reason),
    abort: (reason) => inner.abort(reason),
  };
}

function tap(inner: Carrier): { carrier: Carrier; messages: Uint8Array[] } {
  const messages: Uint8Array[] = [];
  const carrier = as(inner.kind, inner, (message) => {
    messages.push(message.slice());
    return message;
  });
  return { carrier, messages };
}

/** Holds what arrives and lets it go in one go, inside one call. */
class Burst {
  readonly carrier: Carrier;
  #gathered: Uint8Array[] = [];
  #wanted = 0;
  #complete: () => void = () => {};
  #deliver: (bytes: Uint8Array) => void = () => {};

  constructor(inner: Carrier) {
    this.carrier = {
      ...as(inner.kind, inner),
      start: (events) => {
        this.#deliver = (bytes) => events.message(bytes);
        inner.start({
          message: (bytes) => this.#message(bytes),
          writable: () => events.writable(),
          closed: (reason) => events.closed(reason),
        });
      },
    };
  }

  /** Resolves when so many are held. */
  gather(count: number): Promise<void> {
    this.#wanted = count;
    return new Promise((resolve) => (this.#complete = resolve));
  }

  release(): void {
    this.#wanted = 0;
    for (const bytes of this.#gathered) this.#deliver(bytes);
  }

  #message(bytes: Uint8Array): void {
    if (this.#wanted === 0) return this.#deliver(bytes);
    this.#gathered.push(bytes);
    if (this.#gathered.length === this.#wanted) this.#complete();
  }
}

function pipe(left: Carrier, right: Carrier): void {
  const forward = (to: Carrier) => ({
    message: (bytes: Uint8Array) => to.send(bytes),
    writable: () => {},
    closed: (reason: string) => to.abort(reason),
  });
  left.start(forward(right));
  if (left !== right) right.start(forward(left));
}

function assertClosed(carrier: MemoryCarrier): void {
  let closed = false;
  carrier.start({ message: () => {}, writable: () => {}, closed: () => (closed = true) });
  assert.ok(closed, 'the carrier is still open');
}

/** Lets handshakes run until they wait for somebody: some of their steps are tasks of the crypto threads. */
async function ticks(): Promise<void> {
  for (let i = 0; i < 30; i++) await new Promise((resolve) => setImmediate(resolve));
}
