import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { MeshError } from '@cocoon-mesh/protocol';
import type { Engine, EngineName } from '../engine.ts';
import type { EngineLoaders } from './select.node.ts';
import { selectEngine } from './select.node.ts';

function engineNamed(name: EngineName): Engine {
  return {
    name,
    sealed: name === 'werift',
    connect: () => {
      throw new Error('not in this test');
    },
  };
}

const both: EngineLoaders = {
  libdatachannel: async () => engineNamed('libdatachannel'),
  werift: async () => engineNamed('werift'),
};
const withoutNative: EngineLoaders = {
  ...both,
  libdatachannel: async () => {
    throw new MeshError('engine_unavailable', undefined, {
      cause: new Error('no prebuilt for sparc\nstack'),
    });
  },
};

describe('the choice of an engine', () => {
  it('takes libdatachannel where it loads', async () => {
    for (const wanted of [undefined, '', 'auto']) {
      const { engine, reason } = await selectEngine(wanted, both);
      assert.equal(engine.name, 'libdatachannel');
      assert.match(reason, /loads here/);
    }
  });

  it('falls back to werift and keeps the reason, in one line', async () => {
    const { engine, reason } = await selectEngine('auto', withoutNative);
    assert.equal(engine.name, 'werift');
    assert.equal(reason, 'libdatachannel does not load here: no prebuilt for sparc');
  });

  it('takes the one that was asked for, and no other in its place', async () => {
    assert.equal((await selectEngine('werift', both)).engine.name, 'werift');
    assert.equal((await selectEngine('libdatachannel', both)).engine.name, 'libdatachannel');
    await assert.rejects(selectEngine('libdatachannel', withoutNative), { code: 'engine_unavailable' });
  });

  it('refuses a name it does not know', async () => {
    await assert.rejects(selectEngine('chrome', both), { code: 'unknown_engine' });
    await assert.rejects(selectEngine('toString', both), { code: 'unknown_engine' });
  });
});
