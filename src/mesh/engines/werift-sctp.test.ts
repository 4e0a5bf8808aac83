import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { ChunkType, PacketWriter, checksum, parsePacket } from './werift-sctp-packet.node.ts';
import { SctpAssociation } from './werift-sctp.node.ts';

const mtu = 1400;

interface End {
  readonly association: SctpAssociation;
  readonly messages: Buffer[];
  readonly protocols: number[];
  opens: number;
  progress: number;
  closed: string | undefined;
}

/** Two associations over a line of our making; everything runs inside `settle`, on a stepped clock. */
class Line {
  readonly clock = new SteppedClock();
  readonly packets: { readonly to: 'a' | 'b'; readonly bytes: Buffer }[] = [];
  readonly a: End;
  readonly b: End;
  readonly #soon: (() => void)[] = [];
  /** Every packet, as sent. */
  readonly seen: { readonly to: 'a' | 'b'; readonly bytes: Buffer }[] = [];
  /** Given the packets that wait, the ones to deliver now; the others are lost. */
  arrange = (waiting: readonly { to: 'a' | 'b'; bytes: Buffer }[]) => waiting;

  constructor(options: { bothInitiate?: boolean; windowBytes?: number } = {}) {
    this.a = this.#end('a', true, options.windowBytes);
    this.b = this.#end('b', options.bothInitiate === true, options.windowBytes);
  }

  #end(name: 'a' | 'b', initiator: boolean, windowBytes = 1024 * 1024): End {
    const to = name === 'a' ? 'b' : 'a';
    const end: End = {
      messages: [],
      protocols: [],
      opens: 0,
      progress: 0,
      closed: undefined,
      association: new SctpAssociation({
        clock: this.clock,
        initiator,
        remotePort: 5000,
        mtu,
        windowBytes,
        maxMessageBytes: 65_536,
        send: (packet) => {
          const entry = { to, bytes: Buffer.from(packet) } as const;
          this.seen.push(entry);
          this.packets.push(entry);
        },
        onOpen: () => void end.opens++,
        onMessage: ({ bytes, protocol }) => {
          end.messages.push(bytes);
          end.protocols.push(protocol);
        },
        onProgress: () => void end.progress++,
        onClosed: (reason) => {
          assert.equal(end.closed, undefined, 'closed twice');
          end.closed = reason;
        },
        soon: (callback) => this.#soon.push(callback),
      }),
    };
    return end;
  }

  /** Until nothing happens any more without time going on. */
  async settle(): Promise<void> {
    for (;;) {
      await Promise.resolve();
      const waiting = this.arrange(this.packets.splice(0));
      for (const { to, bytes } of waiting) this[to].association.receive(bytes);
      const soon = this.#soon.splice(0);
      for (const callback of soon) callback();
      if (waiting.length === 0 && soon.length === 0 && this.packets.length === 0) return;
    }
  }

  async settleFor(ms: number, stepMs = 100): Promise<void> {
    for (let passed = 0; passed < ms; passed += stepMs) {
      await this.settle();
      this.clock.step(stepMs);
    }
    await this.settle();
  }

  async connect(): Promise<this> {
    this.a.association.start();
    this.b.association.start();
    await this.settle();
    assert.deepEqual([this.a.opens, this.b.opens], [1, 1]);
    return this;
  }

  tagOf(to: 'a' | 'b'): number {
    return this.seen.findLast((packet) => packet.to === to)?.bytes.readUInt32BE(4) ?? 0;
  }
}

function patterned(length: number, seed: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let i = 0; i < length; i++) bytes[i] = (i * 31 + seed * 7) & 0xff;
  return bytes;
}

/** Told by length and place, because a diff of megabytes never ends. */
function assertSame(actual: readonly Buffer[], expected: readonly Buffer[], about = ''): void {
  const wrong = expected.findIndex((message, i) => actual[i]?.equals(message) !== true);
  assert.equal(wrong, -1, `message ${wrong} of ${expected.length} is wrong or missing ${about}`);
  assert.equal(actual.length, expected.length);
}

function randomness(seed: number): () => number {
  let state = seed;
  return () => (state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0) / 2 ** 32;
}

/** A packet with a right checksum around any bytes. */
function packetOf(tag: number, ...chunks: readonly Uint8Array[]): Buffer {
  const packet = Buffer.concat([Buffer.from([0x13, 0x88, 0x13, 0x88]), Buffer.alloc(8), ...chunks]);
  packet.writeUInt32BE(tag, 4);
  packet.writeUInt32LE(checksum(packet, packet.length), 8);
  return packet;
}

function chunkOf(type: number, flags: number, length: number, body: Uint8Array): Buffer {
  const head = Buffer.from([type, flags, length >>> 8, length & 0xff]);
  return Buffer.concat([head, body]);
}

