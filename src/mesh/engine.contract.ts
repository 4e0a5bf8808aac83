/**
 * What every WebRTC engine holds, alone and with each other. `engineContract` registers the suite for one
 * pair of engines; each engine's slow test calls it for both roles. Attacks on one engine's own DTLS are
 * tested beside that engine.
 */

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, before, beforeEach, describe, it } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { equalBytes, limits, MeshError } from '@cocoon-mesh/protocol';
import type { Engine } from './engine.ts';
import { introduce, link, listen, openSide, patterned, sendAll } from './engine-pair.contract.ts';
import { EngineProcess } from './engine-process.contract.ts';
import { formatDescription, parseCandidate, parseDescription } from './sdp.ts';
import { lossyRelay } from './udp-relay.contract.ts';

export interface ContractPair {
  readonly offerer: () => Promise<Engine>;
  readonly answerer: () => Promise<Engine>;
}

const run = promisify(execFile);
const KiB = 1024;
const never = new AbortController().signal;
const hasCode =
  (...codes: string[]) =>
  (error: unknown): boolean =>
    error instanceof MeshError && codes.includes(error.code);

export function engineContract(name: string, engines: ContractPair): void {
  describe(`${name}: the engine contract`, { timeout: 60_000 }, () => {
    let offering: Engine;
    let answering: Engine;
    before(async () => {
      offering = await engines.offerer();
      answering = await engines.answerer();
    });

    // Checked after every test, so that the one that leaves a socket behind is the one that fails.
    let socketsBefore = 0;
    beforeEach(() => {
      socketsBefore = openSockets();
    });
    afterEach(async () => {
      // A closed socket is counted until the end of the loop's turn.
      await setImmediate();
      await setImmediate();
      assert.ok(openSockets() <= socketsBefore, `${openSockets() - socketsBefore} sockets were left open`);
    });

    it('connects and carries messages both ways, whole and in order', async () => {
      await using linked = await link(offering, answering);
      const there = listen(linked.answerer);
      const back = listen(linked.offerer);
      const sizes = [1, 2, 100, 1199, 1200, 1201, 4096, 16 * KiB, 65_535, limits.maxCarrierMessageBytes];
      const messages = Array.from({ length: 60 }, (_, i) => patterned(sizes[i % sizes.length] ?? 1, i));
      await Promise.all([
        sendAll(linked.offerer, back, messages),
        sendAll(linked.answerer, there, messages.toReversed()),
        there.until((listener) => listener.messages.length === 60),
        back.until((listener) => listener.messages.length === 60),
      ]);
      assert.ok(messages.every((message, i) => equalBytes(message, there.messages[i] ?? patterned(0, 0))));
      assert.ok(
        messages.toReversed().every((message, i) => equalBytes(message, back.messages[i] ?? patterned(0, 0))),
      );
    });

    it('knows both fingerprints, the same on both sides', async () => {
      await using linked = await link(offering, answering);
      const { offerer, answerer } = linked.pair;
      assert.deepEqual(offerer.connection.remoteFingerprint, answerer.connection.localFingerprint);
      assert.deepEqual(answerer.connection.remoteFingerprint, offerer.connection.localFingerprint);
      assert.notDeepEqual(offerer.connection.localFingerprint, offerer.connection.remoteFingerprint);
      assert.equal(offerer.connection.localFingerprint.length, 32);
      assert.ok(['lan', 'direct'].includes(String(await offerer.connection.path())));
      assert.ok(['lan', 'direct'].includes(String(await answerer.connection.path())));
    });

    it('makes a fresh certificate for every connection', async () => {
      const seen = new Set<string>();
      for (const engine of [offering, answering]) {
        const sides = [openSide(engine), openSide(engine), openSide(engine)];
        for (const side of sides) {
          await side.connection.createOffer();
          seen.add(side.connection.localFingerprint.toString());
        }
        await Promise.all(sides.map((side) => side.connection.close()));
      }
      assert.equal(seen.size, 6);
    });

    it('writes descriptions that carry exactly one fingerprint and no address', async () => {
      const seen: string[] = [];
      const see = (sdp: string): string => (seen.push(sdp), sdp);
      await using pair = await introduce(offering, answering, { sdp: see });
      assert.ok(pair.offerer.connection);
      assert.equal(seen.length, 2);
      for (const sdp of seen) {
        assert.equal(sdp.match(/a=fingerprint:/g)?.length, 1);
        assert.doesNotMatch(sdp, /a=candidate/);
      }
    });

    it('answers as the DTLS server whoever offers to be the client', async () => {
      const setups: string[] = [];
      const sdp = (text: string, type: 'offer' | 'answer'): string => {
        const description = parseDescription(text, type);
        const asked = type === 'offer' ? { ...description, setup: 'active' as const } : description;
        setups.push(asked.setup);
        return formatDescription(asked);
      };
      await using pair = await introduce(offering, answering, { sdp });
      assert.ok(pair.offerer.connection);
      assert.deepEqual(setups, ['active', 'passive']);
    });

    it('refuses an offer without or with two fingerprints, and lives on', async () => {
      for (const spoil of [
        withoutFingerprint,
        withTwoFingerprints,
        withoutSection,
        (): string => 'nonsense',
      ]) {
        const sdp = (text: string, type: string): string => (type === 'offer' ? spoil(text) : text);
        await assert.rejects(introduce(offering, answering, { sdp }), hasCode('bad_sdp'));
      }
      await using linked = await link(offering, answering);
      assert.ok(linked.offerer.writable);
    });

    it('refuses an answer without or with two fingerprints, and takes a good one after', async () => {
      const offerer = openSide(offering);
      const answerer = openSide(answering);
      const answer = await answerer.connection.acceptOffer(await offerer.connection.createOffer());
      for (const spoil of [withoutFingerprint, withTwoFingerprints, withoutSection])
        await assert.rejects(offerer.connection.acceptAnswer(spoil(answer)), hasCode('bad_sdp'));
      await offerer.connection.acceptAnswer(answer);
      await Promise.all([offerer.connection.close(), answerer.connection.close()]);
    });

    it('takes one description only', async () => {
      const offerer = openSide(offering);
      const answerer = openSide(answering);
      const offer = await offerer.connection.createOffer();
      const answer = await answerer.connection.acceptOffer(offer);
      await offerer.connection.acceptAnswer(answer);
      const other = await openAnswer(answering, offer);
      await assert.rejects(offerer.connection.acceptAnswer(other.sdp), hasCode('bad_sdp'));
      await assert.rejects(offerer.connection.acceptAnswer(answer), hasCode('bad_sdp'));
      await assert.rejects(answerer.connection.acceptOffer(offer), hasCode('bad_sdp'));
      await assert.rejects(offerer.connection.createOffer(), hasCode('bad_sdp'));
      await assert.rejects(answerer.connection.acceptAnswer(answer), hasCode('bad_sdp'));
      assert.deepEqual(offerer.connection.remoteFingerprint, answerer.connection.localFingerprint);
      await Promise.all([offerer.connection.close(), answerer.connection.close(), other.close()]);
    });

    for (const liar of ['offer', 'answer'] as const)
      it(`never opens when the ${liar} announces another certificate`, async () => {
        await using pair = await introduce(offering, answering, {
          sdp: (sdp, type) => (type === liar ? withOtherFingerprint(sdp, type) : sdp),
        });
        const deceived = liar === 'offer' ? pair.answerer : pair.offerer;
        await assert.rejects(
          deceived.connection.opened(AbortSignal.timeout(limits.connectTimeoutMs + 5000)),
          hasCode('carrier_lost', 'connect_timeout'),
        );
      });

    it('takes candidates before the description and long after it', async () => {
      for (const candidates of ['early', 'late'] as const) {
        await using linked = await link(offering, answering, { candidates });
        assert.ok(linked.answerer.writable);
      }
    });

    it('drops candidates it cannot use', async () => {
      const bad = ['', 'candidate:', 'x'.repeat(5000), 'candidate:1 1 udp 1 nobody.example 9 typ host'];
      await using pair = await introduce(offering, answering);
      for (const line of [...bad, null, null])
        for (const side of [pair.offerer, pair.answerer]) side.connection.addCandidate(line);
      await Promise.all([pair.offerer.connection.opened(never), pair.answerer.connection.opened(never)]);
    });

    it('ends the wait for opening when its signal says so, or the connection is closed', async () => {
      const { connection } = openSide(offering);
      await connection.createOffer();
      const stop = new AbortController();
      const stopped = assert.rejects(connection.opened(stop.signal), hasCode('cancelled'));
      stop.abort();
      await stopped;
      const lost = assert.rejects(connection.opened(never), hasCode('carrier_lost'));
      await connection.close();
      await lost;
      await connection.close();
    });

    it('refuses an empty and an oversize message, and carries the next one', async () => {
      await using linked = await link(offering, answering);
      const there = listen(linked.answerer);
      assert.throws(() => linked.offerer.send(new Uint8Array(0)), RangeError);
      assert.throws(() => linked.offerer.send(new Uint8Array(limits.maxCarrierMessageBytes + 1)), RangeError);
      linked.offerer.send(patterned(5, 5));
      await there.until((listener) => listener.messages.length === 1);
      assert.deepEqual(new Uint8Array(there.messages[0] ?? []), patterned(5, 5));
    });

    it('asks the sender to wait, and says when to go on', async () => {
      await using linked = await link(offering, answering);
      const there = listen(linked.answerer);
      const back = listen(linked.offerer);
      let sent = 0;
      // However large its own buffers, an engine says stop before 64 MiB.
      for (; linked.offerer.writable && sent < 1024; sent++) linked.offerer.send(patterned(64 * KiB, 1));
      assert.ok(!linked.offerer.writable, 'it took 64 MiB at once');
      assert.equal(back.writables, 0);
      await back.until((listener) => listener.writables > 0);
      assert.ok(linked.offerer.writable);
      await there.until((listener) => listener.bytes === sent * 64 * KiB);
    });

    it('keeps what came before anybody listened, and hands over in order', async () => {
      await using linked = await link(offering, answering);
      const count = 40;
      for (let i = 0; i < count; i++) linked.offerer.send(patterned(700, i));
      const reply = listen(linked.offerer);
      const first: number[] = [];
      const second: number[] = [];
      const done = Promise.withResolvers<void>();
      const place = (bytes: Uint8Array): number =>
        Array.from({ length: count }, (_, i) => i).findIndex((i) => equalBytes(patterned(700, i), bytes));
      const later = {
        message: (bytes: Uint8Array): void => {
          second.push(place(bytes));
          if (second.length + first.length === count) done.resolve();
        },
        writable: (): void => undefined,
        closed: (): void => done.reject(new Error('closed')),
      };
      linked.answerer.start({
        ...later,
        message: (bytes) => {
          first.push(place(bytes));
          if (first.length === 3) linked.answerer.start(later);
        },
      });
      await done.promise;
      assert.equal(reply.closes.length, 0);
      assert.deepEqual(first, [0, 1, 2]);
      assert.deepEqual(
        second,
        Array.from({ length: count - 3 }, (_, i) => i + 3),
      );
    });

    it('delivers 3 MB that were sent right before the close', async () => {
      for (const from of ['offerer', 'answerer'] as const) {
        await using linked = await link(offering, answering);
        const there = listen(linked[from === 'offerer' ? 'answerer' : 'offerer']);
        const here = listen(linked[from]);
        for (let i = 0; i < 48; i++) linked[from].send(patterned(64 * KiB, i));
        await linked[from].close('all said');
        await there.closedOnce;
        assert.equal(there.bytes, 48 * 64 * KiB);
        assert.ok(there.messages.every((message, i) => equalBytes(message, patterned(64 * KiB, i))));
        assert.match(there.closes.join(), /all said/);
        assert.deepEqual(here.closes, ['all said']);
      }
    });

    it('delivers both queues when both sides close at once', async () => {
      await using linked = await link(offering, answering);
      const there = listen(linked.answerer);
      const back = listen(linked.offerer);
      for (let i = 0; i < 8; i++) {
        linked.offerer.send(patterned(64 * KiB, i));
        linked.answerer.send(patterned(64 * KiB, i));
      }
      await Promise.all([linked.offerer.close('a'), linked.answerer.close('b')]);
      assert.deepEqual([there.bytes, back.bytes], [512 * KiB, 512 * KiB]);
      assert.deepEqual([there.closes.length, back.closes.length], [1, 1]);
    });

    it('reports a close once to each side, however often it is closed', async () => {
      await using linked = await link(offering, answering);
      const there = listen(linked.answerer);
      const back = listen(linked.offerer);
      await Promise.all([linked.offerer.close('first'), linked.offerer.close('again')]);
      await there.closedOnce;
      linked.offerer.abort('late');
      await Promise.all([linked.answerer.close(), linked.pair.answerer.connection.close()]);
      await linked.pair.offerer.connection.close();
      assert.deepEqual(back.closes, ['first']);
      assert.equal(there.closes.length, 1);
      linked.offerer.send(patterned(1, 1));
      assert.equal(linked.offerer.writable, false);
      const lateListener = listen(linked.answerer);
      assert.equal(lateListener.closes.length, 1, 'who starts after the close is told as well');
    });

    it('ends at once when aborted, and the other side hears of it', async () => {
      for (const how of ['abort', 'connection'] as const) {
        await using linked = await link(offering, answering);
        const there = listen(linked.answerer);
        const back = listen(linked.offerer);
        if (how === 'abort') linked.offerer.abort('enough');
        else await linked.pair.offerer.connection.close();
        assert.equal(back.closes.length, 1);
        await there.closedOnce;
        assert.equal(there.closes.length, 1);
      }
    });

    it('closes within its limit when the other side no longer answers', async () => {
      const relay = await lossyRelay(0);
      try {
        await using linked = await link(offering, answering, relay.introduction);
        listen(linked.offerer);
        relay.lossPercent = 100;
        const start = performance.now();
        for (let i = 0; i < 16; i++) linked.offerer.send(patterned(64 * KiB, i));
        await linked.offerer.close('gone');
        assert.ok(performance.now() - start < limits.closeDrainMs + 1500);
      } finally {
        await relay.close();
      }
    });

    it('carries everything in order over a line that loses 2 % of its packets', async () => {
      const relay = await lossyRelay(2);
      try {
        await using linked = await link(offering, answering, relay.introduction);
        const there = listen(linked.answerer);
        const back = listen(linked.offerer);
        const messages = Array.from({ length: 64 }, (_, i) => patterned(16 * KiB, i));
        await Promise.all([
          sendAll(linked.offerer, back, messages),
          sendAll(linked.answerer, there, messages),
          there.until((listener) => listener.messages.length === 64),
          back.until((listener) => listener.messages.length === 64),
        ]);
        assert.ok(there.messages.every((message, i) => equalBytes(message, patterned(16 * KiB, i))));
        assert.ok(back.messages.every((message, i) => equalBytes(message, patterned(16 * KiB, i))));
        assert.ok(relay.dropped > 0, 'the line lost nothing');
      } finally {
        await relay.close();
      }
    });

    it('is not disturbed by garbage and forged alerts from other ports', async () => {
      await using linked = await link(offering, answering);
      const there = listen(linked.answerer);
      const back = listen(linked.offerer);
      for (const side of [linked.pair.offerer, linked.pair.answerer]) await bombard(await loopbackPort(side));
      for (let i = 0; i < 20; i++) linked.offerer.send(patterned(1000, i));
      for (let i = 0; i < 20; i++) linked.answerer.send(patterned(1000, i));
      await there.until((listener) => listener.messages.length === 20);
      await back.until((listener) => listener.messages.length === 20);
      assert.ok(there.messages.every((message, i) => equalBytes(message, patterned(1000, i))));
      assert.deepEqual([there.closes, back.closes], [[], []]);
    });

    it('gathers only its own addresses when no STUN server is given', async () => {
      await using pair = await introduce(offering, answering);
      await Promise.all([pair.offerer.gathered, pair.answerer.gathered]);
      for (const side of [pair.offerer, pair.answerer]) {
        const candidates = side.candidates.map(parseCandidate);
        assert.ok(candidates.length > 0);
        assert.ok(candidates.every((candidate) => candidate?.type === 'host'));
        assert.ok(candidates.some((candidate) => candidate?.address === '127.0.0.1'));
      }
    });

    it('asks no name server, and connects where there is loopback only', async (t) => {
      for (const engine of new Set([offering.name, answering.name])) {
        const alone = await runAlone(engine);
        if (!alone) return t.skip('this machine gives out no namespaces');
        assert.deepEqual(alone, { interfaces: ['lo'], asked: 0, counted: true });
      }
    });

    it('outlives the other process being killed: silence, no crash, and a close in time', async () => {
      for (const role of ['offerer', 'answerer'] as const) {
        const [engine, other] = role === 'offerer' ? [offering, answering] : [answering, offering];
        await using peer = new EngineProcess(other.name);
        const { side, carrier } = await peer.link(engine, role);
        const here = listen(carrier);
        carrier.send(patterned(500, 1));
        await here.until((listener) => listener.messages.length === 1);
        await peer.kill();
        for (let i = 0; i < 16; i++) carrier.send(patterned(64 * KiB, i));
        const start = performance.now();
        await carrier.close('gone');
        assert.ok(performance.now() - start < limits.closeDrainMs + 1500);
        assert.equal(here.closes.length, 1);
        await side.connection.close();
      }
    });

    it('opens and closes 50 connections without leaving a socket or a timer', async () => {
      const timers = (): number =>
        process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length;
      await (await link(offering, answering))[Symbol.asyncDispose]();
      const before = timers();
      const openMs: number[] = [];
      for (let i = 0; i < 50; i++) {
        const start = performance.now();
        await using linked = await link(offering, answering);
        openMs.push(performance.now() - start);
        await linked.offerer.close();
      }
      assert.ok(timers() <= before, `${timers()} timers, ${before} before`);
      openMs.sort((a, b) => a - b);
      assert.ok((openMs[49] ?? 0) < 1000, `the slowest took ${openMs[49]} ms, the median ${openMs[25]} ms`);
    });
  });
}

