import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { GrantTerms, OwnerKeys } from '@cocoon-mesh/protocol';
import {
  coOwnerRights,
  createOwnerSecret,
  createSetupToken,
  fromBase64Url,
  generateSigningKey,
  memberRights,
  ownerKeys,
  readSetupToken,
  redeem,
  secretFromText,
  signReceipt,
} from '@cocoon-mesh/protocol';
import { HostileSignaling } from '../doubles/hostile-signaling.ts';
import { CocoonProcess, StartError, enroll, sees } from './cocoon-process.ts';
import { Origin } from './origin.ts';
import { foreignName, listedAs } from './shares.ts';
import { WirePeer } from './wire-peer.ts';

interface TokenBody {
  readonly records: readonly string[];
  readonly grant: string;
  readonly key: string;
}

describe('a setup token that is wrong', () => {
  const parts = new AsyncDisposableStack();
  let signaling: CocoonProcess;
  let laptop: CocoonProcess;
  let box: CocoonProcess;
  let anna: CocoonProcess;
  let keys: OwnerKeys;
  let place: Pick<GrantTerms, 'signaling' | 'receiptKey'>;

  before(async () => {
    signaling = parts.use(await CocoonProcess.start({ command: 'signaling', args: ['--port', '0'] }));
    laptop = parts.use(await alone('laptop'));
    box = parts.use(await enroll(laptop, { name: 'box', engine: 'libdatachannel' }));
    anna = parts.use(await alone('anna'));
    await sees(laptop, 'box');
    keys = await ownerKeys(
      await secretFromText((await laptop.json<{ secret: string }>('secret', 'show')).secret),
    );
    const { grant } = await readSetupToken(await coOwn());
    place = { signaling: grant.signaling, receiptKey: fromBase64Url(grant.receipt_key) };
  });

  after(async () => {
    await parts.disposeAsync();
  });

  async function alone(name: string): Promise<CocoonProcess> {
    return CocoonProcess.start({
      command: 'run',
      args: ['--name', name, '--gateway-port', '0', '--signaling', signaling.signaling],
    });
  }

  async function coOwn(): Promise<string> {
    return (await laptop.json<{ token: string }>('generate-token', '--scope', 'co-own', '--cocoon', 'box'))
      .token;
  }

  /** Made with the real secret, as no command would. */
  async function made(terms: Partial<GrantTerms>, by = keys): Promise<string> {
    const now = Math.floor(Date.now() / 1000);
    const { token } = await createSetupToken(by, {
      scope: 'co-own',
      rights: coOwnerRights,
      cocoon: box.peerId,
      now,
      expires: now + 3600,
      ...place,
      ...terms,
    });
    return token;
  }

  async function claimCode(token: string): Promise<string> {
    const done = await anna.command(['claim', '-', '--json'], { input: token });
    if (done.code === 0) return 'ok';
    const { error } = JSON.parse(done.stderr.trim().split('\n').at(-1) ?? '') as { error: { code: string } };
    return error.code;
  }

  async function enrollCode(token: string): Promise<string> {
    try {
      const joined = await CocoonProcess.start({
        command: 'run',
        args: ['--name', 'late', '--gateway-port', '0', '--token', '-', '--signaling', signaling.signaling],
        input: token,
      });
      await joined[Symbol.asyncDispose]();
      return 'ok';
    } catch (thrown) {
      if (thrown instanceof StartError) return thrown.code;
      throw thrown;
    }
  }

  /** Nobody got in, and the cocoon knows of no new owner. */
  async function nothingCameOfIt(): Promise<void> {
    assert.deepEqual(await box.json('owners', 'list'), []);
    assert.equal(await listedAs(anna, box.peerId), null);
  }

  test('in its dates is refused: expired, not yet valid, a right that is over', async () => {
    const now = Math.floor(Date.now() / 1000);
    const enrolling = { scope: 'enroll', rights: memberRights } as const;
    const dates = [
      [{ now: now - 3600, expires: now - 10 }, 'token_expired'],
      [{ now: now + 3600, expires: now + 7200 }, 'token_not_yet_valid'],
      [{ until: now - 5 }, 'token_expired'],
    ] as const;
    for (const [terms, code] of dates) {
      assert.equal(await claimCode(await made(terms)), code);
      const { cocoon: _, ...enroll } = { ...terms, ...enrolling, cocoon: undefined };
      const { token } = await createSetupToken(keys, {
        now,
        expires: now + 3600,
        ...place,
        ...enroll,
      });
      assert.equal(await enrollCode(token), code);
    }
    await nothingCameOfIt();
  });

  test('in any field is refused', async () => {
    const token = await coOwn();
    for (const [field, changed] of tamperings(token, box.peerId, laptop.peerId)) {
      const code = await claimCode(changed);
      assert.ok(
        ['token_invalid', 'token_malformed', 'unknown_constraint'].includes(code),
        `${field}: ${code}`,
      );
    }
    await nothingCameOfIt();
  });

  test('in its signer is refused: another owner’s key under this owner’s name', async () => {
    const mallory = await ownerKeys((await createOwnerSecret()).secret);
    const forged = read(await made({}, mallory));
    const own = read(await coOwn());
    assert.equal(await claimCode(seal({ ...forged, records: own.records })), 'token_invalid');
    // Whole and honest it is a token of mallory's, for a cocoon that is not hers: it opens nothing.
    await claimCode(await made({}, mallory));
    await nothingCameOfIt();
  });
});

