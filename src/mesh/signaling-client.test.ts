import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ClientMessage, ServerMessage } from '@cocoon-mesh/protocol';
import {
  SignatureLabel,
  clientMessageSchema,
  createOwnerSecret,
  decode,
  decodeJson,
  encode,
  encodeJson,
  fromBase64Url,
  generateSigningKey,
  limits,
  memberRights,
  ownerKeys,
  serverMessageSchema,
  signInParts,
  signMembership,
  signDeviceRecord,
  toBase64Url,
  verifyLabelled,
} from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import type { SignalingState, Welcome } from './signaling-client.ts';
import { SignalingClient } from './signaling-client.ts';
import type { SignalingSocketEvents } from './signaling-socket.ts';

const url = 'ws://signaling.example/ws';
const serverNonce = 'c2VydmVyLW5vbmNlLTEyMw';

const key = await generateSigningKey();
const owner = await ownerKeys((await createOwnerSecret()).secret);
const membership = await signMembership(owner, {
  peerId: key.peerId,
  serial: 1,
  rights: memberRights,
  now: 1,
});
const record = await signDeviceRecord(key, {
  kind: 'cocoon',
  name: 'anna',
  seq: 1,
  services: [],
  capabilities: [],
  iat: 1,
});

/** A server end that the test drives by hand. */
class Socket {
  readonly events: SignalingSocketEvents;
  readonly sent: ClientMessage[] = [];
  json = false;
  closed = false;
  #arrived = Promise.withResolvers<void>();

  constructor(events: SignalingSocketEvents) {
    this.events = events;
  }

  send(data: Uint8Array | string): void {
    this.sent.push(
      typeof data === 'string'
        ? decodeJson(clientMessageSchema, data, 1e6)
        : decode(clientMessageSchema, data, 1e6),
    );
    this.#arrived.resolve();
    this.#arrived = Promise.withResolvers();
  }

  close(): void {
    this.closed = true;
  }

  abort(): void {
    this.closed = true;
    this.events.closed(1006, 'aborted');
  }

  say(message: ServerMessage): void {
    this.events.message(
      this.json ? encodeJson(serverMessageSchema, message) : encode(serverMessageSchema, message),
    );
  }

  /** The first message of a kind, when it has come. */
  async heard<T extends ClientMessage['type']>(type: T): Promise<ClientMessage & { type: T }> {
    for (;;) {
      const found = this.sent.find((message) => message.type === type);
      if (found) return found as ClientMessage & { type: T };
      await this.#arrived.promise;
    }
  }
}

function harness(change: { welcomed?: (welcome: Welcome) => Promise<void> } = {}) {
  const clock = new SteppedClock();
  const sockets: Socket[] = [];
  const states: SignalingState[] = [];
  const client = new SignalingClient({
    url,
    openSocket: (_url, _protocols, events) => {
      const socket = new Socket(events);
      sockets.push(socket);
      return socket;
    },
    key,
    clock,
    random: () => 1,
    credentials: async () => ({ membership, record }),
    welcomed: change.welcomed ?? (async () => undefined),
    message: () => undefined,
    changed: (state) => states.push(state),
  });
  const last = (): Socket => sockets.at(-1) ?? assert.fail('no socket');
  return { clock, sockets, states, client, last };
}

type Harness = ReturnType<typeof harness>;

async function signIn(
  { client, last, states, clock }: Harness,
  protocol = 'cocoon.v1.msgpack',
): Promise<Socket> {
  if (client.state.state === 'closed') client.start();
  const socket = last();
  socket.json = protocol === 'cocoon.v1.json';
  socket.events.open(protocol);
  await socket.heard('sign_in');
  socket.say({ type: 'challenge', nonce: serverNonce, time: 42 });
  await socket.heard('sign_in_proof');
  socket.say({
    type: 'welcome',
    time_ms: clock.now() + 7_000,
    ticket_key: toBase64Url(new Uint8Array(32)),
    receipt_key: toBase64Url(new Uint8Array(32)),
    access_token: 'token',
    devices: [],
    revocations: [],
  });
  while (states.at(-1)?.state !== 'connected') await Promise.resolve();
  return socket;
}

