import { strict as assert } from 'node:assert';
import test from 'node:test';
import type { SigningKey } from '@cocoon-mesh/protocol';
import { concat, fromHex, generateSigningKey, randomBytes, toHex, utf8 } from '@cocoon-mesh/protocol';
import type { ComponentLogger, Logger, Upgrader } from '@libp2p/interface';
import { generateKeyPair } from '@libp2p/crypto/keys';
import { noise } from '@libp2p/noise';
import { peerIdFromPrivateKey, peerIdFromString } from '@libp2p/peer-id';
import type { SendResult } from '@libp2p/utils';
import { AbstractMessageStream } from '@libp2p/utils';
import { nodeAead } from './noise-cipher.node.ts';
import type { AeadFactory } from './noise-cipher.ts';
import { NoiseCipher, portableAead } from './noise-cipher.ts';
import type { NoiseKeys, ProofRole } from './noise.ts';
import { NoiseHandshake } from './noise.ts';

const aeads: Record<string, AeadFactory> = { portableAead, nodeAead };

for (const [name, aead] of Object.entries(aeads)) {
  test(`${name} is ChaCha20-Poly1305 as in RFC 8439`, () => {
    // Section 2.8.2, whose tag covers associated data that Noise transport messages do not have.
    const key = fromHex('808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f');
    const nonce = fromHex('070000004041424344454647');
    const message = utf8("Ladies and Gentlemen of the class of '99");
    const sealed = aead(key.slice()).seal(nonce, [message]);
    assert.ok(toHex(sealed).startsWith('d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6'));
    assert.deepEqual(new Uint8Array(aead(key.slice()).open(nonce, sealed)), message);
  });

  test(`${name} opens what the other seals, of any length and in any number of parts`, () => {
    const key = randomBytes(32);
    for (const length of [0, 1, 15, 16, 64, 1000, 65_519]) {
      const message = randomBytes(length);
      const parts = [message.subarray(0, length >>> 1), message.subarray(length >>> 1)];
      const nonce = randomBytes(12);
      const sealed = aead(key.slice()).seal(nonce, parts);
      for (const other of Object.values(aeads)) {
        assert.deepEqual(new Uint8Array(other(key.slice()).open(nonce, sealed)), message);
      }
    }
  });

  test(`${name} refuses every changed bit, a cut and an extension`, () => {
    const nonce = randomBytes(12);
    const cipher = aead(randomBytes(32));
    const sealed = cipher.seal(nonce, [utf8('0123')]);
    for (let bit = 0; bit < sealed.length * 8; bit++) {
      const changed = sealed.slice();
      changed[bit >>> 3] = (changed[bit >>> 3] ?? 0) ^ (1 << (bit & 7));
      assert.throws(() => cipher.open(nonce, changed));
    }
    assert.throws(() => cipher.open(nonce, sealed.subarray(1)));
    assert.throws(() => cipher.open(nonce, concat(sealed, Uint8Array.of(0))));
  });

  test(`${name} does nothing after its key was dropped, and the key is overwritten`, () => {
    const key = randomBytes(32);
    const cipher = aead(key);
    const sealed = cipher.seal(new Uint8Array(12), [utf8('x')]);
    cipher.drop();
    cipher.drop();
    assert.throws(() => cipher.seal(new Uint8Array(12), [utf8('x')]));
    assert.throws(() => cipher.open(new Uint8Array(12), sealed));
    assert.deepEqual(key, new Uint8Array(32));
  });
}

test('a transport message opens once and only in its place', () => {
  const key = randomBytes(32);
  const sender = new NoiseCipher(portableAead(key.slice()));
  const sealed = [0, 1, 2].map((value) => sender.seal(Uint8Array.of(value)));
  const receiver = new NoiseCipher(portableAead(key.slice()));
  const [first, second, third] = sealed as [Uint8Array, Uint8Array, Uint8Array];
  assert.throws(() => receiver.open(second), { code: 'protocol_violation' });
  assert.deepEqual([...receiver.open(first)], [0]);
  assert.throws(() => receiver.open(first), { code: 'protocol_violation' });
  assert.throws(() => receiver.open(third), { code: 'protocol_violation' });
  assert.deepEqual([...receiver.open(second)], [1]);
  assert.throws(() => receiver.open(new Uint8Array(15)), { code: 'protocol_violation' });
  assert.equal(receiver.messages, 2);
});

test('no two messages of one key have the same nonce', () => {
  const nonces = new Set<string>();
  const cipher = new NoiseCipher({
    seal: (nonce) => {
      nonces.add(toHex(nonce));
      return new Uint8Array(16);
    },
    open: () => new Uint8Array(0),
    drop: () => {},
  });
  for (let i = 0; i < 70_000; i++) cipher.seal();
  assert.equal(nonces.size, 70_000);
  assert.equal([...nonces].at(-1), '000000006f11010000000000');
});