describe('a setup token that signaling helps to use twice', () => {
  test('lets in the first redeemer, at every device that saw it, and the audit tells of the second', async () => {
    await using origin = await Origin.start();
    const hostile = await HostileSignaling.start();
    try {
      const args = ['--gateway-port', '0', '--signaling', hostile.url];
      await using laptop = await CocoonProcess.start({ command: 'run', args: ['--name', 'laptop', ...args] });
      const { token } = await laptop.json<{ token: string }>('generate-token');
      const join = async (name: string): Promise<CocoonProcess> =>
        CocoonProcess.start({
          command: 'run',
          args: ['--name', name, '--service', `web:${origin.port}`, ...args, '--token', '-'],
          input: token,
        });
      await using _first = await join('first');
      await sees(laptop, 'first');
      assert.equal((await laptop.command(['ping', 'first', '--count', '1'])).code, 0);
      // The same token again, with a receipt that is as good as the first one.
      await using second = await join('second');
      await hostile.online(second.peerId);
      assert.notEqual((await second.command(['ping', 'laptop', '--count', '1'])).code, 0);
      assert.equal(await listedAs(laptop, second.peerId), null);
      assert.notEqual((await second.command(['ping', 'first', '--count', '1'])).code, 0);
      const { stdout } = await laptop.command(['audit', '--json']);
      assert.match(stdout, /second_redeemer/);
      assert.equal((await laptop.command(['audit', '--verify'])).code, 0);
      assert.equal((await laptop.command(['ping', 'first', '--count', '1'])).code, 0);
    } finally {
      await hostile.close();
    }
  });
});

