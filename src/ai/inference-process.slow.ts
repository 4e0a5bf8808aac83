import assert from 'node:assert/strict';
import { kill } from 'node:process';
import { serialize } from 'node:v8';
import { describe, it } from 'node:test';
import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import type { DoubleRequest, DoubleSource } from './inference-doubles.contract.ts';
import { InferenceProcess } from './inference-process.node.ts';

const idleMs = 60_000;

function start(source: { value: DoubleSource } = { value: 'loads' }) {
  const clock = new SteppedClock();
  const changed = { times: 0, wake: Promise.withResolvers<void>() };
  const model = new InferenceProcess({
    module: import.meta.resolve('./inference-doubles.contract.ts'),
    source: () => source.value,
    clock,
    idleMs,
    loadTimeoutMs: 30_000,
    onChange: () => {
      changed.times++;
      changed.wake.resolve();
      changed.wake = Promise.withResolvers();
    },
  });
  const ask = async (request: DoubleRequest, signal?: AbortSignal): Promise<unknown> =>
    model.run(request, signal ? { signal } : {});
  /** Waits until `holds`; every change of the process wakes it. */
  const until = async (holds: () => boolean): Promise<void> => {
    while (!holds()) await changed.wake.promise;
  };
  return { clock, model, ask, until, [Symbol.asyncDispose]: async () => model.close() };
}

function isAlive(pid: number | null): boolean {
  try {
    return pid !== null && kill(pid, 0);
  } catch {
    return false;
  }
}

const limit = { timeout: 60_000 };

