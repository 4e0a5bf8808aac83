import assert from 'node:assert/strict';
import { setImmediate as turn } from 'node:timers/promises';
import { describe, test } from 'node:test';
import type { SignalPayload, SigningKey } from '@cocoon-mesh/protocol';
import { generateSigningKey, limits, randomBytes, signTicket, toBase64Url } from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import type { Engine } from './engine.ts';
import { Links } from './links.ts';
import { Opening } from './opening.ts';
import type { Standing } from './trust.ts';

const [us, them, third, signaling, otherKey] = await Promise.all(
  Array.from({ length: 5 }, () => generateSigningKey()),
);
assert.ok(us && them && third && signaling && otherKey);
const owner = `own_${'A'.repeat(43)}`;

interface TicketChange {
  readonly key?: SigningKey;
  readonly offerer?: string;
  readonly answerer?: string;
  readonly jti?: string;
  /** Seconds from now. */
  readonly iat?: number;
  readonly exp?: number;
}

/** Links with an engine whose connections are counted and never open. */
function setUp() {
  const clock = new SteppedClock();
  const seen = {
    connections: 0,
    closed: 0,
    refused: [] as string[],
    introduced: [] as string[],
    candidates: 0,
  };
  const sent: SignalPayload[] = [];
  const asked: PromiseWithResolvers<string>[] = [];
  const engine: Engine = {
    name: 'libdatachannel',
    sealed: false,
    connect: () => {
      seen.connections++;
      const opening = new Opening(clock);
      return {
        createOffer: async () => 'offer',
        acceptOffer: async () => 'answer',
        acceptAnswer: async () => undefined,
        addCandidate: () => void seen.candidates++,
        localFingerprint: new Uint8Array(32),
        remoteFingerprint: new Uint8Array(32),
        opened: (signal) => opening.wait(signal),
        path: async () => null,
        close: async () => void seen.closed++,
      };
    },
  };
  const links = new Links({
    key: us as SigningKey,
    engine,
    iceServers: [],
    clock,
    introduce: () => {
      const answer = Promise.withResolvers<string>();
      asked.push(answer);
      return answer.promise;
    },
    sendSignal: (_, payload) => void sent.push(payload),
    ticketAuthority: () => ({
      key: (signaling as SigningKey).publicKey,
      nowSeconds: clock.now() / 1000,
    }),
    hello: () => Promise.reject(new Error('no connection opens here')),
    judge: () => Promise.reject(new Error('no connection opens here')),
    accept: () => undefined,
    made: () => undefined,
    changed: () => undefined,
    introduced: ({ dialled }, error) =>
      seen.introduced.push(`${dialled ? 'to' : 'from'} ${error?.code ?? 'ok'}`),
    log: (_, message, fields) => {
      if (message === 'An introduction was refused') seen.refused.push(String(fields?.['code']));
    },
  });
  const ticket = async (change: TicketChange = {}): Promise<string> => {
    const now = Math.floor(clock.now() / 1000);
    return signTicket(change.key ?? (signaling as SigningKey), {
      jti: change.jti ?? nonce(),
      owner,
      offerer: change.offerer ?? (them as SigningKey).peerId,
      answerer: change.answerer ?? (us as SigningKey).peerId,
      nonce: nonce(),
      scopes: ['session'],
      iat: now + (change.iat ?? 0),
      exp: now + (change.exp ?? limits.ticketLifetimeMs / 1000),
    });
  };
  return { clock, links, seen, sent, asked, ticket };
}

function nonce(): string {
  return toBase64Url(randomBytes(16));
}

/** Until everything that was begun has come as far as it can: signatures are checked outside this thread. */
async function settle(done: () => boolean): Promise<void> {
  const end = Date.now() + 5_000;
  while (!done() && Date.now() < end) await turn();
  assert.ok(done(), 'it never came to that');
  for (let i = 0; i < 20; i++) await turn();
}

const standing: Standing = {
  peerId: them.peerId,
  membership: {
    owner,
    epoch: 0,
    peerId: them.peerId,
    rights: [],
    granted: 0,
    expires: null,
    until: null,
    jti: null,
    grantHash: null,
    serial: 1,
    provisional: false,
  },
  share: null,
  relation: 'own',
  rights: [],
  expires: null,
};

