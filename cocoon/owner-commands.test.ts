import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, beforeEach, describe, test } from 'node:test';
import type { OwnerAnswer, OwnerKeys, SetupToken } from '@cocoon-mesh/protocol';
import {
  MeshError,
  adminRights,
  createSetupToken,
  encode,
  memberRights,
  ownerAnswerSchema,
  readSetupToken,
  signRevocation,
  streamProtocols,
} from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { Home } from './home.ts';
import { OwnersFile } from './mesh-store.ts';
import { OwnerCommands } from './owner-commands.ts';
import { OwnerDesk } from './owner-desk.ts';
import { OwnerKeyring } from './owner-keyring.ts';
import {
  OwnerMesh,
  auditLines,
  claimedShare,
  memberOf,
  newOwner,
  newPeerId,
  peerOf,
  receiptKey,
} from './owner-mesh.contract.ts';
import { OwnerServer } from './owner-server.ts';
import { Rotation } from './rotation.ts';
import type { MadeToken } from './token-request.ts';

const self = await newPeerId();
const box = await newPeerId();
const tab = await newPeerId();
const gpu = await newPeerId();
const laptop = await newPeerId();
const { keys } = await newOwner();
const { keys: anna } = await newOwner();
const folder = await mkdtemp(join(tmpdir(), 'cocoon-commands-'));
after(() => rm(folder, { recursive: true, force: true }));

let clock: SteppedClock;
let mesh: OwnerMesh;
let owners: OwnersFile;
let keyring: OwnerKeyring;
let commands: OwnerCommands;

beforeEach(async () => {
  clock = new SteppedClock();
  mesh = new OwnerMesh(self, keys, clock);
  mesh.add({ peerId: self });
  mesh.add({ peerId: box });
  mesh.add({ peerId: tab }, { kind: 'browser' });
  const home = new Home(await mkdtemp(join(folder, 'home-')));
  owners = await OwnersFile.open(home.owners);
  keyring = new OwnerKeyring(keys);
  keyring.follow(() => mesh.ownerRecords);
  const log = () => undefined;
  const shared = {
    mesh: mesh.mesh,
    keyring,
    owners,
    home,
    clock,
    log,
    signalingUrl: 'ws://127.0.0.1:7400/ws',
    publicSignalingUrl: 'ws://10.0.0.1:7400/ws',
  };
  const desk = new OwnerDesk({
    ...shared,
    audit: auditLines(),
    noteToken: async () => undefined,
    madeTokens: () => [],
  });
  commands = new OwnerCommands({ ...shared, desk, rotation: new Rotation({ ...shared, desk }) });
});

function now(): number {
  return Math.floor(clock.now() / 1000);
}

function nameOf(peerId: string): string {
  return peerId.slice(-6);
}

/** What the mesh does with a claim, when signaling gives its receipt. */
function acceptClaims(): void {
  mesh.mesh.claim = async (token: SetupToken) => {
    const { share } = await claimedShare(anna, keys, token.grant.cocoon ?? '', now());
    const taken = { ...share, jti: token.grant.jti };
    mesh.sharesKnown = [...mesh.sharesKnown, taken];
    return taken;
  };
}

async function shareWithMe(): Promise<string> {
  return (await claimedShare(anna, keys, gpu, now())).token;
}

describe('a token', () => {
  const ask = { scope: 'co-own', expires_s: 600, admin: false, services: ['web'], capabilities: [] };

  test('for another owner names the cocoon as its user does', async () => {
    const { token } = await commands.makeToken({ ...ask, cocoon: nameOf(box) });
    assert.equal((await readSetupToken(token)).grant.cocoon, box);
  });

  test('is not made for what cannot be shared: a browser, a device that is not there, somebody else’s cocoon', async () => {
    await assert.rejects(commands.makeToken({ ...ask, cocoon: nameOf(tab) }), { code: 'usage' });
    await assert.rejects(commands.makeToken({ ...ask, cocoon: 'nobody' }), { code: 'device_not_found' });
    await assert.rejects(commands.makeToken(ask), { code: 'usage' });
    mesh.sharesKnown = [(await claimedShare(anna, keys, gpu, now())).share];
    const refused = assert.rejects(commands.makeToken({ ...ask, cocoon: gpu }), (error: MeshError) => {
      assert.deepEqual([error.code, error.exitCode], ['denied', 4]);
      return true;
    });
    await refused;
  });
});

