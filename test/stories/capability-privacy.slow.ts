/*
 * What signaling learns of capabilities: that a device offers a name in a version, and how busy it is, as one number.
 * Looked for in all that it has: what devices tell it, what it tells them, its database and its answers over HTTP.
 */

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { ClientMessage } from '@cocoon-mesh/protocol';
import { clientMessageSchema, decode, limits, utf8, verifyDeviceRecord } from '@cocoon-mesh/protocol';
import Database from 'better-sqlite3';
import { newNonce, signSignIn } from '../../signaling/test-client.ts';
import { ask, capabilitiesOf, offers, untilOffers } from './capability-client.ts';
import { CocoonProcess, enroll, failure } from './cocoon-process.ts';
import { ProviderDesk } from './provider-desk.ts';
import { SignalingTap } from './signaling-tap.ts';
import { WirePeer } from './wire-peer.ts';

const model = 'model:of-our-own';
const space = 'space:f00dfeed';
const question = 'a question that is nobody’s business';
const answer = 'an answer that is nobody’s business';
/** Of capabilities, and of what a device tells of its providers. */
const private_ = [model, space, question, answer, 'features', 'in_flight', 'queued', 'queue_ms', 'warm'];

const parts = new AsyncDisposableStack();
let desk: ProviderDesk;
let signaling: CocoonProcess;
let tap: SignalingTap;
/** Of signaling itself. */
let origin: string;
let laptop: CocoonProcess;
let box: CocoonProcess;
let reader: WirePeer;

before(async () => {
  desk = parts.use(await ProviderDesk.start());
  tap = parts.use(await SignalingTap.start());
  signaling = parts.use(
    await CocoonProcess.start({
      command: 'signaling',
      args: ['--port', '0'],
      env: { SIGNALING_PUBLIC_URL: tap.url },
    }),
  );
  const { port } = new URL(String(signaling.ready['web']));
  origin = `http://127.0.0.1:${port}`;
  tap.target = `ws://127.0.0.1:${port}/ws`;
  laptop = parts.use(
    await CocoonProcess.start({
      command: 'run',
      args: ['--name', 'laptop', '--gateway-port', '0', '--signaling', tap.url],
      engine: 'libdatachannel',
    }),
  );
  const plugin = await desk.plugin('box', [
    { protocol: 'demo.chat', version: '1.2.3', limit: 4, features: [model, space] },
  ]);
  box = parts.use(
    await enroll(laptop, { name: 'box', engine: 'libdatachannel', args: ['--plugin', plugin] }),
  );
  reader = parts.use(await WirePeer.of(laptop, 'reader'));
  await untilOffers(laptop, 'box', offers('demo.chat'));
});

after(async () => {
  await parts.disposeAsync();
});

interface Listed {
  readonly name: string;
  readonly load: number;
  readonly capabilities: readonly object[];
}

/** As any program with the key of a device. */
async function accessToken(): Promise<string> {
  const { key, store } = reader;
  const nonce = newNonce();
  const post = async (path: string, body: object): Promise<Record<string, string | number>> =>
    (await (await fetch(origin + path, { method: 'POST', body: JSON.stringify(body) })).json()) as Record<
      string,
      string | number
    >;
  const peer = { peer_id: key.peerId, nonce };
  const { nonce: serverNonce, time } = await post('/auth/challenge', peer);
  const signature = await signSignIn(key, signaling.signaling, nonce, String(serverNonce), Number(time));
  const signed = { ...peer, server_nonce: serverNonce, time, signature, membership: store.membership };
  return String((await post('/auth/token', signed))['access_token']);
}

async function read(token: string, path: string): Promise<readonly Listed[]> {
  const response = await fetch(origin + path, { headers: { authorization: `Bearer ${token}` } });
  if (!response.ok) throw new Error(await response.text());
  return ((await response.json()) as { cocoons: readonly Listed[] }).cocoons;
}

/** The text, and what stands in everything signed in it. */
function unpacked(bytes: Uint8Array): string {
  const text = Buffer.from(bytes).toString('latin1');
  const signed = text.match(/[\w-]{20,}\.[\w-]{20,}\.[\w-]{20,}/g) ?? [];
  const inside = signed.map((jws) => Buffer.from(jws.split('.')[1] ?? '', 'base64url').toString('latin1'));
  return [text, ...inside].join('\n');
}

function assertNothingPrivate(bytes: Uint8Array, where: string): void {
  const text = unpacked(bytes);
  for (const word of private_)
    assert.ok(!text.includes(Buffer.from(word).toString('latin1')), `${word} stands in ${where}`);
}

