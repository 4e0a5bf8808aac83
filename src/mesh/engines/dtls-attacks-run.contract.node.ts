/**
 * One attack on one victim in a process of its own, because the victim may hang or die of it. Prints what
 * happened as one line of JSON. Arguments: `stock` or `werift`, then an attack's name, then the attacker's DTLS
 * role. Used by `dtls-attacks.slow.ts`.
 */

import { createSocket } from 'node:dgram';
import { openSide } from '../engine-pair.contract.ts';
import { parseCandidate } from '../sdp.ts';
import {
  StockPeer,
  attackerWerift,
  attacks,
  freshCertificate,
  stolenCertificate,
} from './dtls-attacks.contract.node.ts';
import type { StockWerift } from './dtls-attacks.contract.node.ts';
import { checksum } from './werift-sctp-packet.node.ts';
import type { DtlsRole } from './werift-handshake.node.ts';
import { weriftEngine } from './werift.node.ts';

export interface Outcome {
  /** What the attacker said was delivered at the victim. */
  readonly heard: boolean;
  /** After the attack, what the attacker says still comes back, and nothing else. */
  readonly alive: boolean;
  /** Rejections that would have ended the process. */
  readonly unhandled: readonly string[];
  /** A record number that the victim used twice under one key. */
  readonly nonceReused: boolean;
  /** Datagrams with unprotected records that the victim sent after the attack. */
  readonly unprotectedAnswers: number;
}

/** Done to a connection that is open. Each is named and listed in the slow test. */
const liveAttacks: Record<
  string,
  (attacker: StockPeer, victimPorts: readonly number[]) => Promise<void> | void
> = {
  nothing: () => undefined,
  'many messages': (attacker) => {
    for (let i = 0; i < 30; i++) attacker.channel.send(Buffer.from('one of many'));
  },
  renegotiation: (attacker) => {
    const hello = attacker.sentHello;
    if (!hello) throw new Error('the attacker was no DTLS client');
    attacker.sendDatagram(hello);
  },
  'plaintext alert from the peer': (attacker) => attacker.sendDatagram(plaintextAlert),
  'plaintext alert from another port': (_, ports) => fromElsewhere(plaintextAlert, ports),
  'unknown chunk': (attacker) => attacker.sendPacket(packetOf(attacker, [63, 0, 0, 8, 1, 2, 3, 4])),
  'zero-length chunk': (attacker) => attacker.sendPacket(packetOf(attacker, [14, 0, 0, 0])),
  'short packet': (attacker) => attacker.sendPacket(Buffer.from([1, 2, 3, 4])),
  'bad payload protocol': (attacker) =>
    void attacker.connection.sctpTransport.sctp.send(0, 99, Buffer.from(strayWord)),
  'stray acknowledgement of a channel': (attacker) =>
    void attacker.connection.sctpTransport.sctp.send(7, 50, Buffer.from([2])),
};

/** Sent as what it is not allowed to be; nobody may hear it. */
const strayWord = 'stray';

/** `close_notify`. */
const plaintextAlert = Buffer.from([21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 99, 0, 2, 1, 0]);

function packetOf(attacker: StockPeer, chunk: readonly number[]): Buffer {
  const packet = Buffer.from([0x13, 0x88, 0x13, 0x88, 0, 0, 0, 0, 0, 0, 0, 0, ...chunk]);
  packet.writeUInt32BE(attacker.connection.sctpTransport.sctp.remoteVerificationTag, 4);
  packet.writeUInt32LE(checksum(packet, packet.length), 8);
  return packet;
}

async function fromElsewhere(datagram: Buffer, ports: readonly number[]): Promise<void> {
  const socket = createSocket('udp4');
  for (const port of ports)
    await new Promise<void>((resolve) => {
      socket.send(datagram, port, '127.0.0.1', () => resolve());
    });
  socket.close();
}

interface Victim {
  readonly ports: readonly number[];
  createOffer(): Promise<string>;
  acceptAnswer(sdp: string): Promise<void>;
  addCandidate(line: string | null): void;
  /** Sends every message back, the first word of the victim. */
  echo(onHeard: () => void): void;
}