describe('a claim', () => {
  test('says which cocoon it is and what may be used, and is remembered', async () => {
    acceptClaims();
    const token = await shareWithMe();
    const answer = await commands.claim(token);
    assert.deepEqual(answer, {
      cocoon: { name: nameOf(gpu), peer_id: gpu, online: true },
      owner: anna.id,
      rights: 'everything but passing it on',
      services: null,
      capabilities: null,
      until: null,
    });
    const { grant } = await readSetupToken(token);
    assert.deepEqual(owners.owners.redeemed, [grant.jti]);
    // Once more it is an answer, and no second redemption.
    mesh.mesh.claim = async () => assert.fail('redeemed twice');
    assert.deepEqual(await commands.claim(token), answer);
  });

  test('is refused with what is wrong: none, a token for a device, of my own', async () => {
    const terms = {
      scope: 'enroll',
      rights: memberRights,
      now: now(),
      expires: now() + 60,
      signaling: 'ws://127.0.0.1:7400/ws',
      receiptKey: receiptKey.publicKey,
    } as const;
    const { token: enrolling } = await createSetupToken(anna, terms);
    const { token: own } = await claimedShare(keys, anna, box, now());
    for (const [text, code] of [
      ['nonsense', 'token_malformed'],
      [enrolling, 'token_invalid'],
      [own, 'token_invalid'],
    ] as const)
      await assert.rejects(commands.claim(text), { code });
    assert.deepEqual(owners.owners.redeemed, []);
  });

  test('says where the token belongs when this is another signaling server, and what to do when it has forgotten', async () => {
    const claimOf = async (signaling: string, code: 'token_wrong_signaling' | 'signaling_unreachable') => {
      mesh.mesh.claim = async () => {
        throw new MeshError(code);
      };
      const { token } = await createSetupToken(anna, {
        scope: 'co-own',
        rights: memberRights,
        now: now(),
        expires: now() + 60,
        signaling,
        receiptKey: receiptKey.publicKey,
        cocoon: gpu,
      });
      return commands.claim(token).then(
        () => assert.fail('claimed'),
        (error: MeshError) => error,
      );
    };
    const elsewhere = 'wss://mesh.anna.example:7443/ws';
    for (const code of ['token_wrong_signaling', 'signaling_unreachable'] as const) {
      const error = await claimOf(elsewhere, code);
      assert.equal(error.code, code);
      assert.match(error.message, /another/);
      assert.match(
        error.hint,
        /`cocoon run --signaling wss:\/\/mesh\.anna\.example:7443\/ws`.*signaling_url/,
      );
    }
    // What somebody else wrote is not put into a line that is copied.
    assert.doesNotMatch((await claimOf('ws://x/$(reboot)', 'token_wrong_signaling')).hint, /reboot/);
    for (const here of ['ws://127.0.0.1:7400/ws', 'ws://10.0.0.1:7400/ws', 'ws://10.0.0.1:7400/ws/']) {
      const { code, message, hint } = await claimOf(here, 'token_wrong_signaling');
      assert.equal(code, 'token_wrong_signaling');
      assert.match(message, /lost its database/);
      assert.match(hint, /^Ask the owner of the cocoon for a new token/);
    }
    assert.deepEqual(owners.owners.redeemed, []);
  });

  test('needs the secret of the owner who claims', async () => {
    mesh.ownerRecords = [...keys.records, 'next'];
    await assert.rejects(commands.claim(await shareWithMe()), { code: 'owner_key_offline' });
  });
});

