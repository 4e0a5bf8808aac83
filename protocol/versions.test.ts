import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { negotiate, sessionVersions, signalingSubprotocols, streamProtocols } from './versions.ts';

describe('the version in use', () => {
  it('is our best that they know too, in whatever order they name theirs', () => {
    assert.equal(negotiate(['v3', 'v2', 'v1'], ['v1', 'v2']), 'v2');
    assert.equal(negotiate(['v1'], ['v9', 'v1']), 'v1');
    assert.equal(negotiate(sessionVersions, sessionVersions), 'cocoon/session/1');
  });

  it('is none when there is nothing in common', () => {
    for (const theirs of [[], ['v2'], ['V1'], ['v1 ']])
      assert.throws(() => negotiate(['v1'], theirs), { name: 'MeshError', code: 'version_mismatch' });
    assert.throws(() => negotiate([], ['v1']), { code: 'version_mismatch' });
  });

  it('has its name written out, and each name is used once', () => {
    for (const name of Object.values(streamProtocols)) assert.match(name, /^\/cocoon\/[a-z]+\/\d+$/);
    const names = [...sessionVersions, ...signalingSubprotocols, ...Object.values(streamProtocols)];
    assert.equal(new Set(names).size, names.length);
  });
});