describe('an SCTP association', () => {
  it('opens when one side starts, and when both do', async () => {
    await new Line().connect();
    await new Line({ bothInitiate: true }).connect();
  });

  it('opens when any packet of its handshake is lost', async () => {
    for (let lost = 0; lost < 5; lost++) {
      const line = new Line();
      let count = 0;
      line.arrange = (waiting) => waiting.filter(() => count++ !== lost);
      line.a.association.start();
      await line.settleFor(4000);
      assert.deepEqual([line.a.opens, line.b.opens], [1, 1], `packet ${lost}`);
    }
  });

  it('carries messages of every size both ways, in order', async () => {
    const line = await new Line().connect();
    const sizes = [1, 3, 4, 1371, 1372, 1373, 2744, 65_535, 65_536];
    const messages = Array.from({ length: 40 }, (_, i) => patterned(sizes[i % sizes.length] ?? 1, i));
    for (const message of messages) {
      line.a.association.send(53, message);
      line.b.association.send(51, message);
    }
    await line.settle();
    assertSame(line.b.messages, messages);
    assertSame(line.a.messages, messages);
    assert.ok(line.a.protocols.every((protocol) => protocol === 51));
    assert.ok(line.a.progress > 0);
    assert.ok(line.seen.every(({ bytes }) => bytes.length <= mtu));
  });

  it('packs small messages of one turn into one packet', async () => {
    const line = await new Line().connect();
    const before = line.seen.length;
    for (let i = 0; i < 20; i++) line.a.association.send(53, patterned(40, i));
    await line.settle();
    const sent = line.seen.slice(before).filter(({ to }) => to === 'b');
    assert.equal(sent.length, 1);
    assert.equal(line.b.messages.length, 20);
  });

  it('answers a burst with few acknowledgements', async () => {
    const line = await new Line().connect();
    const before = line.seen.length;
    for (let i = 0; i < 16; i++) line.a.association.send(53, patterned(65_536, i));
    await line.settle();
    const sent = line.seen.slice(before);
    const acks = sent.filter(({ to }) => to === 'a').length;
    assert.ok(acks * 4 < sent.length, `${acks} of ${sent.length}`);
  });

  it('delivers everything once and in order over a line that loses, doubles and reorders', async () => {
    for (let seed = 1; seed <= 10; seed++) {
      const line = await new Line().connect();
      const random = randomness(seed);
      line.arrange = (waiting) =>
        waiting
          .flatMap((entry) => (random() < 0.05 ? [] : random() < 0.05 ? [entry, entry] : [entry]))
          .map((entry, i) => ({ entry, place: i + 6 * random() }))
          .sort((x, y) => x.place - y.place)
          .map(({ entry }) => entry);
      const messages = Array.from({ length: 30 }, (_, i) => patterned(20_000 + i, i));
      for (const message of messages) line.a.association.send(53, message);
      await line.settleFor(60_000, 500);
      assertSame(line.b.messages, messages, `seed ${seed}, ${line.clock.monotonic()} ms`);
    }
  });

  it('repairs losses in the middle without waiting for a timeout', async () => {
    const line = await new Line().connect();
    let count = 0;
    line.arrange = (waiting) => waiting.filter(({ to }) => to !== 'b' || ++count % 50 !== 10);
    const messages = Array.from({ length: 16 }, (_, i) => patterned(65_536, i));
    for (const message of messages) line.a.association.send(53, message);
    await line.settle();
    assertSame(line.b.messages, messages);
  });

  it('never has more on its way than the peer announced', async () => {
    const line = await new Line({ windowBytes: 20_000 }).connect();
    let most = 0;
    line.arrange = (waiting) => {
      most = Math.max(
        most,
        waiting.filter(({ to }) => to === 'b').reduce((sum, { bytes }) => sum + bytes.length, 0),
      );
      return waiting;
    };
    for (let i = 0; i < 20; i++) line.a.association.send(53, patterned(15_000, i));
    await line.settle();
    assert.equal(line.b.messages.length, 20);
    assert.ok(most > 10_000 && most < 22_000, `${most}`);
  });

  it('ends when a peer of another make shuts down, and answers it', async () => {
    const line = await new Line().connect();
    line.b.association.receive(packetOf(line.tagOf('b'), chunkOf(7, 0, 8, Buffer.alloc(4))));
    assert.match(String(line.b.closed), /peer closed/);
    assert.equal(parsePacket(line.packets.at(-1)?.bytes ?? Buffer.alloc(0))?.chunks[0]?.type, 8);
  });

  it('sends what it still may before it aborts', async () => {
    const line = await new Line().connect();
    line.a.association.send(53, patterned(3000, 1));
    line.a.association.abort('done');
    await line.settle();
    assertSame(line.b.messages, [patterned(3000, 1)]);
    assert.match(String(line.b.closed), /aborted/);
    assert.equal(line.clock.pendingTimers, 0);
  });

  it('gives up on a peer that acknowledges nothing', async () => {
    const line = await new Line().connect();
    line.arrange = () => [];
    line.a.association.send(53, patterned(10, 1));
    await line.settleFor(120_000, 1000);
    assert.match(String(line.a.closed), /acknowledges nothing/);
    assert.equal(line.clock.pendingTimers, 0);
  });

  it('ends when the peer aborts', async () => {
    const line = await new Line().connect();
    line.a.association.abort('enough');
    await line.settle();
    assert.equal(line.a.closed, 'enough');
    assert.match(String(line.b.closed), /aborted/);
  });

  it('answers a heartbeat with what it carried', async () => {
    const line = await new Line().connect();
    const body = patterned(40, 3);
    line.b.association.receive(packetOf(line.tagOf('b'), chunkOf(4, 0, 44, body)));
    const answer = parsePacket(line.packets.at(-1)?.bytes ?? Buffer.alloc(0));
    assert.equal(answer?.chunks[0]?.type, ChunkType.heartbeatAck);
    assert.deepEqual(answer?.chunks[0]?.body, body);
  });

  it('ends when the peer resets its stream, after the data before that', async () => {
    const line = await new Line().connect();
    line.b.association.send(53, patterned(100, 1));
    await Promise.resolve();
    const data = line.packets.splice(0);
    const tsn = data[0]?.bytes.readUInt32BE(16) ?? 0;
    const reset = Buffer.alloc(20);
    reset.writeUInt16BE(13, 0);
    reset.writeUInt16BE(18, 2);
    reset.writeUInt32BE(tsn, 12);
    line.a.association.receive(packetOf(line.tagOf('a'), chunkOf(130, 0, 4 + 18, reset)));
    assert.equal(line.a.closed, undefined);
    for (const { bytes } of data) line.a.association.receive(bytes);
    assert.equal(line.a.messages.length, 1);
    assert.match(String(line.a.closed), /closed its channel/);
  });

  describe('lives on after', () => {
    const data = (tsn: number, flags: number, protocol: number, payload: Uint8Array): Buffer => {
      const body = Buffer.alloc(12);
      body.writeUInt32BE(tsn, 0);
      body.writeUInt32BE(protocol, 8);
      return chunkOf(0, flags, 16 + payload.length, Buffer.concat([body, payload]));
    };
    const sack = (tsn: number, gaps: readonly number[]): Buffer => {
      const body = Buffer.alloc(12 + 2 * gaps.length);
      body.writeUInt32BE(tsn, 0);
      body.writeUInt32BE(100_000, 4);
      body.writeUInt16BE(gaps.length / 2, 8);
      gaps.forEach((value, i) => body.writeUInt16BE(value, 12 + 2 * i));
      return chunkOf(3, 0, 4 + body.length, body);
    };
    const harmful: Record<string, (tag: number) => Buffer> = {
      'an unknown chunk type': (tag) => packetOf(tag, chunkOf(63, 0, 8, Buffer.alloc(4))),
      'an unknown chunk type that is to be skipped': (tag) =>
        packetOf(tag, chunkOf(191, 0, 8, Buffer.alloc(4))),
      'a chunk of length zero': (tag) => packetOf(tag, chunkOf(0, 3, 0, Buffer.alloc(16))),
      'an unknown chunk of length zero': (tag) => packetOf(tag, chunkOf(200, 0, 0, Buffer.alloc(4))),
      'a chunk that is longer than its packet': (tag) => packetOf(tag, chunkOf(0, 3, 999, Buffer.alloc(16))),
      'a packet without chunks': (tag) => packetOf(tag),
      'a packet of four bytes': () => Buffer.from([1, 2, 3, 4]),
      'an empty packet': () => Buffer.alloc(0),
      'a wrong checksum': (tag) => {
        const packet = packetOf(tag, chunkOf(6, 0, 4, Buffer.alloc(0)));
        packet[8] = (packet[8] ?? 0) ^ 1;
        return packet;
      },
      'an abort with another verification tag': (tag) =>
        packetOf((tag + 1) >>> 0, chunkOf(6, 0, 4, Buffer.alloc(0))),
      'data without payload': (tag) => packetOf(tag, data(1, 3, 53, new Uint8Array(0))),
      'data far ahead': (tag) => packetOf(tag, data(0x7000_0000, 3, 53, Buffer.alloc(8))),
      'a truncated data chunk': (tag) => packetOf(tag, chunkOf(0, 3, 8, Buffer.alloc(4))),
      'a truncated SACK': (tag) => packetOf(tag, chunkOf(3, 0, 8, Buffer.alloc(4))),
      'a SACK that announces more gaps than it has': (tag) => {
        const bytes = sack(0, [1, 2]);
        bytes.writeUInt16BE(5000, 12);
        return packetOf(tag, bytes);
      },
      'a SACK of numbers never sent': (tag) => packetOf(tag, sack(0x1234_5678, [1, 65_535, 9, 3])),
      'a malformed INIT': () => packetOf(0, chunkOf(1, 0, 8, Buffer.alloc(4))),
      'an INIT in the middle of it all': () =>
        packetOf(0, chunkOf(1, 0, 20, Buffer.from('0000000100010000000100010000000f', 'hex'))),
      'a stray INIT ACK': (tag) => packetOf(tag, chunkOf(2, 0, 20, patterned(16, 1))),
      'a stray COOKIE ECHO': (tag) => packetOf(tag, chunkOf(10, 0, 12, Buffer.alloc(8))),
      'a stray COOKIE ACK': (tag) => packetOf(tag, chunkOf(11, 0, 4, Buffer.alloc(0))),
      'a stray SHUTDOWN ACK': (tag) => packetOf(tag, chunkOf(8, 0, 4, Buffer.alloc(0))),
      'a stream reset with parameters of length zero': (tag) =>
        packetOf(tag, chunkOf(130, 0, 12, Buffer.from([0, 13, 0, 0, 0, 0, 0, 0]))),
      'an ERROR chunk': (tag) => packetOf(tag, chunkOf(9, 0, 8, Buffer.from([0, 1, 0, 0]))),
    };
    for (const [name, make] of Object.entries(harmful))
      it(name, async () => {
        const line = await new Line().connect();
        line.b.association.receive(make(line.tagOf('b')));
        line.a.association.send(53, patterned(3000, 1));
        line.b.association.send(53, patterned(3000, 2));
        await line.settleFor(2000);
        assertSame(line.b.messages, [patterned(3000, 1)]);
        assertSame(line.a.messages, [patterned(3000, 2)]);
        assert.deepEqual([line.a.closed, line.b.closed], [undefined, undefined]);
      });

    it('any packet, changed in any way', async () => {
      const random = randomness(11);
      for (let round = 0; round < 300; round++) {
        const line = new Line({ bothInitiate: round % 2 === 0 });
        line.arrange = (waiting) =>
          waiting.map(({ to, bytes }) => {
            if (random() < 0.7) return { to, bytes };
            const changed = Buffer.from(bytes);
            for (let i = 0; i < 2; i++)
              changed[12 + Math.floor(random() * (changed.length - 12))] = Math.floor(random() * 256);
            changed.writeUInt32LE(checksum(changed, changed.length), 8);
            return { to, bytes: changed };
          });
        line.a.association.start();
        line.b.association.start();
        await line.settle();
        line.a.association.send(53, patterned(5000, round));
        await line.settleFor(3000, 500);
        line.a.association.abort('done');
        line.b.association.abort('done');
      }
    });
  });

  it('ends when a message is longer than it announced', async () => {
    const line = await new Line().connect();
    line.a.association.send(53, patterned(70_000, 1));
    await line.settle();
    assert.match(String(line.b.closed), /longer than announced/);
  });
});