describe('on a device without the secret', () => {
  let there: OwnerMesh;
  let asking: OwnerCommands;

  beforeEach(async () => {
    mesh.add({ peerId: laptop }, { signs: true });
    there = new OwnerMesh(laptop, keys, clock);
    for (const peerId of [self, box, laptop]) there.add({ peerId });
    mesh.others.set(laptop, there);
    mesh.asPeer = peerOf(memberOf(keys.id, { peerId: self, rights: [...memberRights, ...adminRights] }));
    const made: MadeToken[] = [];
    const shared = {
      clock,
      log: () => undefined,
      audit: auditLines(),
      noteToken: async (token: MadeToken) => void made.push(token),
      madeTokens: () => made,
    };
    const desk = new OwnerDesk({
      ...shared,
      mesh: there.mesh,
      keyring: new OwnerKeyring(keys),
      signalingUrl: 'ws://10.0.0.1:7400/ws',
    });
    void new OwnerServer({ ...shared, mesh: there.mesh, desk });
    const none = new OwnerKeyring(null);
    const signalingUrl = 'ws://10.0.0.1:7400/ws';
    const here = {
      ...shared,
      mesh: mesh.mesh,
      keyring: none,
      owners,
      signalingUrl,
      publicSignalingUrl: signalingUrl,
    };
    const noDesk = new OwnerDesk(here);
    const home = new Home(await mkdtemp(join(folder, 'home-')));
    const rotation = new Rotation({ ...here, home, desk: noDesk });
    asking = new OwnerCommands({ ...here, desk: noDesk, rotation });
  });

  /** A device that says that it holds the secret. */
  function pose(answer: OwnerAnswer): void {
    there.handle(streamProtocols.owner, (stream) => {
      stream.write(encode(ownerAnswerSchema, answer));
      stream.end();
    });
  }

  const ask = { scope: 'enroll', expires_s: 600, admin: false, services: [], capabilities: [] };

  test('what ends is ended here at once, by the signature of the owner', async () => {
    mesh.sharesKnown = [
      (await claimedShare(anna, keys, gpu, now())).share,
      (await claimedShare(keys, anna, box, now())).share,
    ];
    there.sharesKnown = mesh.sharesKnown;
    await asking.revoke(nameOf(box), false);
    await asking.revoke(nameOf(gpu), false);
    await asking.removeOwner(anna.id);
    assert.deepEqual(mesh.list, there.list);
    assert.deepEqual(
      (await mesh.entries()).map(({ kind, subject }) => [kind, subject]),
      [
        ['device', box],
        ['share', gpu],
        ['owner', anna.id],
      ],
    );
    assert.ok((await asking.makeToken(ask)).token);
  });

  test('a token is voided by the device that made it, as far as it knows of it', async () => {
    const unknown = (await readSetupToken((await claimedShare(keys, anna, box, now())).token)).grant.jti;
    await assert.rejects(asking.revokeToken(unknown, false), { code: 'not_found', hint: /that made it/ });
    const { jti } = await asking.makeToken(ask);
    assert.deepEqual(await asking.revokeToken(jti, false), { jti, kind: 'token', put_out: null });
    assert.deepEqual(
      (await mesh.entries()).map(({ kind, subject }) => [kind, subject]),
      [['token', jti]],
    );
    await asking.revokeToken(jti, false);
    assert.deepEqual([mesh.list.length, there.list.length], [1, 1]);
    // Not the one with which this device came.
    const { jti: own } = await asking.makeToken(ask);
    mesh.known[0]!.member = { ...mesh.known[0]!.member, jti: own };
    await assert.rejects(asking.revokeToken(own, true), { code: 'usage' });
    assert.equal(there.list.length, 1);
  });

  test('a device that was revoked is told so, and not that nobody is there', async () => {
    mesh.isRevoked = true;
    const revoked = { code: 'revoked', message: /has revoked this device/, hint: /fresh --home/ };
    await assert.rejects(asking.makeToken(ask), revoked);
    await assert.rejects(asking.revoke(nameOf(box), false), revoked);
  });

  test('whoever only says that it is done is not believed', async () => {
    mesh.sharesKnown = [(await claimedShare(keys, anna, box, now())).share];
    pose({});
    const code = 'owner_key_offline';
    await assert.rejects(asking.revoke(nameOf(box), false), { code });
    await assert.rejects(asking.removeOwner(anna.id), { code });
    await assert.rejects(asking.makeToken(ask), { code });
  });

  test('neither is a signature of another owner, nor one over something else', async () => {
    const other = await newPeerId();
    const entryOf = async (by: OwnerKeys, subject: string): Promise<OwnerAnswer> => {
      const entry = await signRevocation(by, [], { kind: 'device', subject, now: now() });
      return {
        revocations: { kind: 'tell', owner: by.id, records: by.records, after: 0, list: [entry] },
      };
    };
    for (const answer of [await entryOf(anna, box), await entryOf(keys, other)]) {
      pose(answer);
      await assert.rejects(asking.revoke(nameOf(box), false), { code: 'owner_key_offline' });
      assert.deepEqual(mesh.list, []);
    }
    pose(await entryOf(keys, box));
    await asking.revoke(nameOf(box), false);
    assert.equal(mesh.list.length, 1);
  });
});