test('signing in proves the device key for exactly the address that was dialled', async () => {
  const all = harness();
  const socket = await signIn(all);
  const { nonce } = await socket.heard('sign_in');
  const { signature } = await socket.heard('sign_in_proof');
  const parts = signInParts({ publicUrl: url, clientNonce: nonce, serverNonce, time: 42 });
  await verifyLabelled(key.publicKey, fromBase64Url(signature), SignatureLabel.signIn, parts);
  const { state } = all.client;
  assert.equal(state, all.states.at(-1));
  assert.equal(state.state === 'connected' && state.clockOffsetMs, 7_000);
  all.client.close();
  assert.equal(all.clock.pendingTimers, 0);
});

test('the same client speaks JSON to a server that prefers it', async () => {
  const all = harness();
  await signIn(all, 'cocoon.v1.json');
  all.client.close();
});

test('a lost connection is made again, later each time, and at once as good as new', async () => {
  const all = harness();
  await signIn(all);
  all.last().events.closed(1006, 'gone');
  for (const wait of [500, 750, 1_125]) {
    assert.equal(all.client.state.state, 'waiting');
    const count = all.sockets.length;
    all.clock.step(wait - 1);
    assert.equal(all.sockets.length, count);
    all.clock.step(1);
    assert.equal(all.sockets.length, count + 1);
    all.last().events.closed(1006, 'refused');
  }
  all.clock.step(30_000);
  await signIn(all);
  all.last().events.closed(1006, 'gone');
  all.clock.step(500);
  assert.equal(all.client.state.state, 'connecting');
  all.client.close();
});

test('a server that says goodbye is left alone for as long as it asks', async () => {
  const all = harness();
  const socket = await signIn(all);
  socket.say({ type: 'goodbye', retry_after_ms: 5_000 });
  socket.events.closed(1001, 'going away');
  const count = all.sockets.length;
  all.clock.step(4_999);
  assert.equal(all.sockets.length, count);
  all.clock.step(1);
  assert.equal(all.sockets.length, count + 1);
  all.client.close();
});

test('a server that asks to be left alone for good is asked again after minutes', async () => {
  const all = harness();
  const socket = await signIn(all);
  socket.say({ type: 'goodbye', retry_after_ms: 1e15 });
  socket.events.closed(1001, 'going away');
  const count = all.sockets.length;
  all.clock.step(5 * 60_000);
  assert.equal(all.sockets.length, count + 1);
  all.client.close();
});

test('a server that says nothing is given up, during sign-in and after', async () => {
  const all = harness();
  all.client.start();
  all.last().events.open('cocoon.v1.msgpack');
  all.clock.step(limits.signInTimeoutMs);
  assert.ok(all.sockets[0]?.closed);
  all.clock.step(500);
  const socket = await signIn(all);
  for (let waited = 0; waited <= limits.signalingDeadMs + limits.signalingPingMs; waited += 1_000)
    all.clock.step(1_000);
  assert.ok(socket.sent.some(({ type }) => type === 'ping'));
  assert.ok(socket.closed);
  all.client.close();
});

test('a refusal that can never turn into a welcome ends the trying, any other does not', async () => {
  const all = harness();
  all.client.start();
  all.last().events.open('cocoon.v1.msgpack');
  all.last().say({ type: 'error', code: 'rate_limited', message: 'slow down', retry_after_ms: 9_000 });
  all.last().events.closed(1008, '');
  assert.equal(all.client.state.state, 'waiting');
  all.clock.step(9_000);
  all.last().events.open('cocoon.v1.msgpack');
  all.last().say({ type: 'error', code: 'token_used', message: 'used' });
  all.last().events.closed(1008, '');
  assert.deepEqual(all.client.state, { state: 'refused', code: 'token_used', message: 'used' });
  all.clock.step(3_600_000);
  assert.equal(all.sockets.length, 2);
  all.client.close();
});

test('a membership that does not count is shown again soon, then slowly: after a rotation a new one comes in its own time', async () => {
  const all = harness();
  const pauses = [2_000, 5_000, 15_000, 60_000, 60_000];
  for (const [round, pauseMs] of pauses.entries()) {
    if (round === 0) all.client.start();
    all.last().events.open('cocoon.v1.msgpack');
    all.last().say({ type: 'error', code: 'membership_invalid', message: 'an older epoch' });
    all.last().events.closed(1008, '');
    assert.equal(all.client.state.state, 'waiting');
    all.clock.step(pauseMs - 1);
    assert.equal(all.sockets.length, round + 1);
    all.clock.step(1);
    assert.equal(all.sockets.length, round + 2);
  }
  all.client.close();
});

