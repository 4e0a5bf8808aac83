import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { MeshError } from '@cocoon-mesh/protocol';
import { listen, openSide } from '../engine-pair.contract.ts';
import type { Engine, PeerConnection } from '../engine.ts';
import {
  StockPeer,
  attackerWerift,
  attacks,
  freshCertificate,
  stolenCertificate,
} from './dtls-attacks.contract.node.ts';
import type { Attack } from './dtls-attacks.contract.node.ts';
import type { Outcome } from './dtls-attacks-run.contract.node.ts';
import { libdatachannelEngine } from './libdatachannel.node.ts';
import type { DtlsRole } from './werift-handshake.node.ts';
import { weriftEngine } from './werift.node.ts';

/** A stock peer sleeps 100 ms before its first message, and a lost one comes again after half a second. */
const patienceMs = 4000;
/** Where a peer just stops, libdatachannel goes on waiting; not having opened by then is refusal enough. */
const silenceMs = 1500;
/** A process that has not ended by then hangs; the longest honest run is below half of it. */
const hangMs = 10_000;

interface Encounter extends AsyncDisposable {
  readonly attacker: StockPeer;
  readonly victim: PeerConnection;
}

/** Introduces attacker and victim; the attacker answers and takes the DTLS role. */
async function encounter(engine: Engine, role: DtlsRole, attack?: Attack): Promise<Encounter> {
  const honest = await freshCertificate(attackerWerift);
  const certificate = attack?.stolenKey ? stolenCertificate(attackerWerift, honest) : honest;
  const { connection: victim } = openSide(engine, (line) => attacker.addCandidate(line));
  const attacker: StockPeer = new StockPeer(attackerWerift, certificate, {
    iceServers: [],
    onCandidate: (line) => victim.addCandidate(line),
  });
  const announce = (sdp: string): string =>
    attack?.wrongFingerprint
      ? sdp.replace(/(a=fingerprint:sha-256 )(..)/i, (_, head: string, byte: string) =>
          byte === '00' ? `${head}01` : `${head}00`,
        )
      : sdp;
  const met: Encounter = {
    attacker,
    victim,
    async [Symbol.asyncDispose]() {
      await Promise.all([attacker.close(), victim.close()]);
    },
  };
  try {
    const answer = await attacker.acceptOffer(await victim.createOffer(), role);
    await victim.acceptAnswer(announce(answer));
    return met;
  } catch (error) {
    await met[Symbol.asyncDispose]();
    throw error;
  }
}

for (const [name, load] of [
  ['werift', weriftEngine],
  ['libdatachannel', libdatachannelEngine],
] as const) {
  describe(`${name}: a hostile DTLS peer`, { timeout: 60_000, concurrency: true }, () => {
    let engine: Engine;
    before(async () => {
      engine = await load();
    });

    for (const role of ['client', 'server'] as const)
      it(`an honest stock peer as DTLS ${role} connects and is heard`, async () => {
        await using met = await encounter(engine, role);
        const carrier = await met.victim.opened(AbortSignal.timeout(patienceMs));
        const heard = listen(carrier);
        await met.attacker.opened;
        assert.equal(met.attacker.role, role);
        met.attacker.channel.send(Buffer.from('hello'));
        await heard.until((listener) => listener.messages.length === 1);
        assert.equal(Buffer.from(heard.messages[0] ?? []).toString(), 'hello');
        carrier.send(Buffer.from('welcome'));
        await met.attacker.until(() => met.attacker.messages.length === 1);
      });
  });

  describe(`${name}: a DTLS peer is refused that`, { timeout: 60_000 }, () => {
    let engine: Engine;
    before(async () => {
      engine = await load();
    });
    for (const attack of attacks) {
      if (attack.weriftOnly && name !== 'werift') continue;
      for (const role of attack.roles)
        it(`${attack.name}, as DTLS ${role}`, async () => {
          const undo = attack.bend?.() ?? [];
          try {
            await using met = await encounter(engine, role, attack);
            const limitMs = name === 'werift' ? patienceMs : silenceMs;
            await assert.rejects(met.victim.opened(AbortSignal.timeout(limitMs)), (error) => {
              assert.ok(error instanceof MeshError);
              if (name !== 'werift') return error.code === 'carrier_lost' || error.code === 'timeout';
              assert.match(error.message, attack.refusal);
              return error.code === 'carrier_lost';
            });
          } finally {
            for (const restore of undo) restore();
          }
        });
    }
  });
}

/** An outcome, or null when the process hung. */
function attackInProcess(
  victim: 'stock' | 'werift',
  attack: string,
  role: DtlsRole,
): Promise<Outcome | null> {
  const program = fileURLToPath(new URL('./dtls-attacks-run.contract.node.ts', import.meta.url));
  return new Promise((resolve, reject) => {
    execFile(process.execPath, [program, victim, attack, role], { timeout: hangMs }, (error, stdout) => {
      if (stdout !== '') resolve(JSON.parse(stdout) as Outcome);
      else if (error?.killed) resolve(null);
      else reject(error ?? new Error('the process said nothing'));
    });
  });
}

/** What each does to stock werift, so that a victim that is not harmed proves something. */
const liveAttacks: Record<string, (stock: Outcome | null) => boolean | null | undefined> = {
  'many messages': (stock) => stock?.nonceReused,
  renegotiation: (stock) => stock && stock.unprotectedAnswers > 0 && !stock.alive,
  'plaintext alert from the peer': (stock) => stock && !stock.alive,
  'plaintext alert from another port': (stock) => stock && !stock.alive,
  'unknown chunk': (stock) => stock && stock.unhandled.length > 0,
  'zero-length chunk': (stock) => stock === null,
  'short packet': (stock) => stock && stock.unhandled.length > 0,
  'bad payload protocol': (stock) => stock && stock.unhandled.length > 0,
  'stray acknowledgement of a channel': (stock) => stock && stock.unhandled.length > 0,
};

describe('a peer that is connected', { timeout: 60_000, concurrency: 2 }, () => {
  const unharmed: Outcome = {
    heard: true,
    alive: true,
    unhandled: [],
    nonceReused: false,
    unprotectedAnswers: 0,
  };
  for (const [name, harms] of Object.entries(liveAttacks)) {
    it(`does not harm werift by ${name}`, async () => {
      assert.deepEqual(await attackInProcess('werift', name, 'client'), unharmed);
    });
    it(`harms stock werift by ${name}`, async () => {
      const outcome = await attackInProcess('stock', name, 'client');
      assert.ok(harms(outcome), JSON.stringify(outcome));
    });
  }
});

describe('stock werift believes a DTLS peer that', { timeout: 60_000, concurrency: 2 }, () => {
  for (const attack of attacks.filter(({ worksOnStock }) => worksOnStock))
    for (const role of attack.roles)
      it(`${attack.name}, as DTLS ${role}`, async () => {
        const outcome = await attackInProcess('stock', attack.name, role);
        assert.equal(outcome?.heard, true, JSON.stringify(outcome));
      });
});