describe('the SCTP checksum', () => {
  it('is the CRC32c of RFC 9260', () => {
    // The check value of CRC-32C over "123456789" is 0xE3069283; the field at offset 8 counts as zero.
    const bytes = Buffer.alloc(12 + 9);
    const reference = (data: Uint8Array): number => {
      let crc = 0xffff_ffff;
      for (const byte of data) {
        crc ^= byte;
        for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f6_3b78 : crc >>> 1;
      }
      return ~crc >>> 0;
    };
    assert.equal(reference(Buffer.from('123456789')), 0xe306_9283);
    for (let length = 12; length <= bytes.length; length++) {
      bytes.fill(length);
      const zeroed = Buffer.from(bytes.subarray(0, length));
      zeroed.fill(0, 8, 12);
      assert.equal(checksum(bytes, length), reference(zeroed));
    }
  });

  it('covers what the writer wrote', () => {
    const writer = new PacketWriter(200);
    writer.begin(7);
    writer.data(3, 1, 0, 53, Buffer.from('hello'));
    writer.chunk(ChunkType.cookieAck, 0, new Uint8Array(0));
    const packet = parsePacket(writer.finish());
    assert.equal(packet?.verificationTag, 7);
    assert.deepEqual(
      packet?.chunks.map(({ type, body }) => [type, body.length]),
      [
        [0, 17],
        [11, 0],
      ],
    );
  });
});
