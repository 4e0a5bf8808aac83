import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { X509Certificate, createHash } from 'node:crypto';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import {
  attackerWerift,
  bendToSendEarlyData,
  freshCertificate,
  stockPart,
} from './dtls-attacks.contract.node.ts';
import { loadWerift } from './werift-build.node.ts';
import type { Werift } from './werift-build.node.ts';
import { DtlsSession } from './werift-dtls.node.ts';
import type { Certificate } from './werift-dtls.node.ts';
import type { DtlsRole } from './werift-handshake.node.ts';
import { plainRecord, recordsOf } from './werift-records.node.ts';

/** A line between two ends that delivers when told to, in an order of its own. */
class Line {
  readonly #waiting: { readonly to: string; readonly datagram: Buffer }[] = [];
  readonly seen: { readonly to: string; readonly datagram: Buffer }[] = [];
  readonly ends = new Map<string, (datagram: Buffer) => void>();
  /** Given the datagrams that wait, the ones to deliver now; the others are lost. */
  arrange = (waiting: readonly { to: string; datagram: Buffer }[]) => waiting;

  send(to: string, datagram: Buffer): void {
    const entry = { to, datagram: Buffer.from(datagram) };
    this.seen.push(entry);
    this.#waiting.push(entry);
  }

  /** Delivers until nothing more is sent. werift answers within a few turns of the event loop. */
  async settle(): Promise<void> {
    for (let quiet = 0; quiet < 3; quiet++) {
      await new Promise(setImmediate);
      if (this.#waiting.length === 0) continue;
      quiet = -1;
      for (const { to, datagram } of this.arrange(this.#waiting.splice(0))) this.ends.get(to)?.(datagram);
    }
  }
}

interface End {
  readonly session: DtlsSession;
  readonly data: string[];
  opens: number;
  closed: string | undefined;
}

describe('a DTLS session', () => {
  let werift: Werift;
  const certificates = new Map<string, Certificate>();
  const clock = new SteppedClock();

  before(async () => {
    werift = await loadWerift();
    for (const name of ['client', 'server'])
      certificates.set(name, await werift.createSelfSignedCertificate({ signature: 3, hash: 4 }, 23));
  });

  function certificateOf(role: DtlsRole): Certificate {
    const certificate = certificates.get(role);
    assert.ok(certificate);
    return certificate;
  }

  function fingerprint(certPem: string): Buffer {
    return createHash('sha256').update(new X509Certificate(certPem).raw).digest();
  }

  function open(line: Line, role: DtlsRole, remoteCertPem: string, ownClock = clock): End {
    const other = role === 'client' ? 'server' : 'client';
    const end: End = {
      data: [],
      opens: 0,
      closed: undefined,
      session: new DtlsSession(werift, {
        clock: ownClock,
        role,
        certificate: certificateOf(role),
        remoteFingerprint: fingerprint(remoteCertPem),
        send: (datagram) => line.send(other, datagram),
        onOpen: () => void end.opens++,
        onData: (plaintext) => end.data.push(plaintext.toString()),
        onClosed: (reason) => {
          assert.equal(end.closed, undefined, 'closed twice');
          end.closed = reason;
        },
      }),
    };
    line.ends.set(role, (datagram) => end.session.receive(datagram));
    return end;
  }

  function openBoth(line: Line, ownClock = clock): { client: End; server: End } {
    const server = open(line, 'server', certificateOf('client').certPem, ownClock);
    const client = open(line, 'client', certificateOf('server').certPem, ownClock);
    client.session.start();
    return { client, server };
  }

  async function connected(line: Line): Promise<{ client: End; server: End }> {
    const both = openBoth(line);
    await line.settle();
    assert.deepEqual([both.client.opens, both.server.opens], [1, 1]);
    return both;
  }

  it('opens on both sides and carries data both ways', async () => {
    const line = new Line();
    const { client, server } = await connected(line);
    client.session.sendData(Buffer.from('there'));
    server.session.sendData(Buffer.from('back'));
    await line.settle();
    assert.deepEqual([server.data, client.data], [['there'], ['back']]);
  });

  it('leaves no timer behind once it is open', async () => {
    const own = new SteppedClock();
    const line = new Line();
    const { client } = openBoth(line, own);
    await line.settle();
    assert.equal(client.opens, 1);
    assert.equal(own.pendingTimers, 0);
  });

  it('never uses a record number twice, the handshake and its repetitions included', async () => {
    const line = new Line();
    const { client, server } = await connected(line);
    for (let i = 0; i < 50; i++) {
      client.session.sendData(Buffer.from(`${i}`));
      server.session.sendData(Buffer.from(`${i}`));
    }
    client.session.close();
    await line.settle();
    const nonces = line.seen.flatMap(({ to, datagram }) =>
      [...recordsOf(datagram)]
        .filter(({ epoch }) => epoch === 1)
        .map(({ body }) => `${to} ${body.subarray(0, 8).toString('hex')}`),
    );
    assert.ok(nonces.length > 100);
    assert.equal(new Set(nonces).size, nonces.length);
  });

  it('opens when handshake datagrams are lost, doubled and reordered', async () => {
    for (let seed = 1; seed <= 30; seed++) {
      const own = new SteppedClock();
      const line = new Line();
      let state = seed;
      const random = (): number => (state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0) / 2 ** 32;
      line.arrange = (waiting) =>
        waiting
          .flatMap((entry) => (random() < 0.1 ? [] : random() < 0.2 ? [entry, entry] : [entry]))
          .map((entry) => ({ entry, place: random() }))
          .sort((a, b) => a.place - b.place)
          .map(({ entry }) => entry);
      const { client, server } = openBoth(line, own);
      for (let round = 0; round < 30 && (client.opens === 0 || server.opens === 0); round++) {
        await line.settle();
        own.step(500);
      }
      assert.deepEqual(
        [client.opens, server.opens],
        [1, 1],
        `seed ${seed}: ${client.closed} ${server.closed}`,
      );
    }
  });

  it('opens when every record of a flight comes in a datagram of its own, the last first', async () => {
    const line = new Line();
    line.arrange = (waiting) =>
      waiting
        .flatMap(({ to, datagram }) => {
          const parts: Buffer[] = [];
          for (let offset = 0; offset + 13 <= datagram.length;) {
            const end = offset + 13 + datagram.readUInt16BE(offset + 11);
            parts.push(datagram.subarray(offset, end));
            offset = end;
          }
          return parts.map((part) => ({ to, datagram: part }));
        })
        .toReversed();
    await connected(line);
  });

  it('delivers a repeated record once, and none that is older than its window', async () => {
    const line = new Line();
    const { client, server } = await connected(line);
    const before = line.seen.length;
    for (let i = 0; i < 2000; i++) client.session.sendData(Buffer.from(`${i}`));
    await line.settle();
    assert.equal(server.data.length, 2000);
    for (const { to, datagram } of line.seen.slice(before)) line.ends.get(to)?.(datagram);
    assert.equal(server.data.length, 2000);
  });

  it('delivers records that overtook each other', async () => {
    const line = new Line();
    const { client, server } = await connected(line);
    line.arrange = (waiting) => waiting.toReversed();
    for (const text of ['a', 'b', 'c']) client.session.sendData(Buffer.from(text));
    await line.settle();
    assert.deepEqual(server.data, ['c', 'b', 'a']);
  });

  it('drops records that were changed on the way, and lives on', async () => {
    const line = new Line();
    const { client, server } = await connected(line);
    line.arrange = (waiting) =>
      waiting.map(({ to, datagram }) => {
        const changed = Buffer.from(datagram);
        changed[datagram.length - 1] = (changed[datagram.length - 1] ?? 0) ^ 1;
        return { to, datagram: changed };
      });
    client.session.sendData(Buffer.from('changed'));
    await line.settle();
    line.arrange = (waiting) => waiting;
    client.session.sendData(Buffer.from('whole'));
    await line.settle();
    assert.deepEqual(server.data, ['whole']);
  });

  it('is deaf to everything unprotected once it is open', async () => {
    const line = new Line();
    const { client, server } = await connected(line);
    const hello = line.seen.find(({ to }) => to === 'server')?.datagram;
    assert.ok(hello);
    const sent = line.seen.length;
    for (const end of [client, server]) {
      end.session.receive(plainRecord(21, 900, Buffer.from([2, 40])));
      end.session.receive(plainRecord(21, 901, Buffer.from([1, 0])));
      end.session.receive(plainRecord(23, 902, Buffer.from('forged')));
      end.session.receive(plainRecord(20, 903, Buffer.from([1])));
      end.session.receive(hello);
    }
    await line.settle();
    assert.equal(line.seen.length, sent, 'it answered');
    client.session.sendData(Buffer.from('still'));
    server.session.sendData(Buffer.from('still'));
    await line.settle();
    assert.deepEqual([server.data, client.data], [['still'], ['still']]);
    assert.deepEqual([client.closed, server.closed], [undefined, undefined]);
  });

  it('ends without harm on any garbage during the handshake', async () => {
    let state = 5;
    const random = (below: number): number => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      return Math.floor((state / 2 ** 32) * below);
    };
    for (let round = 0; round < 60; round++) {
      const line = new Line();
      line.arrange = (waiting) =>
        waiting.map(({ to, datagram }) => {
          const changed = Buffer.from(datagram);
          for (let i = 0; i < 3; i++) changed[random(changed.length)] = random(256);
          return { to, datagram: random(3) === 0 ? changed.subarray(0, random(changed.length)) : changed };
        });
      const { client, server } = openBoth(line);
      await line.settle();
      client.session.close();
      server.session.close();
    }
  });

  it('tells the other side when it closes', async () => {
    const line = new Line();
    const { client, server } = await connected(line);
    client.session.close();
    client.session.close();
    await line.settle();
    assert.equal(client.closed, undefined);
    assert.match(String(server.closed), /the peer closed/);
  });

  it('sends its last flight again to a client that lost it', async () => {
    const own = new SteppedClock();
    const line = new Line();
    let lost = 0;
    line.arrange = (waiting) =>
      waiting.filter(({ to, datagram }) => {
        const finished = to === 'client' && [...recordsOf(datagram)].some(({ epoch }) => epoch === 1);
        return !(finished && lost++ < 2);
      });
    const { client, server } = openBoth(line, own);
    for (let i = 0; i < 6; i++) {
      await line.settle();
      own.step(1000);
    }
    assert.equal(lost, 3);
    assert.deepEqual([client.opens, server.opens], [1, 1]);
  });

  describe('facing a bent stock client', () => {
    const early = Buffer.from('before Finished');
    let undo: (() => void) | undefined;
    after(() => undo?.());

    async function meet(bend?: () => () => void): Promise<End> {
      const line = new Line();
      const certificate = await freshCertificate(attackerWerift);
      const server = open(line, 'server', certificate.certPem);
      undo = bend?.();
      const transport = {
        type: 'test',
        address: {},
        onData: (_datagram: Buffer): void => undefined,
        send: async (datagram: Buffer): Promise<void> => line.send('server', datagram),
        close: async (): Promise<void> => undefined,
      };
      const { DtlsClient } = stockPart('dtls/src/index.js');
      const client = Reflect.construct(DtlsClient as new () => StockDtls, [
        {
          cert: certificate.certPem,
          key: certificate.privateKey,
          signatureHash: certificate.signatureHash,
          transport,
          extendedMasterSecret: true,
        },
      ]);
      line.ends.set('client', (datagram) => transport.onData(datagram));
      const connected = new Promise<void>((resolve) => client.onConnect.subscribe(() => resolve()));
      client.connect().catch(() => undefined);
      await line.settle();
      await connected;
      await client.send(Buffer.from('after'));
      await line.settle();
      undo?.();
      undo = undefined;
      return server;
    }

    interface StockDtls {
      readonly onConnect: { subscribe(listener: () => void): unknown };
      connect(): Promise<void>;
      send(data: Buffer): Promise<void>;
    }

    it('hears an honest one', async () => {
      assert.deepEqual((await meet()).data, ['after']);
    });

    it('drops data that comes before its Finished', async () => {
      const server = await meet(() => bendToSendEarlyData(early, 'before'));
      assert.deepEqual(server.data, ['after']);
      assert.equal(server.opens, 1);
    });
  });
});
