import { strict as assert } from 'node:assert';
import test from 'node:test';
import { generateSigningKey, limits, randomBytes, toHex, utf8 } from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import type { Carrier } from './carrier.ts';
import type { MemoryCarrierOptions } from './memory-carrier.ts';
import { memoryCarrierPair } from './memory-carrier.ts';
import { nodeAead } from './noise-cipher.node.ts';
import type { AeadFactory } from './noise-cipher.ts';
import { NoiseCipher, portableAead } from './noise-cipher.ts';
import type { NoiseKeys, ProofRole } from './noise.ts';
import { NoiseHandshake } from './noise.ts';
import { SealedCarrier } from './sealed-carrier.ts';

const [alice, bob, carol] = await Promise.all([
  generateSigningKey(),
  generateSigningKey(),
  generateSigningKey(),
]);
const marker = utf8('the secret that nobody below may read');
const data = Uint8Array.of(0);
const renew = Uint8Array.of(1);
const switchOver = Uint8Array.of(2);

interface PairOptions {
  readonly clock?: SteppedClock;
  readonly memory?: MemoryCarrierOptions;
  readonly renewAfterMessages?: number;
  readonly listenerKey?: typeof bob;
  readonly listenerExporter?: Uint8Array;
  /** For a dialler whose time stands still. */
  readonly diallerClock?: SteppedClock;
  readonly aead?: AeadFactory;
}

interface Pair {
  readonly clock: SteppedClock;
  readonly dialler: End;
  readonly listener: End;
}

/** One end with everything that a test may look at. */
interface End {
  readonly carrier: SealedCarrier;
  /** The carrier below and every message sent on it. */
  readonly inner: Carrier;
  readonly wire: Uint8Array[];
  readonly got: Uint8Array[];
  readonly closed: string[];
  /** Of each renewal that was begun. */
  readonly signals: AbortSignal[];
  /** The first keys, for a peer that does not follow the rules. */
  readonly keys: NoiseKeys;
}

function sealedPair(options: PairOptions = {}): Pair {
  const { clock = new SteppedClock(), memory, renewAfterMessages, aead = nodeAead } = options;
  const [there, back, exporter] = [randomBytes(32), randomBytes(32), randomBytes(32)];
  const [left, right] = memoryCarrierPair({ clock, ...memory });
  const end = (role: ProofRole, inner: Carrier): End => {
    const keys: NoiseKeys = {
      send: role === 'dialler' ? there : back,
      receive: role === 'dialler' ? back : there,
      exporter,
    };
    const wire: Uint8Array[] = [];
    const recorded = record(inner, wire);
    const signals: AbortSignal[] = [];
    const key = role === 'dialler' ? alice : (options.listenerKey ?? bob);
    const carrier = new SealedCarrier(recorded, {
      role,
      send: new NoiseCipher(aead(keys.send.slice())),
      receive: new NoiseCipher(aead(keys.receive.slice())),
      exporter: ((role === 'listener' ? options.listenerExporter : undefined) ?? exporter).slice(),
      aead,
      clock: (role === 'dialler' ? options.diallerClock : undefined) ?? clock,
      handshake: (prologue, signal, send) => {
        signals.push(signal);
        const expectedPeer = role === 'dialler' ? bob.peerId : alice.peerId;
        return new NoiseHandshake({ role, key, expectedPeer, prologue, send, signal });
      },
      ...(renewAfterMessages === undefined ? {} : { renewAfterMessages }),
    });
    const got: Uint8Array[] = [];
    const closed: string[] = [];
    carrier.start({
      message: (bytes) => got.push(bytes),
      writable: () => {},
      closed: (reason) => closed.push(reason),
    });
    return { carrier, inner: recorded, wire, got, closed, signals, keys };
  };
  return { clock, dialler: end('dialler', left), listener: end('listener', right) };
}