describe('other owners', () => {
  test('are listed with what they may use, and those who share with me are not among them', async () => {
    const { share } = await claimedShare(keys, anna, box, now());
    mesh.sharesKnown = [share, (await claimedShare(anna, keys, gpu, now())).share];
    assert.deepEqual(commands.owners(), [
      {
        owner: anna.id,
        cocoons: [
          {
            name: nameOf(box),
            peer_id: box,
            rights: 'everything but passing it on',
            services: null,
            capabilities: null,
            since: new Date(now() * 1000).toISOString(),
            until: null,
            provisional: true,
          },
        ],
      },
    ]);
  });

  test('are removed by their id or its beginning, when it means one', async () => {
    const { keys: bert } = await newOwner();
    mesh.sharesKnown = [
      (await claimedShare(keys, anna, box, now())).share,
      (await claimedShare(keys, bert, box, now())).share,
    ];
    for (const text of ['own_', 'own_nobody', ''])
      await assert.rejects(commands.removeOwner(text), {
        code: text === 'own_' ? 'usage' : 'owner_not_found',
      });
    assert.deepEqual(await commands.removeOwner(anna.id.slice(0, 14)), { owner: anna.id });
    assert.deepEqual(await commands.removeOwner(bert.id.slice(4, 14)), { owner: bert.id });
    assert.deepEqual(
      (await mesh.entries()).map(({ kind, subject }) => [kind, subject]),
      [
        ['owner', anna.id],
        ['owner', bert.id],
      ],
    );
  });
});

describe('a revocation', () => {
  test('names a device of mine, or a cocoon that is given back', async () => {
    mesh.sharesKnown = [(await claimedShare(anna, keys, gpu, now())).share];
    assert.deepEqual(await commands.revoke(nameOf(box), false), {
      peer_id: box,
      name: nameOf(box),
      kind: 'device',
    });
    assert.equal((await commands.revoke(nameOf(gpu), false)).kind, 'share');
    assert.deepEqual(
      (await mesh.entries()).map(({ kind, subject }) => [kind, subject]),
      [
        ['device', box],
        ['share', gpu],
      ],
    );
  });

  test('is refused for this device, and for one that holds the secret unless it is meant', async () => {
    mesh.known[1]!.signs = true;
    for (const sure of [false, true])
      await assert.rejects(commands.revoke(nameOf(self), sure), { code: 'usage' });
    await assert.rejects(commands.revoke(nameOf(box), false), { code: 'usage' });
    assert.deepEqual(mesh.list, []);
    assert.equal((await commands.revoke(nameOf(box), true)).peer_id, box);
  });

  test('reaches a device that no list shows, by its PeerId, when it is meant', async () => {
    const hidden = await newPeerId();
    await assert.rejects(commands.revoke('nobody', true), { code: 'device_not_found' });
    await assert.rejects(commands.revoke(hidden, false), { code: 'device_not_found' });
    assert.deepEqual(await commands.revoke(hidden, true), { peer_id: hidden, name: null, kind: 'device' });
  });
});

describe('a token that is voided', () => {
  async function tokenOf(owner: OwnerKeys): Promise<{ token: string; jti: string }> {
    const { token } = await claimedShare(owner, owner === keys ? anna : keys, box, now());
    return { token, jti: (await readSetupToken(token)).grant.jti };
  }

  test('is named by its jti or by itself, and voided once', async () => {
    const { token, jti } = await tokenOf(keys);
    const voided = { jti, kind: 'token', put_out: null };
    assert.deepEqual(await commands.revokeToken(token, false), voided);
    assert.deepEqual(await commands.revokeToken(jti, false), voided);
    assert.deepEqual(
      (await mesh.entries()).map(({ kind, subject }) => [kind, subject]),
      [['token', jti]],
    );
  });

  test('is one of mine: nothing else is, nor another owner’s', async () => {
    await assert.rejects(commands.revokeToken('gpu', false), { code: 'token_malformed', hint: /jti/ });
    await assert.rejects(commands.revokeToken((await tokenOf(anna)).token, false), { code: 'token_invalid' });
    assert.deepEqual(mesh.list, []);
  });

  test('puts nobody out unless that is meant, and never the device on which it is done', async () => {
    const [came, mine] = [await tokenOf(keys), await tokenOf(keys)];
    mesh.known[1]!.member = { ...mesh.known[1]!.member, jti: came.jti };
    mesh.known[0]!.member = { ...mesh.known[0]!.member, jti: mine.jti };
    const { share } = await claimedShare(keys, anna, box, now());
    mesh.sharesKnown = [share];
    const name = nameOf(box);
    await assert.rejects(commands.revokeToken(came.jti, false), {
      code: 'usage',
      hint: new RegExp(`cocoon revoke ${name}\``),
    });
    await assert.rejects(commands.revokeToken(share.jti, false), {
      code: 'usage',
      hint: new RegExp(`cocoon owners remove ${anna.id}\``),
    });
    for (const sure of [false, true])
      await assert.rejects(commands.revokeToken(mine.jti, sure), { code: 'usage' });
    assert.deepEqual(mesh.list, []);
    assert.equal((await commands.revokeToken(came.jti, true)).put_out, name);
    assert.equal((await commands.revokeToken(share.jti, true)).put_out, anna.id);
  });
});
