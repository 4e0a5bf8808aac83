import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Engine, Mesh, SignalingState } from '@cocoon-mesh/mesh';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import type { Finding } from './doctor.ts';
import { examine } from './doctor-daemon.ts';
import { Home } from './home.ts';

/** Tells its candidates once it knows the other side, as libdatachannel does. */
function patientEngine(): Engine {
  return {
    name: 'libdatachannel',
    sealed: false,
    connect: ({ onCandidate }) => {
      const notHere = (): never => assert.fail('not for a look');
      const told = (): void => {
        onCandidate('candidate:1 1 UDP 1 192.0.2.1 5000 typ host');
        onCandidate(null);
      };
      return {
        createOffer: async () => 'offer',
        acceptOffer: async () => (told(), 'answer'),
        acceptAnswer: async () => told(),
        addCandidate: notHere,
        get localFingerprint() {
          return notHere();
        },
        get remoteFingerprint() {
          return notHere();
        },
        opened: notHere,
        path: async () => null,
        close: async () => undefined,
      };
    },
  };
}

async function findings(signaling: SignalingState): Promise<ReadonlyMap<string, Finding>> {
  const folder = mkdtempSync(join(tmpdir(), 'cocoon-doctor-'));
  try {
    const found = await examine({
      mesh: { signaling, devices: () => [] } as unknown as Mesh,
      engine: patientEngine(),
      engineReason: 'it is there',
      iceServers: [],
      signalingUrl: 'ws://signaling.example/ws',
      gatewayUrl: 'http://127.0.0.1:7401',
      home: new Home(folder),
      version: '1',
      clock: new SteppedClock(),
      features: { taskTotal: async () => null, embeddings: null, plugins: { list: () => ({ plugins: [] }) } },
      local: { all: () => [], problems: () => [] },
    });
    return new Map(found.map((finding) => [finding.check, finding]));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test('a look at the network ends as soon as the engine has found its addresses, without waiting for its limit', async () => {
  const found = await findings({ state: 'connecting' });
  assert.notEqual(found.get('network')?.state, 'fail');
});

test('whoever signaling does not let in is told what to do about that, not to look at the line', async () => {
  const hintOf = async (state: SignalingState): Promise<string> =>
    (await findings(state)).get('signaling')?.hint ?? '';
  const waiting = { state: 'waiting', message: 'no', retryAtMs: 0 } as const;
  assert.match(await hintOf({ state: 'refused', code: 'revoked', message: 'no' }), /fresh --home/);
  assert.match(await hintOf({ ...waiting, code: 'oidc_required' }), /COCOON_OIDC_TOKEN/);
  assert.match(await hintOf({ ...waiting, code: 'membership_invalid' }), /cocoon secret use/);
  assert.match(await hintOf({ ...waiting, code: 'signaling_unreachable' }), /address/);
});