function record(inner: Carrier, wire: Uint8Array[]): Carrier {
  return {
    kind: inner.kind,
    maxMessageBytes: inner.maxMessageBytes,
    get writable() {
      return inner.writable;
    },
    get bufferedBytes() {
      return inner.bufferedBytes;
    },
    send: (message) => {
      wire.push(message.slice());
      inner.send(message);
    },
    start: (events) => inner.start(events),
    close: (reason) => inner.close(reason),
    abort: (reason) => inner.abort(reason),
  };
}

test('messages arrive whole, in order and one by one, and nothing of them shows below', async () => {
  for (const aead of [nodeAead, portableAead]) {
    const { dialler, listener, clock } = sealedPair({ aead });
    const messages = [marker, Uint8Array.of(7), randomBytes(dialler.carrier.maxMessageBytes), marker];
    for (const [from, to] of [
      [dialler, listener],
      [listener, dialler],
    ] as const) {
      for (const message of messages) from.carrier.send(message.slice());
      await until(() => to.got.length === messages.length);
      assert.deepEqual(
        to.got.map((bytes) => toHex(bytes)),
        messages.map(toHex),
      );
      assert.equal(from.wire.length, messages.length);
      for (const bytes of from.wire) assert.ok(!toHex(bytes).includes(toHex(marker)));
      assert.notDeepEqual(from.wire[0], from.wire[3]);
      for (const [i, bytes] of from.wire.entries()) assert.equal(bytes.length, messages[i]!.length + 17);
    }
    dialler.carrier.abort('done');
    assert.equal(clock.pendingTimers, 0);
  }
});

test('the largest message fits the carrier below, and a larger or empty one is refused', () => {
  const { dialler } = sealedPair();
  assert.equal(dialler.carrier.maxMessageBytes, 65_535 - 17);
  assert.equal(sealedPair({ memory: { maxMessageBytes: 1000 } }).dialler.carrier.maxMessageBytes, 983);
  assert.throws(() => dialler.carrier.send(new Uint8Array(dialler.carrier.maxMessageBytes + 1)), RangeError);
  assert.throws(() => dialler.carrier.send(new Uint8Array(0)), RangeError);
});

test('one changed bit anywhere closes the carrier on both sides and delivers nothing', async () => {
  const length = 4 + 17;
  for (let bit = 0; bit < length * 8; bit += 5) {
    const { dialler, listener, clock } = sealedPair();
    const sealed = new NoiseCipher(portableAead(dialler.keys.send.slice())).seal(utf8('1234'), data);
    sealed[bit >>> 3] = (sealed[bit >>> 3] ?? 0) ^ (1 << (bit & 7));
    dialler.inner.send(sealed);
    await until(() => listener.closed.length > 0 && dialler.closed.length > 0);
    assert.equal(listener.got.length, 0);
    assert.equal(listener.closed.length, 1);
    assert.equal(clock.pendingTimers, 0);
  }
});

test('a repeated, left out, foreign, too short or plain message closes the carrier', async () => {
  const key = (end: End): NoiseCipher => new NoiseCipher(portableAead(end.keys.send.slice()));
  const cases: Record<string, (from: End) => Uint8Array[]> = {
    repeated: (from) => {
      const sealed = key(from).seal(marker, data);
      return [sealed.slice(), sealed.slice()];
    },
    'left out': (from) => {
      const cipher = key(from);
      cipher.seal(marker, data);
      return [cipher.seal(marker, data)];
    },
    'sent back': (from) => [new NoiseCipher(portableAead(from.keys.receive.slice())).seal(marker, data)],
    'too short': () => [Uint8Array.of(1, 2, 3)],
    plain: () => [marker.slice()],
    'of an unknown kind': (from) => [key(from).seal(marker, Uint8Array.of(3))],
    'without a kind': (from) => [key(from).seal()],
    'empty data': (from) => [key(from).seal(data)],
    'a switch without keys': (from) => [key(from).seal(switchOver)],
    'a renewal too early': (from) => [key(from).seal(randomBytes(32), renew)],
  };
  for (const [name, make] of Object.entries(cases)) {
    const { dialler, listener, clock } = sealedPair();
    for (const message of make(dialler)) dialler.inner.send(message);
    await until(() => listener.closed.length > 0, name);
    assert.ok(listener.got.length <= 1);
    assert.equal(listener.wire.length, 0, 'it was answered');
    assert.equal(clock.pendingTimers, 0);
  }
});

