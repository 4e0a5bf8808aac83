import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { MeshError } from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { LatePart } from './late-part.ts';

function store() {
  const clock = new SteppedClock();
  const seen = { away: false, opened: 0, tried: 0, closed: 0, logged: [] as string[] };
  const part = new LatePart({
    what: 'The store',
    open: async () => {
      seen.tried++;
      if (seen.away) throw new MeshError('storage_failed', 'It is away');
      seen.opened++;
      return { value: 1 };
    },
    close: async () => void seen.closed++,
    clock,
    log: (level, message) => seen.logged.push(`${level} ${message}`),
  });
  return { clock, part, seen };
}

describe('a part that needs a database', () => {
  test('is opened once, however many ask for it', async () => {
    const { part, seen } = store();
    await Promise.all([part.start(), part.use(), part.use()]);
    await part.use();
    assert.deepEqual([seen.opened, seen.tried], [1, 1]);
  });

  test('that is away at the start says so once, and comes by itself when it is there', async () => {
    const { clock, part, seen } = store();
    seen.away = true;
    await part.start();
    await assert.rejects(part.use(), { code: 'storage_failed' });
    assert.equal(seen.tried, 1, 'a failure is believed for a moment');
    clock.step(5_000);
    await assert.rejects(part.use());
    seen.away = false;
    clock.step(5_000);
    assert.deepEqual(await part.use(), { value: 1 });
    assert.deepEqual(seen.logged, ['warn The store: It is away', 'info The store: there again']);
    const { tried } = seen;
    clock.step(60_000);
    assert.equal(seen.tried, tried, 'nobody tries any more');
  });

  test('is there for whoever asks as soon as it can be', async () => {
    const { clock, part, seen } = store();
    seen.away = true;
    await part.start();
    seen.away = false;
    clock.step(600);
    assert.deepEqual(await part.use(), { value: 1 });
  });

  test('is closed once, also when it is opened just then, and is not opened again', async () => {
    const { part, seen } = store();
    void part.start();
    await Promise.all([part.close(), part.close()]);
    assert.deepEqual([seen.opened, seen.closed], [1, 1]);
    await assert.rejects(part.use(), { code: 'shutting_down' });
  });
});
