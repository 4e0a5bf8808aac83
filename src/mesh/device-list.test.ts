import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DeviceList } from './device-list.ts';
import type { Directory, KnownDevice } from './directory.ts';
import type { Link } from './links.ts';

function device(peerId: string): KnownDevice {
  const record = { peer_id: peerId, kind: 'cocoon', name: peerId, services: [], capabilities: [] };
  const standing = { relation: 'own', membership: { owner: 'own_a' } };
  return { record, standing, name: peerId, online: true, load: 0 } as unknown as KnownDevice;
}

function listWith(state: { revoked: boolean }, devices = ['gone', 'linked'].map(device)): DeviceList {
  const directory = {
    all: () => devices,
    resolve: (name: string) => devices.find((known) => known.name === name) ?? assert.fail(name),
    pinnedElsewhere: () => null,
  } as unknown as Directory;
  const link = { path: 'direct', engine: 'werift', session: { stats: { rttMs: 1 } } } as unknown as Link;
  return new DeviceList({
    self: 'me',
    owner: () => 'own_a',
    revoked: () => state.revoked,
    description: () => ({ kind: 'cocoon', name: 'me', services: [], capabilities: [] }),
    load: () => 0,
    directory,
    links: { get: (peerId) => (peerId === 'linked' ? link : undefined) },
  });
}

test('a device is shown as what its owner says that it is, and as what it says itself only until then', () => {
  const [unsaid, said] = [device('unsaid'), device('said')];
  const standing = {
    ...said.standing,
    membership: { ...said.standing.membership, kind: 'browser' as const },
  };
  const list = listWith({ revoked: false }, [unsaid, { ...said, standing }]);
  assert.deepEqual(
    list.all().map(({ name, kind }) => [name, kind]),
    [
      ['me', 'cocoon'],
      ['said', 'browser'],
      ['unsaid', 'cocoon'],
    ],
  );
});

test('a device that is let in nowhere any more lists itself, and whoever still holds a session with it', () => {
  const state = { revoked: false };
  const list = listWith(state);
  const names = (): string[] => list.all().map(({ name }) => name);
  assert.deepEqual(names(), ['me', 'gone', 'linked']);
  state.revoked = true;
  assert.deepEqual(names(), ['me', 'linked']);
});

test('a device that was revoked is told so when it names another, not that there is none', () => {
  const state = { revoked: false };
  const list = listWith(state);
  assert.equal(list.resolve('gone').peerId, 'gone');
  state.revoked = true;
  assert.throws(() => list.resolve('gone'), { code: 'revoked' });
  assert.equal(list.resolve('linked').peerId, 'linked');
  assert.equal(list.resolve('me').peerId, 'me');
});
