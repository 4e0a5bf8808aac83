import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import { MeshError } from '@cocoon-mesh/protocol';
import { listen, openSide } from '../engine-pair.contract.ts';
import type { Engine, PeerConnection } from '../engine.ts';
import { StockPeer, attackerWerift, attacks, freshCertificate, stolenCertificate } from './dtls-attacks.ts';
import type { Attack } from './dtls-attacks.ts';
import { libdatachannelEngine } from './libdatachannel.node.ts';
import type { DtlsRole } from './werift-handshake.node.ts';
import { weriftEngine } from './werift.node.ts';

/** A stock peer sleeps 100 ms before its first message, and a lost one comes again after half a second. */
const patienceMs = 4000;
/** Where a peer just stops, libdatachannel goes on waiting; not having opened by then is refusal enough. */
const silenceMs = 1500;

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
