import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { FolderWatch, watchTimes } from './folder-watch.node.ts';

interface Watcher {
  readonly change: () => void;
  readonly fail: () => void;
}

function setUp(refused: ReadonlySet<string> = new Set()) {
  const clock = new SteppedClock();
  const watchers = new Map<string, Watcher>();
  let told = 0;
  const watch = new FolderWatch(
    clock,
    () => void told++,
    (folder, change, fail) => {
      if (refused.has(folder)) throw new Error('ENOSPC');
      watchers.set(folder, { change, fail });
      return { close: () => watchers.delete(folder) };
    },
  );
  const tellings = (): number => {
    const count = told;
    told = 0;
    return count;
  };
  return { clock, watch, watchers, tellings };
}

describe('a watch', () => {
  it('tells once of many changes, when they rest', () => {
    const { clock, watch, watchers, tellings } = setUp();
    watch.setFolders(['/a']);
    clock.step(watchTimes.restMs);
    assert.equal(tellings(), 1, 'what changed before it was watched');
    for (let i = 0; i < 5; i++) {
      watchers.get('/a')?.change();
      clock.step(watchTimes.restMs / 2);
    }
    assert.equal(tellings(), 0);
    clock.step(watchTimes.restMs);
    assert.equal(tellings(), 1);
  });

  it('does not wait for ever for somebody who never stops writing', () => {
    const { clock, watch, watchers, tellings } = setUp();
    watch.setFolders(['/a']);
    clock.step(watchTimes.restMs);
    tellings();
    for (let ms = 0; ms < watchTimes.longestWaitMs; ms += 100) {
      watchers.get('/a')?.change();
      clock.step(100);
    }
    assert.equal(tellings(), 1);
  });

  it('follows the folders of each scan', () => {
    const { watch, watchers } = setUp();
    watch.setFolders(['/a', '/b']);
    watch.setFolders(['/b', '/c']);
    assert.deepEqual([...watchers.keys()], ['/b', '/c']);
  });

  it('falls back to scans when folders cannot be watched, and comes back', () => {
    const refused = new Set(['/b']);
    const { clock, watch, tellings } = setUp(refused);
    watch.setFolders(['/a', '/b']);
    clock.step(watchTimes.restMs);
    tellings();
    clock.step(3 * watchTimes.unwatchedRescanMs);
    assert.equal(tellings(), 3);
    watch.setFolders(['/a', '/b']);
    clock.step(watchTimes.restMs);
    assert.equal(tellings(), 0, 'what fails again is no news');
    refused.clear();
    watch.setFolders(['/a', '/b']);
    clock.step(watchTimes.restMs);
    assert.equal(tellings(), 1);
    clock.step(watchTimes.rescanMs);
    assert.equal(tellings(), 1);
  });

  it('scans again when a watch breaks', () => {
    const { clock, watch, watchers, tellings } = setUp();
    watch.setFolders(['/a']);
    clock.step(watchTimes.restMs);
    tellings();
    watchers.get('/a')?.fail();
    clock.step(watchTimes.restMs);
    assert.equal(tellings(), 1);
    clock.step(watchTimes.unwatchedRescanMs);
    assert.equal(tellings(), 1, 'and now and then, as long as it is not watched again');
  });

  it('leaves watches to others, and scans for those it does not take', () => {
    const { clock, watch, watchers, tellings } = setUp();
    watch.setFolders(Array.from({ length: 5_000 }, (_, n) => `/${n}`));
    assert.equal(watchers.size, 4_096);
    clock.step(watchTimes.restMs);
    tellings();
    clock.step(watchTimes.unwatchedRescanMs);
    assert.equal(tellings(), 1);
  });

  it('leaves nothing behind when it is closed', () => {
    const { clock, watch, watchers } = setUp();
    watch.setFolders(['/a']);
    watch.close();
    assert.equal(clock.pendingTimers, 0);
    assert.equal(watchers.size, 0);
  });
});
