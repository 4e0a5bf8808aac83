import { strict as assert } from 'node:assert';
import test from 'node:test';
import type { Carrier, CarrierEvents } from './carrier.ts';
import { HeldCarrier } from './held-carrier.ts';

/** A carrier whose events the test fires by hand. */
function manual(): { inner: Carrier; fire: CarrierEvents; aborted: string[]; sent: Uint8Array[] } {
  const aborted: string[] = [];
  const sent: Uint8Array[] = [];
  const fire: CarrierEvents = { message: () => {}, writable: () => {}, closed: () => {} };
  const inner: Carrier = {
    kind: 'memory',
    maxMessageBytes: 10,
    writable: true,
    bufferedBytes: 3,
    send: (message) => sent.push(message),
    start: (events) => void Object.assign(fire, bound(events)),
    close: async () => {},
    abort: (reason) => {
      aborted.push(reason);
      fire.closed(reason);
    },
  };
  return { inner, fire, aborted, sent };
}

function bound(events: CarrierEvents): CarrierEvents {
  return {
    message: (bytes) => events.message(bytes),
    writable: () => events.writable(),
    closed: (reason) => events.closed(reason),
  };
}

function log(): { events: CarrierEvents; lines: string[] } {
  const lines: string[] = [];
  const events: CarrierEvents = {
    message: (bytes) => lines.push(String(bytes[0])),
    writable: () => lines.push('writable'),
    closed: (reason) => lines.push(`closed: ${reason}`),
  };
  return { events, lines };
}

const byte = (value: number): Uint8Array => Uint8Array.of(value);

test('what comes before anybody listens is delivered first and in order', () => {
  const { inner, fire } = manual();
  const carrier = new HeldCarrier(inner, 100);
  const { events, lines } = log();
  fire.message(byte(1));
  fire.message(byte(2));
  carrier.start(events);
  fire.message(byte(3));
  fire.writable();
  fire.closed('over');
  assert.deepEqual(lines, ['1', '2', '3', 'writable', 'closed: over']);
});

test('an owner that holds while it handles a message gets nothing after it, and the next owner gets the rest', () => {
  const { inner, fire } = manual();
  const carrier = new HeldCarrier(inner, 100);
  const first: number[] = [];
  for (const value of [1, 2, 3]) fire.message(byte(value));
  carrier.start({
    message: (bytes) => {
      first.push(bytes[0] ?? 0);
      if (bytes[0] === 2) carrier.hold();
    },
    writable: () => {},
    closed: () => {},
  });
  fire.message(byte(4));
  const { events, lines } = log();
  carrier.start(events);
  assert.deepEqual(first, [1, 2]);
  assert.deepEqual(lines, ['3', '4']);
});

test('an owner that hands on while it handles a message loses and repeats nothing', () => {
  const { inner, fire } = manual();
  const carrier = new HeldCarrier(inner, 100);
  const { events, lines } = log();
  for (const value of [1, 2, 3]) fire.message(byte(value));
  fire.closed('over');
  carrier.start({ message: () => carrier.start(events), writable: () => {}, closed: () => {} });
  assert.deepEqual(lines, ['2', '3', 'closed: over']);
});

test('a message that arrives inside the handling of another waits for its turn', () => {
  const { inner, fire } = manual();
  const carrier = new HeldCarrier(inner, 100);
  const lines: string[] = [];
  carrier.start({
    message: (bytes) => {
      lines.push(`begin ${bytes[0]}`);
      if (bytes[0] === 1) fire.message(byte(2));
      lines.push(`end ${bytes[0]}`);
    },
    writable: () => {},
    closed: () => {},
  });
  fire.message(byte(1));
  assert.deepEqual(lines, ['begin 1', 'end 1', 'begin 2', 'end 2']);
});

test('a handler that throws does not get the same message again', () => {
  const { inner, fire } = manual();
  const carrier = new HeldCarrier(inner, 100);
  const got: number[] = [];
  carrier.start({
    message: (bytes) => {
      got.push(bytes[0] ?? 0);
      if (bytes[0] === 1) throw new Error('a bug');
    },
    writable: () => {},
    closed: () => {},
  });
  assert.throws(() => fire.message(byte(1)), /a bug/);
  fire.message(byte(2));
  assert.deepEqual(got, [1, 2]);
});

test('a close is told once to every owner, after the messages that came before it', () => {
  const { inner, fire } = manual();
  const carrier = new HeldCarrier(inner, 100);
  fire.message(byte(1));
  fire.closed('over');
  fire.closed('again');
  for (const expected of [['1', 'closed: over'], ['closed: over']]) {
    const { events, lines } = log();
    carrier.start(events);
    assert.deepEqual(lines, expected);
  }
});

test('too many bytes with nobody listening close the carrier', () => {
  const { inner, fire, aborted } = manual();
  const carrier = new HeldCarrier(inner, 2);
  fire.message(byte(1));
  fire.message(byte(2));
  assert.equal(aborted.length, 0);
  fire.message(byte(3));
  assert.equal(aborted.length, 1);
  const { events, lines } = log();
  carrier.start(events);
  assert.equal(lines.length, 1, 'only the close is left');
});

test('sending, its limits and its back-pressure pass straight through', () => {
  const { inner, sent } = manual();
  const carrier = new HeldCarrier(inner, 2);
  const message = byte(7);
  carrier.send(message);
  assert.equal(sent[0], message);
  assert.deepEqual(
    [carrier.kind, carrier.maxMessageBytes, carrier.writable, carrier.bufferedBytes],
    ['memory', 10, true, 3],
  );
});