/** Node's own; the native engine opens its sockets out of Node's sight. */
function openSockets(): number {
  return process.getActiveResourcesInfo().filter((name) => name === 'UDPWrap').length;
}

interface Alone {
  readonly interfaces: readonly string[];
  readonly asked: number;
  readonly counted: boolean;
}

/** Null where namespaces, or the tools to set them up, are not to be had. */
async function runAlone(engine: string): Promise<Alone | null> {
  const folder = await mkdtemp(join(tmpdir(), 'engine-alone-'));
  try {
    const resolvConf = join(folder, 'resolv.conf');
    await writeFile(resolvConf, 'nameserver 127.0.0.1\noptions timeout:1 attempts:1\n');
    const setUp = 'ip link set lo up && mount --bind "$0" /etc/resolv.conf';
    const namespaces = ['-rnm', 'sh', '-c'];
    const allowed = await run('unshare', [...namespaces, setUp, resolvConf]).then(
      () => true,
      () => false,
    );
    if (!allowed) return null;
    const file = fileURLToPath(new URL('engines/engine-alone.contract.node.ts', import.meta.url));
    const command = `${setUp} && exec "$@"`;
    const { stdout } = await run(
      'unshare',
      [...namespaces, command, resolvConf, process.execPath, file, engine],
      { timeout: 30_000 },
    );
    return JSON.parse(stdout) as Alone;
  } finally {
    await rm(folder, { recursive: true });
  }
}

