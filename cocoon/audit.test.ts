import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { AuditLog } from '@cocoon-mesh/audit';
import type { MeshEvents, ProvenPeer, TrustEvent } from '@cocoon-mesh/mesh';
import type { ProvenMembership, ProvenShare, Revocation } from '@cocoon-mesh/protocol';
import { coOwnerRights, memberRights, narrowRights } from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { recordMeshEvents, recordToken } from './audit-events.ts';
import { Home } from './home.ts';

const me = 'own_R';
const share: ProvenShare = {
  owner: me,
  epoch: 0,
  cocoon: 'p-gpu',
  coOwner: 'own_T',
  rights: narrowRights(['grafana'], []),
  granted: 1000,
  expires: 1_700_000_000,
  until: null,
  jti: 'j1',
  serial: 0,
  provisional: true,
  grantHash: null,
  redemption: { records: ['R'], grant: 'G', redeemer: 'own_T', one_time_signature: 'S', acceptance: 'A' },
};
const membership: ProvenMembership = {
  owner: me,
  epoch: 1,
  peerId: 'p-laptop',
  rights: memberRights,
  granted: 1000,
  expires: null,
  until: null,
  jti: 'j2',
  grantHash: null,
  serial: 3,
  provisional: false,
};

function revocation(kind: string, subject: string): TrustEvent {
  const entry: Revocation = { v: 1, crit: [], iss: me, epoch: 0, n: 4, kind, subject, iat: 1000 };
  return { kind: 'revocation', owner: me, entry };
}

let folder = '';
let home: Home;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cocoon-audit-'));
  home = new Home(folder);
  const log = await AuditLog.open(home.audit, new SteppedClock());
  const listeners: Partial<MeshEvents> = {};
  const stop = recordMeshEvents(
    {
      on: (event, listener) => {
        listeners[event] = listener;
        return () => delete listeners[event];
      },
    },
    log,
  );
  const trust = (event: TrustEvent): void => listeners.trust?.(event);
  recordToken(log, { jti: 'j1', scope: 'co-own', rights: coOwnerRights, exp: 1000, cocoon: 'p-gpu' }, null);
  trust({ kind: 'claim', owner: me, jti: 'j1', redeemer: 'own_T', scope: 'co-own', cocoon: 'p-gpu' });
  trust({ kind: 'second_redeemer', owner: me, jti: 'j1', first: 'own_T', second: 'own_E' });
  trust({ kind: 'share', share });
  trust({ kind: 'membership', membership });
  trust({ kind: 'rotation', owner: me, epoch: 1 });
  trust(revocation('device', 'p-lost'));
  trust(revocation('owner', 'own_T'));
  trust(revocation('token', 'j9'));
  trust(revocation('share', 'p-gpu'));
  trust(revocation('hologram', 'x'));
  listeners.introduction?.({ peerId: 'p-server', owner: me, dialled: true }, null);
  listeners.introduction?.({ peerId: 'p-stranger', owner: null, dialled: false }, 'denied');
  const guest = { peerId: 'p-guest', owner: 'own_T' } as ProvenPeer;
  listeners.denied?.(guest, { protocol: 'http', verb: 'use', name: 'wiki\u001b[2J\u009b' });
  stop();
  assert.deepEqual(listeners, {});
  await log.close();
});

after(() => rm(folder, { recursive: true }));

async function cocoon(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const { promise, resolve } = Promise.withResolvers<{ code: number; stdout: string; stderr: string }>();
  const child = execFile(
    process.execPath,
    [join(import.meta.dirname, 'cli.ts'), 'audit', '--home', folder, ...args],
    (_error, stdout, stderr) => resolve({ code: child.exitCode ?? -1, stdout, stderr }),
  );
  return promise;
}