const welcome = (): Promise<Standing> => Promise.resolve(standing);

describe('a ticket', () => {
  const bad: Readonly<Record<string, TicketChange>> = {
    'that another key signed': { key: otherKey },
    'for another answerer': { answerer: third.peerId },
    'from another offerer': { offerer: third.peerId },
    'that has ended': { iat: -70, exp: -10 },
    'from the future': { iat: 600, exp: 660 },
    'that lives for hours': { exp: 7200 },
  };
  for (const [what, change] of Object.entries(bad)) {
    test(`${what} opens no connection to us`, async () => {
      const { links, seen, ticket } = setUp();
      links.introduced(await ticket(change), them.peerId, welcome);
      await settle(() => seen.refused.length === 1);
      assert.deepEqual(seen.refused, ['ticket_invalid']);
      assert.equal(seen.connections, 0);
      await links.close();
    });

    test(`${what} opens no connection from us`, async () => {
      const { links, seen, asked, ticket } = setUp();
      const { offerer = us.peerId, answerer = them.peerId } = change;
      const connecting = links.connect(them.peerId);
      asked[0]?.resolve(
        await ticket({
          ...change,
          offerer: offerer === us.peerId ? offerer : third.peerId,
          answerer,
        }),
      );
      await assert.rejects(connecting, { code: 'ticket_invalid' });
      assert.equal(seen.connections, 0);
      await links.close();
    });
  }

  test('is good for one connection', async () => {
    const { links, seen, ticket } = setUp();
    const once = await ticket();
    links.introduced(once, them.peerId, welcome);
    await settle(() => seen.connections === 1);
    links.introduced(once, them.peerId, welcome);
    await settle(() => seen.refused.length === 1);
    assert.deepEqual(seen.refused, ['ticket_used']);
    assert.equal(seen.connections, 1);
    await links.close();
  });

  test('is good for one connection, also when it comes twice at once', async () => {
    const { links, seen, ticket } = setUp();
    const once = await ticket();
    for (let i = 0; i < 5; i++) links.introduced(once, them.peerId, welcome);
    await settle(() => seen.refused.length === 4 && seen.connections > 0);
    assert.equal(seen.connections, 1);
    await links.close();
  });

  test('is remembered for longer than it lives, and no longer', async () => {
    const { clock, links, seen, ticket } = setUp();
    const once = await ticket();
    links.introduced(once, them.peerId, welcome);
    await settle(() => seen.connections === 1);
    // The connection is given up while the ticket still lives.
    clock.step(limits.connectTimeoutMs);
    await settle(() => seen.refused.includes('connect_timeout'));
    links.introduced(once, them.peerId, welcome);
    await settle(() => seen.refused.includes('ticket_used'));
    clock.step(3 * limits.ticketLifetimeMs);
    links.introduced(once, them.peerId, welcome);
    await settle(() => seen.refused.includes('ticket_invalid'));
    assert.equal(seen.connections, 1);
    await links.close();
  });
});

