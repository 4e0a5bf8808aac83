import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { CapabilityState } from '@cocoon-mesh/protocol';
import type { Candidate, Wanted } from './choice.ts';
import { choose, unfitness } from './choice.ts';

const wanted: Wanted = {
  protocol: 'llm.chat',
  version: '^1.0.0',
  features: [],
  preferred: null,
  only: null,
  sticky: null,
};

type Described = Partial<Candidate> & {
  readonly version?: string;
  readonly states?: Partial<CapabilityState>[];
};

function order(devices: Record<string, Described>, change: Partial<Wanted> = {}): string[] {
  const { candidates, statesOf } = mesh(devices);
  return choose(candidates, { ...wanted, ...change }, statesOf).map(({ name }) => name);
}

function mesh(devices: Record<string, Described>) {
  const states = new Map<string, CapabilityState[]>();
  const candidates = Object.entries(devices).map(
    ([name, { version = '1.0.0', states: told, ...change }]): Candidate => {
      if (told)
        states.set(
          name,
          told.map((state) => ({ ...idle, version, ...state })),
        );
      return {
        peerId: name,
        name,
        self: false,
        foreign: false,
        online: true,
        problem: null,
        capabilities: [{ protocol: 'llm.chat', version }],
        load: 0,
        rttMs: null,
        ...change,
      };
    },
  );
  return { candidates, statesOf: (peerId: string) => states.get(peerId) ?? null };
}

const idle: CapabilityState = {
  protocol: 'llm.chat',
  version: '1.0.0',
  in_flight: 0,
  queued: 0,
  limit: 2,
  warm: true,
  stand_in: false,
  features: [],
};

describe('who may be asked', () => {
  test('offers the protocol, within the range, and is there', () => {
    const devices = {
      good: {},
      newer: { version: '2.0.0' },
      early: { version: '1.1.0-beta.1' },
      other: { capabilities: [{ protocol: 'llm.chat.extra', version: '1.0.0' }] },
      off: { online: false },
      posing: { problem: 'Its name belongs to another device' },
    };
    assert.deepEqual(order(devices), ['good']);
    assert.deepEqual(order(devices, { version: '>=2' }), ['newer']);
    assert.deepEqual(order(devices, { version: '1.1.0-beta.1' }), ['early']);
    assert.throws(() => order(devices, { version: 'new' }), TypeError);
  });

  test('of another owner is asked only when it is named', () => {
    const devices = { own: {}, 'box@abcdefgh': { foreign: true }, 'pc@abcdefgh': { foreign: true } };
    assert.deepEqual(order(devices), ['own']);
    assert.deepEqual(order(devices, { preferred: 'box@abcdefgh' }), ['box@abcdefgh', 'own']);
    assert.deepEqual(order(devices, { only: 'pc@abcdefgh' }), ['pc@abcdefgh']);
  });

  test('has all features that are needed, in one provider, or has not told yet', () => {
    const devices = {
      none: { states: [{}] },
      apart: { states: [{ features: ['model:a'] }, { features: ['tools'] }] },
      unknown: {},
      both: { states: [{ features: ['model:a', 'tools'], warm: false }] },
    };
    assert.deepEqual(order(devices, { features: ['model:a', 'tools'] }), ['both', 'unknown']);
  });

  test('serves now: a provider that it does not tell us of any more is passed over', () => {
    assert.deepEqual(order({ gone: { states: [] }, other: { states: [{ version: '2.0.0' }] } }), []);
  });

  test('is said of a device that was named and is not asked', () => {
    const { candidates, statesOf } = mesh({
      off: { online: false },
      old: { version: '0.9.0' },
      posing: { problem: 'no' },
      good: {},
    });
    assert.deepEqual(
      candidates.map((candidate) => unfitness(candidate, wanted, statesOf)),
      ['device_offline', 'capability_not_found', 'name_changed', null],
    );
  });
});

describe('who comes first', () => {
  const busy = { in_flight: 2 };

  test('is who was preferred, then who served the session, then this device', () => {
    const devices = { me: { self: true, states: [{}] }, kept: {}, wished: { states: [busy] }, other: {} };
    const change = { preferred: 'wished', sticky: 'kept' };
    assert.deepEqual(order(devices, change).slice(0, 3), ['wished', 'kept', 'me']);
  });

  test('is this device as long as it has a free place, and then one like all others', () => {
    assert.deepEqual(
      order({ box: { states: [{}] }, me: { self: true, states: [{ in_flight: 1, warm: false }] } }),
      ['me', 'box'],
    );
    assert.deepEqual(order({ me: { self: true, states: [busy] }, box: { states: [{ warm: false }] } }), [
      'box',
      'me',
    ]);
  });

  test('has a free place, then is warm, then has the least load for its size, then is near', () => {
    const devices = {
      full: { states: [{ in_flight: 2, queued: 3 }] },
      cold: { states: [{ warm: false }] },
      half: { states: [{ in_flight: 1, limit: 2 }] },
      large: { states: [{ in_flight: 3, limit: 16 }] },
      far: { states: [{}], rttMs: 80 },
      near: { states: [{}], rttMs: 2 },
      unseen: { states: [{}] },
      waiting: { states: [{ in_flight: 2, queued: 1 }] },
    };
    assert.deepEqual(order(devices), ['near', 'far', 'unseen', 'large', 'half', 'cold', 'waiting', 'full']);
  });

  test('is known before unknown; of the unknown, signaling tells who is less busy', () => {
    const devices = {
      known: { states: [{ in_flight: 1, warm: false }] },
      b: { load: 0.5 },
      a: { load: 0.25 },
      full: { load: 1 },
    };
    assert.deepEqual(order(devices), ['known', 'a', 'b', 'full']);
  });

  test('is who has more than a stand-in, as far as that is known', () => {
    const standIn = { states: [{ stand_in: true }] };
    const me = { self: true, ...standIn };
    assert.deepEqual(order({ me, unknown: {}, other: standIn }), ['me', 'other', 'unknown']);
    const both = { states: [{ stand_in: true }, { ...busy, queued: 8, warm: false }] };
    assert.deepEqual(order({ me, unknown: {}, both }), ['unknown', 'both', 'me']);
    assert.deepEqual(order({ me, both, kept: standIn }, { sticky: 'kept', preferred: 'me' }), [
      'me',
      'kept',
      'both',
    ]);
    const words = { states: [{ stand_in: true, features: ['model:words'] }] };
    assert.deepEqual(order({ words, both }, { features: ['model:words'] }), ['words']);
  });
});