test('only the dialler starts a renewal', async () => {
  const { dialler, listener, clock } = sealedPair();
  clock.step(limits.sealRenewMs - 1);
  listener.inner.send(new NoiseCipher(portableAead(listener.keys.send.slice())).seal(randomBytes(32), renew));
  await until(() => dialler.closed.length > 0);
  assert.match(String(dialler.closed), /nobody waits for/);
});

test('keys are renewed every hour while traffic goes on, and no message is lost, doubled or reordered', async () => {
  const { dialler, listener, clock } = sealedPair();
  const ends = [dialler, listener];
  let sent = 0;
  const say = (): void => {
    for (const { carrier } of ends) carrier.send(utf8(`message ${sent}`));
    sent++;
  };
  for (let hour = 1; hour <= 5; hour++) {
    say();
    clock.step(limits.sealRenewMs);
    // The clock stands still: each turn is a moment within the renewal.
    await until(() => {
      say();
      return ends.every(({ carrier }) => carrier.renewals === hour);
    });
    for (let i = 0; i < 3; i++) say();
  }
  await until(() => ends.every(({ got }) => got.length === sent));
  const expected = Array.from({ length: sent }, (_, i) => `message ${i}`);
  for (const { got, closed } of ends) {
    assert.deepEqual(
      got.map((bytes) => new TextDecoder().decode(bytes)),
      expected,
    );
    assert.deepEqual(closed, []);
  }
  assert.ok(sent > 20, 'no traffic was in flight');
  dialler.carrier.abort('done');
  assert.equal(clock.pendingTimers, 0);
});

test('a renewal also works when messages are slow and the two directions are far apart', async () => {
  const clock = new SteppedClock();
  let delay = 0;
  const { dialler, listener } = sealedPair({ clock, memory: { delayMs: () => (delay = (delay + 37) % 90) } });
  const total = 400;
  clock.step(limits.sealRenewMs);
  for (let i = 0; i < total; i++) {
    dialler.carrier.send(Uint8Array.of(i >>> 8, i));
    listener.carrier.send(Uint8Array.of(i >>> 8, i));
    clock.step(5);
    await new Promise(setImmediate);
  }
  await until(() => {
    clock.step(5);
    return dialler.carrier.renewals === 1 && listener.carrier.renewals === 1;
  });
  clock.step(200);
  for (const { got } of [dialler, listener]) {
    assert.deepEqual(
      got.map(([high = 0, low = 0]) => (high << 8) | low),
      Array.from({ length: total }, (_, i) => i),
    );
  }
});

test('old keys open nothing after a renewal', async () => {
  const { dialler, listener, clock } = sealedPair();
  const old = new NoiseCipher(portableAead(dialler.keys.send.slice()));
  clock.step(limits.sealRenewMs);
  await until(() => listener.carrier.renewals === 1);
  dialler.carrier.send(marker.slice());
  await until(() => listener.got.length === 1);
  // Whoever learned the first keys is in step with all that was sent under them.
  for (const sealed of dialler.wire.slice(0, -1)) old.seal(sealed.subarray(17), data);
  assert.throws(() => old.open(dialler.wire.at(-1)!));
  dialler.inner.send(old.seal(marker, data));
  await until(() => listener.closed.length > 0);
  assert.equal(listener.got.length, 1);
});

test('keys are renewed by the number of messages too, in whichever direction they went', async () => {
  for (const sender of ['dialler', 'listener'] as const) {
    const pair = sealedPair({ renewAfterMessages: 50 });
    for (let i = 0; i < 49; i++) pair[sender].carrier.send(Uint8Array.of(i));
    await until(() => pair.dialler.got.length + pair.listener.got.length === 49);
    assert.equal(pair.dialler.carrier.renewals, 0);
    assert.equal(pair.dialler.wire.length + pair.listener.wire.length, 49, 'renewed too early');
    pair[sender].carrier.send(Uint8Array.of(49));
    await until(() => pair.dialler.carrier.renewals === 1 && pair.listener.carrier.renewals === 1);
    for (const { closed } of [pair.dialler, pair.listener]) assert.deepEqual(closed, []);
  }
});