describe('cocoon audit', () => {
  test('has a line for all that happens to owners on a device, with ids and no signed object', async () => {
    const { code, stdout } = await cocoon('--json');
    assert.equal(code, 0);
    const lines = stdout
      .trim()
      .split('\n')
      .map((line) => {
        const entry = JSON.parse(line) as Record<string, unknown>;
        const { n: _n, time: _time, prev: _prev, hash: _hash, ...told } = entry;
        return told;
      });
    const { rights: all, ...token } = lines[1] ?? {};
    const { rights: mine, ...adopted } = lines[5] ?? {};
    assert.deepEqual(all, [
      'http use *',
      'tcp use *',
      'query use *',
      'capability use *',
      'tasks read+write+run *',
    ]);
    assert.deepEqual(mine, [...all, 'relay use *']);
    const place = { owner: me, epoch: 0, number: 4 };
    assert.deepEqual(lines.with(1, token).with(5, adopted), [
      { event: 'begun' },
      {
        event: 'token.made',
        jti: 'j1',
        scope: 'co-own',
        cocoon: 'p-gpu',
        expires: '1970-01-01T00:16:40.000Z',
      },
      { event: 'token.redeemed', owner: me, jti: 'j1', redeemer: 'own_T', scope: 'co-own', cocoon: 'p-gpu' },
      {
        event: 'token.second_redeemer',
        owner: me,
        jti: 'j1',
        first: 'own_T',
        second: 'own_E',
        code: 'token_used',
      },
      {
        event: 'share.learned',
        co_owner: 'own_T',
        owner: me,
        cocoon: 'p-gpu',
        epoch: 0,
        serial: 0,
        jti: 'j1',
        provisional: true,
        rights: ['http use grafana', 'tcp use grafana'],
        expires: '2023-11-14T22:13:20.000Z',
      },
      {
        event: 'membership.adopted',
        member: 'p-laptop',
        owner: me,
        epoch: 1,
        serial: 3,
        jti: 'j2',
        provisional: false,
        expires: null,
      },
      { event: 'rotated', owner: me, epoch: 1 },
      { event: 'device.revoked', device: 'p-lost', ...place },
      { event: 'owner.removed', removed: 'own_T', ...place },
      { event: 'token.revoked', jti: 'j9', ...place },
      { event: 'share.given_back', cocoon: 'p-gpu', ...place },
      { event: 'revocation.unknown', kind: 'hologram', subject: 'x', ...place },
      { event: 'introduction', peer: 'p-server', owner: me, dialled: true },
      { event: 'introduction.refused', peer: 'p-stranger', owner: null, dialled: false, code: 'denied' },
      {
        event: 'stream.denied',
        peer: 'p-guest',
        owner: 'own_T',
        protocol: 'http',
        verb: 'use',
        name: 'wiki\u001b[2J\u009b',
        code: 'denied',
      },
    ]);
  });

  test('is a table of time, event, who and what for people, and nothing in it speaks to the terminal', async () => {
    const { code, stdout } = await cocoon();
    assert.equal(code, 0);
    const lines = stdout.trimEnd().split('\n');
    assert.equal(lines.length, 16);
    assert.match(lines[0] ?? '', /^TIME +EVENT +WHO +WHAT$/);
    assert.match(
      lines[3] ?? '',
      /Z {2}token\.redeemed +own_T +owner=own_R jti=j1 scope=co-own cocoon=p-gpu$/,
    );
    assert.match(
      lines[15] ?? '',
      /stream\.denied +p-guest +owner=own_T protocol=http verb=use name=wiki\?\[2J\? code=denied$/,
    );
    assert.match(lines[11] ?? '', /share\.given_back +own_R +cocoon=p-gpu epoch=0 number=4$/);
    // oxlint-disable-next-line no-control-regex
    assert.doesNotMatch(stdout, /[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/);
  });

  test('verifies the log, and names the first line that was changed', async () => {
    const { code, stdout } = await cocoon('--verify', '--json');
    assert.equal(code, 0);
    const { lines, hash, unfinished_bytes } = JSON.parse(stdout) as Record<string, unknown>;
    assert.deepEqual([lines, unfinished_bytes], [15, 0]);
    assert.match(String(hash), /^[0-9a-f]{64}$/);
    assert.match((await cocoon('--verify')).stdout, /^15 lines hold\. /);

    const text = await readFile(home.audit, 'utf8');
    await writeFile(home.audit, text.replace('"own_E"', '"own_F"'));
    const changed = await cocoon('--verify', '--json');
    assert.equal(changed.code, 1);
    const { error } = JSON.parse(changed.stderr) as { error: { code: string; message: string } };
    assert.equal(error.code, 'audit_broken');
    assert.match(error.message, /^Line 4 of /);
    assert.match((await cocoon()).stderr, /^Line 4 was changed after it was written\.$/m);
    await writeFile(home.audit, text);
  });

  test('reads the log of the server on request, and says when there is none', async () => {
    const { code, stderr } = await cocoon('--signaling');
    assert.equal(code, 3);
    assert.match(stderr, /signaling-audit\.log/);
    const log = await AuditLog.open(home.signalingAudit, new SteppedClock());
    log.append('sign_in', { peer: 'p', code: 'revoked' });
    await log.close();
    assert.match((await cocoon('--signaling')).stdout, /sign_in +p +code=revoked$/m);
  });
});