describe('introductions by others', () => {
  test('of a peer that is not vouched for open no connection', async () => {
    const { links, seen, ticket } = setUp();
    links.introduced(await ticket(), them.peerId, () => Promise.reject(new Error('a stranger')));
    await settle(() => seen.refused.length === 1);
    assert.equal(seen.connections, 0);
    assert.deepEqual(seen.introduced, ['from internal']);
    await links.close();
  });

  test('of one peer are under way in small number, however fast they come', async () => {
    const { links, seen, ticket } = setUp();
    const count = 2 * limits.maxHalfOpenProofsPerPeer;
    for (const each of await Promise.all(Array.from({ length: count }, () => ticket())))
      links.introduced(each, them.peerId, welcome);
    await settle(() => seen.refused.length + seen.connections === count);
    assert.ok(seen.refused.every((code) => code === 'overloaded'));
    assert.equal(seen.connections, limits.maxHalfOpenProofsPerPeer);
    await links.close();
  });

  test('of many peers are bounded too, and their places come free when they end', async () => {
    const { clock, links, seen, ticket } = setUp();
    const peers = await Promise.all(
      Array.from({ length: limits.maxHalfOpenProofs + 6 }, () => generateSigningKey()),
    );
    const tickets = await Promise.all(peers.map(({ peerId: offerer }) => ticket({ offerer })));
    for (const [i, { peerId }] of peers.entries()) links.introduced(tickets[i] ?? '', peerId, welcome);
    await settle(() => seen.refused.length === 6 && seen.connections === limits.maxHalfOpenProofs);
    clock.step(limits.connectTimeoutMs);
    await settle(() => seen.closed === limits.maxHalfOpenProofs);
    links.introduced(await ticket(), them.peerId, welcome);
    await settle(() => seen.connections === limits.maxHalfOpenProofs + 1);
    await links.close();
  });

  test('keep a bounded number of signals that come before the ticket is judged', async () => {
    const { links, seen, ticket } = setUp();
    const jti = nonce();
    const vouched = Promise.withResolvers<Standing>();
    links.introduced(await ticket({ jti }), them.peerId, () => vouched.promise);
    for (let i = 0; i < 10 * limits.maxSignalsPerIntroduction; i++)
      links.signal(jti, { kind: 'candidate', candidate: null });
    vouched.resolve(standing);
    await settle(() => seen.connections === 1);
    assert.equal(seen.candidates, limits.maxSignalsPerIntroduction);
    await links.close();
  });

  test('are not disturbed by signals that belong to no introduction', async () => {
    const { links, seen } = setUp();
    links.signal(nonce(), { kind: 'offer', sdp: 'x' });
    links.signal(nonce(), { kind: 'failed', code: 'glare' });
    assert.equal(seen.connections, 0);
    await links.close();
  });
});

describe('links that close', () => {
  test('make no connection for an introduction that is still being judged', async () => {
    const { clock, links, seen, ticket } = setUp();
    const vouched = Promise.withResolvers<Standing>();
    links.introduced(await ticket(), them.peerId, () => vouched.promise);
    await links.close();
    vouched.resolve(standing);
    await settle(() => seen.refused.length === 1);
    assert.equal(seen.connections, 0);
    assert.equal(clock.pendingTimers, 0);
  });

  test('make no connection for a ticket that comes afterwards, and tell whoever waits', async () => {
    const { clock, links, seen, asked, ticket } = setUp();
    const connecting = links.connect(them.peerId);
    const rejected = assert.rejects(connecting, { code: 'cancelled' });
    await links.close();
    await rejected;
    asked[0]?.resolve(await ticket({ offerer: us.peerId, answerer: them.peerId }));
    await turn();
    await settle(() => true);
    assert.equal(seen.connections, 0);
    assert.equal(clock.pendingTimers, 0);
  });

  test('have closed every connection that was being made', async () => {
    const { clock, links, seen, asked, ticket } = setUp();
    links.introduced(await ticket({ offerer: third.peerId }), third.peerId, welcome);
    const connecting = assert.rejects(links.connect(them.peerId), { code: 'cancelled' });
    asked[0]?.resolve(await ticket({ offerer: us.peerId, answerer: them.peerId }));
    await settle(() => seen.connections === 2);
    await links.close();
    assert.equal(seen.closed, 2);
    await connecting;
    assert.equal(clock.pendingTimers, 0);
  });
});

describe('a peer that is dialled', () => {
  test('and never answers is given up in time, with everything closed', async () => {
    const { clock, links, seen, asked, sent, ticket } = setUp();
    const connecting = assert.rejects(links.connect(them.peerId), { code: 'connect_timeout' });
    asked[0]?.resolve(await ticket({ offerer: us.peerId, answerer: them.peerId }));
    await settle(() => sent.some(({ kind }) => kind === 'offer'));
    clock.step(limits.connectTimeoutMs);
    await connecting;
    assert.equal(seen.closed, 1);
    assert.deepEqual(seen.introduced, ['to connect_timeout']);
    // The next request is a new attempt.
    void links.connect(them.peerId).catch(() => undefined);
    await settle(() => asked.length === 2);
    await links.close();
  });
});