function weriftVictim(
  engine: Awaited<ReturnType<typeof weriftEngine>>,
  toAttacker: (line: string | null) => void,
): Victim {
  const ports: number[] = [];
  const { connection } = openSide(engine, (line) => {
    if (line !== null) ports.push(parseCandidate(line)?.port ?? 0);
    toAttacker(line);
  });
  return {
    ports,
    createOffer: () => connection.createOffer(),
    acceptAnswer: (sdp) => connection.acceptAnswer(sdp),
    addCandidate: (line) => connection.addCandidate(line),
    echo: (onHeard) => {
      const echoing = connection.opened(AbortSignal.timeout(10_000)).then((carrier) =>
        carrier.start({
          message: (bytes) => {
            onHeard();
            carrier.send(bytes);
          },
          writable: () => undefined,
          closed: () => undefined,
        }),
      );
      echoing.catch(() => undefined);
    },
  };
}

async function stockVictim(toAttacker: (line: string | null) => void): Promise<Victim> {
  // A query makes it another copy than the one our engine patches.
  const werift = (await import(`${import.meta.resolve('werift')}?stock`)) as StockWerift;
  const ports: number[] = [];
  const peer = new StockPeer(werift, await freshCertificate(werift), {
    iceServers: [],
    onCandidate: (line) => {
      if (line !== null) ports.push(parseCandidate(line)?.port ?? 0);
      toAttacker(line);
    },
  });
  return {
    ports,
    createOffer: () => peer.createOffer(),
    acceptAnswer: (sdp) => peer.acceptAnswer(sdp),
    addCandidate: (line) => peer.addCandidate(line),
    echo: (onHeard) =>
      void peer.channel.onMessage.subscribe((message) => {
        onHeard();
        peer.channel.send(message);
      }),
  };
}

async function run(kind: string, name: string, role: DtlsRole): Promise<Outcome> {
  const unhandled: string[] = [];
  process.on('unhandledRejection', (reason) => unhandled.push(String(reason)));
  const attack = attacks.find((known) => known.name === name);
  attack?.bend?.();
  const honest = await freshCertificate(attackerWerift);
  const certificate = attack?.stolenKey ? stolenCertificate(attackerWerift, honest) : honest;
  const toAttacker = (line: string | null): void => attacker.addCandidate(line);
  const victim: Victim =
    kind === 'stock' ? await stockVictim(toAttacker) : weriftVictim(await weriftEngine(), toAttacker);
  const attacker: StockPeer = new StockPeer(attackerWerift, certificate, {
    iceServers: [],
    onCandidate: (line) => victim.addCandidate(line),
  });
  let heard = false;
  victim.echo(() => {
    heard = true;
  });
  await victim.acceptAnswer(await attacker.acceptOffer(await victim.createOffer(), role));
  const said = await within(3000, talk(attacker, 'first'));
  const before = attacker.datagrams.length;
  if (said && !attack) await liveAttacks[name]?.(attacker, victim.ports);
  // The attack is on its way before this is.
  const alive = said && (await within(1500, talk(attacker, 'second')));
  const answers = attacker.datagrams.slice(before);
  const stray = attacker.messages.some((message) => message.toString() === strayWord);
  return {
    heard,
    alive: alive && !stray,
    unhandled,
    nonceReused: reusesNonce(attacker.datagrams),
    unprotectedAnswers: answers.filter((datagram) => datagram[0] === 22 && datagram[4] === 0).length,
  };
}

/** Says a word and waits until it comes back. */
async function talk(attacker: StockPeer, word: string): Promise<void> {
  await attacker.opened;
  const before = attacker.messages.length;
  attacker.channel.send(Buffer.from(word));
  await attacker.until(() => attacker.messages.slice(before).some((message) => message.toString() === word));
}

function within(limitMs: number, wait: Promise<void>): Promise<boolean> {
  return new Promise((resolve) => {
    setTimeout(() => resolve(false), limitMs);
    wait.then(
      () => resolve(true),
      () => resolve(false),
    );
  });
}

function reusesNonce(datagrams: readonly Buffer[]): boolean {
  const seen = new Set<string>();
  for (const datagram of datagrams) {
    for (let offset = 0; offset + 21 <= datagram.length;) {
      if (datagram.readUInt16BE(offset + 3) === 1) {
        const nonce = datagram.subarray(offset + 13, offset + 21).toString('hex');
        if (seen.has(nonce)) return true;
        seen.add(nonce);
      }
      offset += 13 + datagram.readUInt16BE(offset + 11);
    }
  }
  return false;
}

const [kind = '', name = '', role = 'client'] = process.argv.slice(2);
process.stdout.write(`${JSON.stringify(await run(kind, name, role as DtlsRole))}\n`, () => process.exit(0));