describe('an owner who did not ask for it', () => {
  test('is attached to nobody’s cocoon, whatever its attacker signs and signaling says', async () => {
    const hostile = await HostileSignaling.start();
    try {
      await using signaling = await CocoonProcess.start({ command: 'signaling', args: ['--port', '0'] });
      const away = ['--gateway-port', '0', '--signaling', hostile.url];
      await using victim = await CocoonProcess.start({ command: 'run', args: ['--name', 'victim', ...away] });
      await using mallory = await CocoonProcess.start({ command: 'run', args: ['--name', 'gpu', ...away] });
      await hostile.online(victim.peerId, mallory.peerId);
      const keys = await ownerKeys(
        await secretFromText((await mallory.json<{ secret: string }>('secret', 'show')).secret),
      );
      const { membership } = hostile.entry(victim.peerId);
      assert.ok(membership.kind === 'membership');
      const { owner } = await victim.json<{ owner: string }>('status');
      const receiptKey = await generateSigningKey();
      const now = Math.floor(Date.now() / 1000);
      const { token } = await createSetupToken(keys, {
        scope: 'co-own',
        rights: coOwnerRights,
        cocoon: mallory.peerId,
        now,
        expires: now + 3600,
        signaling: hostile.url,
        receiptKey: receiptKey.publicKey,
      });
      const setup = await readSetupToken(token);
      // Everything but the victim's own signature: in its place is one that mallory could make.
      const redemption = await redeem(setup, keys.key, owner, membership.records);
      const receipt = await signReceipt(receiptKey, { jti: setup.grant.jti, redeemer: owner, now });
      const share = { kind: 'claim', redemption, receipt } as const;
      hostile.send(victim.peerId, { type: 'share', share });
      hostile.send(victim.peerId, { type: 'device', device: { ...hostile.entry(mallory.peerId), share } });
      for (const end = Date.now() + 10_000; Date.now() < end;)
        if (/proves nothing/.test((await victim.command(['logs'])).stdout)) break;
      assert.match((await victim.command(['logs'])).stdout, /proves nothing/);
      assert.equal(await listedAs(victim, mallory.peerId), null);
      // An honest server takes it no more than the victim does.
      await using stranger = await CocoonProcess.start({
        command: 'run',
        args: ['--name', 'stranger', '--gateway-port', '0', '--signaling', signaling.signaling],
      });
      await using peer = await WirePeer.of(stranger, 'stranger-peer');
      const state = peer.mesh.signaling;
      assert.ok(state.state === 'connected');
      const http = signaling.signaling.replace(/^ws/, 'http').replace(/\/ws$/, '');
      const answer = await fetch(`${http}/claims`, {
        method: 'POST',
        headers: { authorization: `Bearer ${state.accessToken}`, 'content-type': 'application/json' },
        body: JSON.stringify({ redemption }),
      });
      assert.equal(answer.headers.get('content-type'), 'application/problem+json');
      assert.equal(((await answer.json()) as { code: string }).code, 'token_invalid');
    } finally {
      await hostile.close();
    }
  });

  test('is not taken in by a namesake: a foreign cocoon called like one of mine with a higher version takes nothing over', async () => {
    await using origin = await Origin.start();
    await using signaling = await CocoonProcess.start({ command: 'signaling', args: ['--port', '0'] });
    const args = ['--gateway-port', '0', '--signaling', signaling.signaling];
    const service = ['--service', `web:${origin.port}`];
    await using laptop = await CocoonProcess.start({ command: 'run', args: ['--name', 'laptop', ...args] });
    await using box = await enroll(laptop, { name: 'box', engine: 'libdatachannel', args: service });
    await sees(laptop, 'box', 'web');
    await using mallory = await CocoonProcess.start({
      command: 'run',
      args: ['--name', 'box', ...args, ...service],
    });
    // Taken on purpose, it has a name that cannot be mistaken, and is not chosen unless it is named.
    const { token } = await mallory.json<{ token: string }>(
      'generate-token',
      '--scope',
      'co-own',
      '--cocoon',
      'box',
    );
    assert.equal((await laptop.command(['claim', '-'], { input: token })).code, 0);
    const foreign = await foreignName(laptop, mallory.peerId);
    assert.match(foreign, /^box@/);
    const [ping] = (await laptop.command(['ping', 'box', '--count', '1', '--json'])).stdout.split('\n');
    assert.ok(ping);
    const rows = await laptop.json<{ name: string; peer_id: string; foreign: boolean }[]>('devices');
    assert.deepEqual(
      rows.filter(({ name }) => name === 'box').map(({ peer_id: peerId, foreign: other }) => [peerId, other]),
      [[box.peerId, false]],
    );
    const capable = (await (
      await fetch(`${laptop.gateway}/cocoons/by-capability?protocol=proxy.http&version=*`, {
        headers: { authorization: `Bearer ${await laptop.gatewayToken()}` },
      })
    ).json()) as { cocoons: { peer_id: string }[] };
    assert.ok(capable.cocoons.some(({ peer_id: peerId }) => peerId === box.peerId));
    assert.ok(!capable.cocoons.some(({ peer_id: peerId }) => peerId === mallory.peerId));
  });
});

function read(token: string): TokenBody {
  const text = Buffer.from(token.slice(token.indexOf('.') + 1), 'base64url').toString();
  return JSON.parse(text) as TokenBody;
}

function seal(body: TokenBody): string {
  return `cocoon-token-1.${Buffer.from(JSON.stringify(body)).toString('base64url')}`;
}

/** The token with each field of its grant changed, one at a time, under the signature it had; and its other parts. */
function* tamperings(token: string, cocoon: string, other: string): Generator<[string, string]> {
  const body = read(token);
  const [head = '', payload = '', signature = ''] = body.grant.split('.');
  const terms = JSON.parse(Buffer.from(payload, 'base64url').toString()) as Record<string, unknown>;
  const grant = (change: Record<string, unknown>): string =>
    `${head}.${Buffer.from(JSON.stringify({ ...terms, ...change })).toString('base64url')}.${signature}`;
  for (const [field, value] of Object.entries(terms))
    yield [field, seal({ ...body, grant: grant({ [field]: changed(value, cocoon, other) }) })];
  yield ['until', seal({ ...body, grant: grant({ until: 4_000_000_000 }) })];
  yield ['a new field', seal({ ...body, grant: grant({ everything: true }) })];
  yield ['signature', seal({ ...body, grant: `${head}.${payload}.${flip(signature)}` })];
  yield ['key', seal({ ...body, key: flip(body.key) })];
  yield ['records', seal({ ...body, records: [...body.records, ...body.records] })];
}

function changed(value: unknown, cocoon: string, other: string): unknown {
  if (value === cocoon) return other;
  if (value === 'co-own') return 'enroll';
  if (typeof value === 'number') return value + 1;
  if (typeof value === 'string') return flip(value);
  if (Array.isArray(value) && value.length > 0) return value.slice(1);
  return ['unknown'];
}

function flip(text: string): string {
  return (text.startsWith('A') ? 'B' : 'A') + text.slice(1);
}