test('whatever is asked of a server that refused fails with its refusal, until it lets this peer in', async () => {
  const all = harness();
  const ask = (): Promise<ServerMessage> =>
    all.client.request((id) => ({ type: 'lookup', id, protocol: 'tasks', version: '*' }), 5_000);
  const refuse = (code: string): void => {
    all.last().events.open('cocoon.v1.msgpack');
    all.last().say({ type: 'error', code, message: 'why' });
    all.last().events.closed(1008, '');
  };
  all.client.start();
  await assert.rejects(ask(), { code: 'signaling_unreachable' });
  refuse('oidc_required');
  await assert.rejects(ask(), { code: 'oidc_required', message: 'why' });
  all.clock.step(10_000);
  assert.equal(all.client.state.state, 'connecting');
  await assert.rejects(ask(), { code: 'oidc_required' });
  all.last().events.closed(1006, '');
  await assert.rejects(ask(), { code: 'signaling_unreachable' });
  while (all.states.at(-1)?.state === 'waiting') all.clock.step(500);
  refuse('revoked');
  assert.equal(all.client.state.state, 'refused');
  await assert.rejects(ask(), { code: 'revoked', message: 'why' });
  all.client.close();
});

test('a device that was revoked is not asked for again', async () => {
  const all = harness();
  all.client.start();
  all.last().events.open('cocoon.v1.msgpack');
  all.last().say({ type: 'error', code: 'revoked', message: 'The right was revoked' });
  all.last().events.closed(1008, '');
  assert.equal(all.client.state.state, 'refused');
  all.clock.step(3_600_000);
  assert.equal(all.sockets.length, 1);
  all.client.close();
});

test('a request ends with its answer, its error, its time limit or the connection', async () => {
  const all = harness();
  const socket = await signIn(all);
  const lookup = (): Promise<ServerMessage> =>
    all.client.request((id) => ({ type: 'lookup', id, protocol: 'tasks', version: '*' }), 5_000);
  const idOfLast = (): number => {
    const message = socket.sent.findLast(({ type }) => type === 'lookup');
    return message?.type === 'lookup' ? message.id : -1;
  };
  const answered = lookup();
  socket.say({ type: 'lookup_result', id: idOfLast(), matches: [] });
  assert.equal((await answered).type, 'lookup_result');
  const refused = lookup();
  socket.say({ type: 'error', id: idOfLast(), code: 'rate_limited', message: 'later' });
  await assert.rejects(refused, { code: 'rate_limited' });
  const late = lookup();
  all.clock.step(5_000);
  await assert.rejects(late, { code: 'timeout' });
  const lost = lookup();
  socket.events.closed(1006, 'gone');
  await assert.rejects(lost, { code: 'signaling_unreachable' });
  await assert.rejects(lookup(), { code: 'signaling_unreachable' });
  all.client.close();
});

test('garbage and unknown messages of a newer server change nothing', async () => {
  const all = harness();
  const socket = await signIn(all);
  socket.events.message(Uint8Array.of(0xc1, 1, 2, 3));
  socket.events.message('{"type":"dance"}');
  socket.events.message('not json');
  assert.equal(all.client.state.state, 'connected');
  all.client.close();
});

test('a welcome that we find wrong is no welcome', async () => {
  const all = harness({ welcomed: () => Promise.reject(new Error('the receipt is missing')) });
  all.client.start();
  const socket = all.last();
  socket.events.open('cocoon.v1.msgpack');
  socket.say({ type: 'challenge', nonce: serverNonce, time: 42 });
  await socket.heard('sign_in_proof');
  const key32 = toBase64Url(new Uint8Array(32));
  socket.say({
    type: 'welcome',
    time_ms: 0,
    ticket_key: key32,
    receipt_key: key32,
    access_token: 'token',
    devices: [],
    revocations: [],
  });
  while (all.client.state.state === 'connecting') await Promise.resolve();
  assert.equal(all.client.state.state, 'waiting');
  all.client.close();
  assert.equal(all.clock.pendingTimers, 0);
});