const fingerprintLine = /a=fingerprint:.*\r\n/;

function withoutFingerprint(sdp: string): string {
  return sdp.replace(fingerprintLine, '');
}

function withTwoFingerprints(sdp: string): string {
  const other = `a=fingerprint:sha-256 ${Array.from({ length: 32 }, () => 'AB').join(':')}\r\n`;
  return sdp.replace(fingerprintLine, (line) => line + other);
}

function withoutSection(sdp: string): string {
  return sdp.replace(/m=.*\r\n/, '');
}

function withOtherFingerprint(sdp: string, type: 'offer' | 'answer'): string {
  return formatDescription({ ...parseDescription(sdp, type), fingerprint: new Uint8Array(32).fill(0xab) });
}

async function openAnswer(engine: Engine, offer: string): Promise<{ sdp: string; close(): Promise<void> }> {
  const { connection } = openSide(engine);
  return { sdp: await connection.acceptOffer(offer), close: () => connection.close() };
}

async function loopbackPort(side: { candidates: string[]; gathered: Promise<void> }): Promise<number> {
  await side.gathered;
  const found = side.candidates.map(parseCandidate).find((candidate) => candidate?.address === '127.0.0.1');
  assert.ok(found, 'no candidate on 127.0.0.1');
  return found.port;
}