test('the count that renews keys is far below what one key may encrypt', () => {
  assert.ok(limits.sealRenewMessages <= 2 ** 30);
});

test('a peer that lets a renewal hang is cut after its time limit', async () => {
  const { dialler, listener, clock } = sealedPair();
  listener.inner.start({ message: () => {}, writable: () => {}, closed: () => {} });
  clock.step(limits.sealRenewMs);
  await until(() => dialler.wire.length === 1);
  clock.step(limits.sealRenewTimeoutMs - 1);
  assert.deepEqual(dialler.closed, []);
  clock.step(1);
  assert.match(String(dialler.closed), /not renewed in time/);
  assert.equal(dialler.closed.length, 1);
});

test('a dialler that never renews is cut by the listener', () => {
  const { listener, clock } = sealedPair({ diallerClock: new SteppedClock() });
  clock.step(2 * limits.sealRenewMs - 1);
  assert.deepEqual(listener.closed, []);
  clock.step(1);
  assert.match(String(listener.closed), /too old/);
});

test('another device cannot take over at a renewal', async () => {
  const { dialler, listener, clock } = sealedPair({ listenerKey: carol });
  clock.step(limits.sealRenewMs);
  await until(() => dialler.closed.length > 0 && listener.closed.length > 0);
  assert.equal(dialler.carrier.renewals, 0);
  assert.equal(clock.pendingTimers, 0);
});

test('a renewal is bound to what both sides kept of the handshake before it', async () => {
  const { dialler, listener, clock } = sealedPair({ listenerExporter: randomBytes(32) });
  clock.step(limits.sealRenewMs);
  await until(() => dialler.closed.length > 0 && listener.closed.length > 0);
  assert.equal(dialler.carrier.renewals, 0);
  assert.equal(listener.carrier.renewals, 0);
});

test('closing and aborting are told once, and stop timers and handshakes', async () => {
  for (const end of ['close', 'abort'] as const) {
    const { dialler, listener, clock } = sealedPair();
    clock.step(limits.sealRenewMs);
    await dialler.carrier[end]('enough');
    await until(() => listener.closed.length > 0);
    await new Promise(setImmediate);
    assert.equal(dialler.closed.length, 1);
    assert.deepEqual(
      dialler.signals.map(({ aborted }) => aborted),
      [true],
    );
    assert.equal(listener.closed.length, 1);
    assert.equal(clock.pendingTimers, 0);
    const wire = dialler.wire.length;
    dialler.carrier.send(marker.slice());
    assert.equal(dialler.wire.length, wire);
  }
});

test('a close that came first is told to whoever takes the carrier over', async () => {
  const { dialler } = sealedPair();
  dialler.carrier.abort('enough');
  const told: string[] = [];
  dialler.carrier.start({ message: () => {}, writable: () => {}, closed: (reason) => told.push(reason) });
  assert.deepEqual(told, ['enough']);
});

test('back-pressure of the carrier below passes through', async () => {
  const { dialler } = sealedPair({ memory: { highWaterBytes: 1000 } });
  let writable = 0;
  dialler.carrier.start({ message: () => {}, writable: () => writable++, closed: () => {} });
  assert.equal(dialler.carrier.writable, true);
  dialler.carrier.send(randomBytes(1000));
  assert.equal(dialler.carrier.writable, false);
  assert.equal(dialler.carrier.bufferedBytes, 1017);
  await until(() => writable === 1);
  assert.equal(dialler.carrier.writable, true);
});

/** Waits for what a chain of microtasks and crypto tasks brings about; each turn runs all that is due. */
async function until(condition: () => boolean, what = 'it'): Promise<void> {
  for (let turn = 0; turn < 100_000; turn++) {
    if (condition()) return;
    await new Promise(setImmediate);
  }
  assert.fail(`${what} did not happen`);
}
