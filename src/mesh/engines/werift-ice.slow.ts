import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import type { Socket } from 'node:dgram';
import dns from 'node:dns';
import { once } from 'node:events';
import { describe, it, mock } from 'node:test';
import { MeshError, limits } from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { link, openSide } from '../engine-pair.contract.ts';
import { formatCandidate, parseCandidate, parseDescription } from '../sdp.ts';
import { stockPart } from './dtls-attacks.contract.node.ts';
import { weriftEngine } from './werift.node.ts';

const never = new AbortController().signal;

async function boundSocket(): Promise<Socket> {
  const socket = createSocket('udp4');
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  return socket;
}

interface StunMessage {
  readonly bytes: Buffer;
  setAttribute(name: string, value: unknown): this;
  addMessageIntegrity(key: Buffer): this;
  addFingerprint(): this;
}

/** A connectivity check by somebody who knows, or guesses, the password. */
function bindingRequest(username: string, password: string): Buffer {
  const { Message } = stockPart('ice/src/stun/message.js');
  const request = Reflect.construct(Message as new () => StunMessage, [1, 0]);
  return request
    .setAttribute('USERNAME', username)
    .setAttribute('PRIORITY', 1)
    .setAttribute('ICE-CONTROLLED', 1n)
    .addMessageIntegrity(Buffer.from(password))
    .addFingerprint().bytes;
}

describe('the werift engine on the network', { timeout: 30_000 }, () => {
  it('resolves no name when no server is configured', async () => {
    const engine = await weriftEngine();
    const lookups = [mock.method(dns, 'lookup'), mock.method(dns.promises, 'lookup')];
    try {
      await using linked = await link(engine, engine);
      await linked.pair.offerer.gathered;
      assert.deepEqual(
        lookups.map((lookup) => lookup.mock.callCount()),
        [0, 0],
      );
    } finally {
      mock.restoreAll();
    }
  });

  it('keeps a ClientHello that overtakes the answer to its connectivity check', async () => {
    const engine = await weriftEngine();
    // Its clock stands still, so that it never sends a message again: a lost one stays lost.
    const answering = await weriftEngine(new SteppedClock());
    const facing = { offerer: await boundSocket(), answerer: await boundSocket() };
    const ports = { offerer: 0, answerer: 0 };
    const held: Buffer[] = [];
    let hellos = 0;
    facing.offerer.on('message', (datagram) => facing.answerer.send(datagram, ports.answerer, '127.0.0.1'));
    facing.answerer.on('message', (datagram) => {
      const isHello = datagram[0] === 22 && datagram[13] === 1;
      if (isHello && datagram.readUInt16BE(17) === 0) hellos++;
      // Answers to checks wait until the first ClientHello has passed.
      if (datagram.readUInt16BE(0) === 0x0101 && hellos === 0) {
        held.push(datagram);
        return;
      }
      facing.offerer.send(datagram, ports.offerer, '127.0.0.1');
      if (hellos > 0)
        for (const answer of held.splice(0)) facing.offerer.send(answer, ports.offerer, '127.0.0.1');
    });
    try {
      await using linked = await link(engine, answering, {
        candidate: (line, from) => {
          const candidate = parseCandidate(line);
          if (candidate?.address !== '127.0.0.1') return null;
          ports[from] = candidate.port;
          const { port } = facing[from === 'offerer' ? 'answerer' : 'offerer'].address();
          return formatCandidate({ ...candidate, port });
        },
      });
      assert.ok(linked.answerer.writable);
      assert.equal(hellos, 1);
    } finally {
      facing.offerer.close();
      facing.answerer.close();
    }
  });

  it('opens while a stranger answers every handshake message with a fatal alert', async () => {
    const engine = await weriftEngine();
    const stranger = await boundSocket();
    const facing = { offerer: await boundSocket(), answerer: await boundSocket() };
    const ports = { offerer: 0, answerer: 0 };
    const alert = Buffer.from([21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 2, 40]);
    let alerts = 0;
    const forward = (from: 'offerer' | 'answerer', to: 'offerer' | 'answerer'): void => {
      facing[from].on('message', (datagram) => {
        const pass = (): void => facing[to].send(datagram, ports[to], '127.0.0.1');
        if (datagram[0] !== 22) return pass();
        alerts++;
        // The forged alert arrives first.
        stranger.send(alert, ports[to], '127.0.0.1', pass);
      });
    };
    forward('offerer', 'answerer');
    forward('answerer', 'offerer');
    try {
      await using linked = await link(engine, engine, {
        candidate: (line, from) => {
          const candidate = parseCandidate(line);
          if (candidate?.address !== '127.0.0.1') return null;
          ports[from] = candidate.port;
          const { port } = facing[from === 'offerer' ? 'answerer' : 'offerer'].address();
          return formatCandidate({ ...candidate, port });
        },
      });
      assert.ok(linked.answerer.writable);
      assert.ok(alerts >= 4);
    } finally {
      for (const socket of [stranger, facing.offerer, facing.answerer]) socket.close();
    }
  });

  it('answers connectivity checks only from those who know its password', async () => {
    const engine = await weriftEngine();
    const { connection, candidates, gathered } = openSide(engine);
    const { iceUfrag, icePassword } = parseDescription(await connection.createOffer(), 'offer');
    await gathered;
    const port = candidates.map(parseCandidate).find((candidate) => candidate?.address === '127.0.0.1')?.port;
    const stranger = await boundSocket();
    const friend = await boundSocket();
    let answered = false;
    stranger.on('message', () => {
      answered = true;
    });
    const toFriend = once(friend, 'message');
    try {
      for (const [username, password] of [
        [`${iceUfrag}:abcd`, 'a guessed password of 22'],
        ['abcdefgh:abcd', icePassword],
        ['', icePassword],
      ] as const)
        stranger.send(bindingRequest(username, password), port, '127.0.0.1');
      friend.send(bindingRequest(`${iceUfrag}:abcd`, icePassword), port, '127.0.0.1');
      const [answer] = (await toFriend) as [Buffer];
      assert.equal(answer.readUInt16BE(0), 0x0101);
      assert.equal(answered, false);
    } finally {
      stranger.close();
      friend.close();
      await connection.close();
    }
  });

  it('gives up on a silent peer, and leaves no socket', async () => {
    const clock = new SteppedClock();
    const engine = await weriftEngine(clock);
    const sockets = (): number =>
      process.getActiveResourcesInfo().filter((name) => name.startsWith('UDP')).length;
    const before = sockets();
    const silent = openSide(engine);
    const offer = await silent.connection.createOffer();
    await silent.connection.close();
    const waiting = openSide(engine);
    await waiting.connection.acceptOffer(offer);
    await waiting.gathered;
    assert.ok(sockets() > before);
    const opened = assert.rejects(
      waiting.connection.opened(never),
      (error) => error instanceof MeshError && ['carrier_lost', 'connect_timeout'].includes(error.code),
    );
    clock.step(limits.connectTimeoutMs);
    await opened;
    // Nobody has to close it. A closed socket leaves the list a few turns later; one that stays lets the test run into its limit.
    while (sockets() > before) await new Promise(setImmediate);
    assert.equal(clock.pendingTimers, 0);
  });
});