/** Datagrams that pass for DTLS, STUN or nothing at all, from a port the connection has never heard of. */
async function bombard(port: number): Promise<void> {
  const record = (type: number, epoch: number, body: Uint8Array): Buffer =>
    Buffer.concat([Buffer.from([type, 0xfe, 0xfd, 0, epoch, 0, 0, 0, 0, 0, 99, 0, body.length]), body]);
  const datagrams = [
    record(21, 0, Buffer.from([2, 40])),
    record(21, 0, Buffer.from([1, 0])),
    record(21, 1, Buffer.from(patterned(26, 1))),
    record(20, 0, Buffer.from([1])),
    record(22, 0, Buffer.from(patterned(200, 2))),
    record(23, 0, Buffer.from(patterned(60, 3))),
    record(23, 1, Buffer.from(patterned(120, 4))),
    Buffer.from([0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, ...patterned(12, 5)]),
    Buffer.from(patterned(1, 6)),
    Buffer.from(patterned(1300, 7)),
    Buffer.alloc(0),
  ];
  const socket = createSocket('udp4');
  try {
    for (const datagram of [...datagrams, ...datagrams])
      await new Promise<void>((resolve, reject) =>
        socket.send(datagram, port, '127.0.0.1', (error) => (error ? reject(error) : resolve())),
      );
  } finally {
    socket.close();
  }
}