describe('the process of a model', limit, () => {
  it('starts with the first request and is used again', async () => {
    await using each = start();
    assert.equal(each.model.pid, null);
    assert.equal(await each.ask({ does: 'answer', value: 1 }), 1);
    const { pid } = each.model;
    assert.deepEqual(await each.model.describe(), { named: 'double', pid });
    const vector = Float32Array.of(0.5, -0.25);
    assert.deepEqual(await each.ask({ does: 'answer', value: vector }), vector);
    assert.equal(each.model.pid, pid);
    assert.equal(each.model.warm, true);
  });

  it('sends parts of an answer in order', async () => {
    await using each = start();
    const parts: unknown[] = [];
    const end = await each.model.run({ does: 'count', to: 5 }, { onChunk: (part) => parts.push(part) });
    assert.deepEqual([...parts, end], [0, 1, 2, 3, 4, 'counted']);
  });

  it('ends when nobody has asked for a while, and starts again', async () => {
    await using each = start();
    await each.ask({ does: 'answer', value: 1 });
    const { pid } = each.model;
    each.clock.step(idleMs - 1);
    await each.ask({ does: 'answer', value: 2 });
    each.clock.step(idleMs - 1);
    assert.equal(each.model.pid, pid);
    const controller = new AbortController();
    const waits = each.ask({ does: 'wait for its end' }, controller.signal);
    each.clock.step(idleMs * 2);
    assert.equal(each.model.pid, pid, 'with a request under way it stays');
    controller.abort(new MeshError('cancelled'));
    await assert.rejects(waits, { code: 'cancelled' });
    each.clock.step(idleMs);
    assert.equal(each.model.pid, null);
    assert.equal(each.model.problem, null);
    assert.equal(await each.ask({ does: 'answer', value: 3 }), 3);
    assert.notEqual(each.model.pid, pid);
  });

  it('tells errors of the model by their code, and others with their message', async () => {
    await using each = start();
    await assert.rejects(each.ask({ does: 'fail' }), {
      code: 'text_too_long',
      message: 'input[0] is too long',
    });
    await assert.rejects(each.ask({ does: 'throw' }), {
      code: 'provider_failed',
      message: /a library failed/,
    });
    assert.equal(await each.ask({ does: 'answer', value: 1 }), 1);
  });

  it('cancels in the process what its asker gave up', async () => {
    await using each = start();
    const controller = new AbortController();
    const waits = each.ask({ does: 'wait for its end' }, controller.signal);
    // The first may overtake what has a signal; when the second is answered, that has begun.
    for (const value of [1, 2]) await each.ask({ does: 'answer', value });
    controller.abort(new MeshError('cancelled'));
    await assert.rejects(waits, { code: 'cancelled' });
    assert.deepEqual(await each.ask({ does: 'say how it ended' }), { cancelled: 1 });
  });

  it('gives what was under way when it is killed to a new process, once', async () => {
    await using each = start();
    const waiting = [each.ask({ does: 'wait for its end' }), each.ask({ does: 'wait for its end' })];
    await each.ask({ does: 'answer', value: 1 });
    const { pid: first } = each.model;
    kill(first ?? 0, 'SIGKILL');
    await each.until(() => each.model.warm && each.model.pid !== first);
    assert.equal(await each.ask({ does: 'answer', value: 1 }), 1);
    const { pid } = each.model;
    kill(pid ?? 0, 'SIGKILL');
    for (const ended of waiting)
      await assert.rejects(ended, { code: 'provider_failed', message: /ended \(SIGKILL\)/ });
    assert.equal(each.model.problem, null);
    assert.equal(await each.ask({ does: 'answer', value: 2 }), 2);
    assert.notEqual(each.model.pid, pid);
  });

  it('ends an answer of which a part was told with its process', async () => {
    await using each = start();
    const parts: unknown[] = [];
    const died = each.model.run({ does: 'count and die', to: 2 }, { onChunk: (part) => parts.push(part) });
    await assert.rejects(died, { code: 'provider_failed', message: /SIGKILL/ });
    assert.deepEqual(parts, [0, 1]);
  });

  it('that writes rubbish is killed, and takes nothing else down', async () => {
    const framed = (value: unknown): Uint8Array => {
      const bytes = serialize(value);
      const length = Buffer.alloc(4);
      length.writeUInt32BE(bytes.length);
      return Buffer.concat([length, bytes]);
    };
    for (const bytes of [
      Buffer.alloc(64, 0xff),
      Buffer.from([0, 0, 0, 4, 1, 2, 3, 4]),
      Buffer.from('{"cmd":"NODE_HANDLE_ACK"}\n'.repeat(100)),
      framed(null),
      framed({ kind: 'error', id: 0 }),
    ]) {
      await using each = start();
      await assert.rejects(each.ask({ does: 'rubbish', bytes }), {
        code: 'provider_failed',
        message: /SIGKILL.*sent what is no message/,
      });
      assert.equal(await each.ask({ does: 'answer', value: 1 }), 1);
    }
  });

  it('pauses when one process after the other dies at its work, and then tries by itself', async () => {
    await using each = start();
    await assert.rejects(each.ask({ does: 'die' }), { code: 'provider_failed' });
    await assert.rejects(each.ask({ does: 'die' }), { code: 'model_unavailable' });
    assert.match(each.model.problem?.message ?? '', /ended 3 times in a row/);
    await assert.rejects(each.ask({ does: 'answer', value: 1 }), { code: 'model_unavailable' });
    assert.equal(each.model.pid, null);
    each.clock.step(10_000);
    await each.until(() => each.model.warm);
    assert.equal(each.model.problem, null);
    assert.equal(await each.ask({ does: 'answer', value: 2 }), 2);
  });

  it('says why it does not load, tries it again after a while, and serves when it does', async () => {
    const source: { value: DoubleSource } = { value: 'is not there' };
    await using each = start(source);
    await assert.rejects(each.ask({ does: 'answer', value: 1 }), {
      code: 'model_unavailable',
      message: 'config.json is missing',
    });
    assert.equal(each.model.problem?.message, 'config.json is missing');
    source.value = 'throws';
    each.clock.step(1_000);
    assert.equal(each.model.problem?.message, 'config.json is missing', 'also while it is tried again');
    await each.until(() => /a library failed/.test(each.model.problem?.message ?? ''));
    source.value = 'loads';
    each.clock.step(2_000);
    await each.until(() => each.model.warm);
    assert.equal(await each.ask({ does: 'answer', value: 2 }), 2);
  });

  it('does not start for ever one that dies while it loads', async () => {
    await using each = start({ value: 'dies while it loads' });
    for (let i = 0; i < 2; i++)
      await assert.rejects(each.ask({ does: 'answer', value: 1 }), { code: 'model_unavailable' });
    assert.match(each.model.problem?.message ?? '', /SIGKILL/);
    assert.equal(each.model.pid, null);
  });

  it('leaves no process behind and no timer when it is closed', async () => {
    const each = start();
    const waits = each.ask({ does: 'wait for its end' });
    await each.ask({ does: 'answer', value: 1 });
    const { pid } = each.model;
    await Promise.all([each.model.close(), assert.rejects(waits, { code: 'provider_failed' })]);
    assert.equal(isAlive(pid), false);
    await assert.rejects(each.ask({ does: 'answer', value: 1 }), { code: 'cancelled' });
    assert.equal(each.clock.pendingTimers, 0);
  });
});