describe('signaling', () => {
  test('is told the name and the version of a capability and one number for a device, and tells no more', async () => {
    const features = [model];
    const held = desk.hold('box');
    const asked = [1, 2, 3].map(() => ask(laptop, 'demo.chat', { payload: question, features }));
    await desk.until(() => held.length === 3);
    const messages = (): ClientMessage[] =>
      tap.said.map((bytes) => decode(clientMessageSchema, bytes, limits.maxSignalingMessageBytes));
    await tap.until(() => messages().some((message) => message.type === 'load' && message.load === 0.75));
    const token = await accessToken();
    const [found] = await read(token, '/cocoons/by-capability?protocol=demo.chat&version=%5E1.0.0');
    assert.ok(found);
    assert.equal(found.load, 0.75);
    for (const call of held) call.end(answer);
    for (const { result } of await Promise.all(asked)) assert.equal(result, answer);
    desk.when('box');

    const keys = ['capabilities', 'kind', 'last_seen', 'load', 'location', 'name', 'online', 'owner'];
    assert.deepEqual(Object.keys(found).toSorted(), [...keys, 'peer_id', 'services', 'shared']);
    for (const cocoon of await read(token, '/cocoons'))
      for (const capability of cocoon.capabilities)
        assert.deepEqual(Object.keys(capability), ['protocol', 'version']);
    const own = await capabilitiesOf(box);
    assert.deepEqual(
      found.capabilities,
      own.map(({ protocol, version }) => ({ protocol, version })),
    );

    // All of it went past here, in both directions.
    assert.ok(tap.said.length > 5 && tap.heard.length > 5);
    for (const bytes of tap.said) assertNothingPrivate(bytes, 'what a device said');
    for (const bytes of tap.heard) assertNothingPrivate(bytes, 'what the server said');
    for (const message of messages())
      if (message.type === 'load') assert.deepEqual(Object.keys(message).toSorted(), ['load', 'type']);

    const database = new Database(join(signaling.home, 'signaling.db'), { readonly: true });
    try {
      const tables = database.prepare(`select name from sqlite_master where type = 'table'`).pluck().all();
      const rows = tables.map((name) => database.prepare(`select * from "${String(name)}"`).all());
      assertNothingPrivate(utf8(JSON.stringify(rows)), 'the database');
      const record = database.prepare('select record from device where peer_id = ?').pluck().get(box.peerId);
      const { capabilities } = await verifyDeviceRecord(String(record), box.peerId);
      assert.deepEqual(
        capabilities.find(({ protocol }) => protocol === 'demo.chat'),
        { protocol: 'demo.chat', version: '1.2.3' },
      );
    } finally {
      database.close();
    }
    // That this would be seen at all: it stands in what the devices tell each other.
    const told = JSON.stringify(await capabilitiesOf(box));
    for (const word of [model, space, 'features', 'in_flight', 'queued', 'warm'])
      assert.ok(told.includes(word));
  });
});

describe('a capability that was switched off', () => {
  const builtIn = ['embeddings', 'tasks', 'knowledgebase', 'proxy.http', 'llm.chat'];

  test('is neither listed, nor found, nor served, be it built in or of a plugin', async () => {
    const off = [...builtIn, 'demo.chat'];
    const args = ['--name', 'box', '--gateway-port', '0', '--plugin', join(desk.folder, 'box')];
    // All of them would be there.
    const provided = {
      args: [...args, '--service', 'web:1'],
      env: { COCOON_LLM_PROVIDER: `${desk.url}/v1` },
    };
    await box.restart({ ...provided, input: '' });
    for (const protocol of off) await untilOffers(laptop, 'box', offers(protocol));
    await box.restart({
      ...provided,
      args: [...provided.args, ...off.flatMap((protocol) => ['--disable-capability', protocol])],
      input: '',
    });
    await untilOffers(laptop, 'box', (capabilities) => capabilities.length === 0);
    assert.deepEqual((await box.json<{ capabilities: unknown[] }>('status')).capabilities, []);
    const { plugins } = await box.json<{ plugins: { capabilities: { disabled: boolean }[] }[] }>(
      'plugins',
      'list',
    );
    assert.deepEqual(
      plugins.map(({ capabilities }) => capabilities[0]?.disabled),
      [true],
    );

    const token = await accessToken();
    for (const protocol of off) {
      const here = new URL('/cocoons/by-capability', laptop.gateway);
      here.searchParams.set('protocol', protocol);
      const authorization = `Bearer ${await laptop.gatewayToken()}`;
      const { cocoons } = (await (await fetch(here, { headers: { authorization } })).json()) as {
        cocoons: readonly Listed[];
      };
      const there = await read(token, `/cocoons/by-capability?protocol=${protocol}`);
      for (const { name } of [...cocoons, ...there]) assert.notEqual(name, 'box', protocol);
    }
    const missing = { code: 'capability_not_found', exit: 3 };
    assert.deepEqual(await failure(box.home, ['request', 'demo.chat']), missing);
    assert.deepEqual(await failure(laptop.home, ['request', 'demo.chat', '--device', 'box']), missing);
    // Nor to whoever asks all the same.
    for (const protocol of off)
      assert.equal(await reader.capability(box.peerId, protocol, null), 'capability_off', protocol);
  });
});