test('both ends get the same keys crosswise, and others in every handshake', async () => {
  const all = new Set<string>();
  for (let i = 0; i < 2; i++) {
    const [dialler, listener] = await handshakes();
    assert.deepEqual(dialler.send, listener.receive);
    assert.deepEqual(dialler.receive, listener.send);
    assert.deepEqual(dialler.exporter, listener.exporter);
    for (const key of Object.values(dialler)) all.add(toHex(key));
  }
  assert.equal(all.size, 6);
});

test('handshake and transport messages are those of the Noise of libp2p', async () => {
  const ours = await generateSigningKey();
  const privateKey = await generateKeyPair('Ed25519');
  const theirId = peerIdFromPrivateKey(privateKey);
  const prologue = randomBytes(40);
  for (const role of ['dialler', 'listener'] as const) {
    const stock = new StockPipe(role);
    const handshake = new NoiseHandshake({
      role,
      key: ours,
      expectedPeer: theirId.toString(),
      prologue,
      send: (message) => stock.receive(message),
      signal: AbortSignal.timeout(5000),
    });
    const messages: Uint8Array[] = [];
    stock.onMessage = (message) =>
      handshake.wantsMessage ? handshake.receive(message) : messages.push(message);
    const encrypter = noise({ prologueBytes: prologue })({
      privateKey,
      peerId: theirId,
      logger,
      upgrader: { getStreamMuxers: () => new Map() } as unknown as Upgrader,
    });
    const settings = { remotePeer: peerIdFromString(ours.peerId), skipStreamMuxerNegotiation: true };
    const securing =
      role === 'dialler'
        ? encrypter.secureInbound(stock, settings)
        : encrypter.secureOutbound(stock, settings);
    const { keys, lastMessage } = await handshake.finished;
    if (lastMessage) stock.receive(lastMessage);
    const { connection } = await securing;

    const arrived = new Promise<Uint8Array>((resolve) =>
      connection.addEventListener('message', ({ data }) => resolve(data.subarray())),
    );
    stock.receive(new NoiseCipher(portableAead(keys.send)).seal(utf8('to libp2p')));
    assert.deepEqual(new Uint8Array(await arrived), utf8('to libp2p'));
    connection.send(utf8('from libp2p'));
    const [message] = messages;
    assert.ok(message);
    const opened = new NoiseCipher(nodeAead(keys.receive)).open(message);
    assert.deepEqual(new Uint8Array(opened), utf8('from libp2p'));
  }
});

test('a PeerId that is only the hash of a key is not waited for', async () => {
  let sent = 0;
  const rsa = 'QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG';
  const handshake = new NoiseHandshake({
    role: 'dialler',
    key: await generateSigningKey(),
    expectedPeer: rsa,
    prologue: new Uint8Array(0),
    send: () => sent++,
    signal: new AbortController().signal,
  });
  const deadline = new Promise((_, reject) => setImmediate(() => reject(new Error('it waits'))));
  await assert.rejects(Promise.race([handshake.finished, deadline]), { code: 'proof_failed' });
  assert.equal(sent, 0);
});

async function handshakes(): Promise<[NoiseKeys, NoiseKeys]> {
  const [a, b] = await Promise.all([generateSigningKey(), generateSigningKey()]);
  const signal = new AbortController().signal;
  const of = (role: ProofRole, key: SigningKey, other: SigningKey, send: (m: Uint8Array) => void) =>
    new NoiseHandshake({ role, key, expectedPeer: other.peerId, prologue: utf8('same'), send, signal });
  const dialler: NoiseHandshake = of('dialler', a, b, (message) => listener.receive(message));
  const listener: NoiseHandshake = of('listener', b, a, (message) => dialler.receive(message));
  const { keys, lastMessage } = await dialler.finished;
  assert.ok(lastMessage);
  listener.receive(lastMessage);
  return [keys, (await listener.finished).keys];
}

const log: Logger = Object.assign((): void => {}, {
  error: (): void => {},
  trace: (): void => {},
  newScope: (): Logger => log,
  enabled: false,
});
const logger: ComponentLogger = { forComponent: () => log };

/** libp2p's framing, a length before each Noise message, taken off and put on. */
class StockPipe extends AbstractMessageStream {
  onMessage: (message: Uint8Array) => unknown = () => {};

  constructor(ours: ProofRole) {
    super({ log, direction: ours === 'dialler' ? 'inbound' : 'outbound' });
  }

  receive(message: Uint8Array): void {
    this.onData(concat(Uint8Array.of(message.length >>> 8, message.length), message));
  }

  sendData(data: Parameters<AbstractMessageStream['sendData']>[0]): SendResult {
    this.onMessage(data.subarray(2));
    return { sentBytes: data.byteLength, canSendMore: true };
  }

  sendReset(): void {}
  sendPause(): void {}
  sendResume(): void {}
  async close(): Promise<void> {}
}
