/*
 * One device asks another one for a capability, on each engine: the request and the answer go over their session and
 * nowhere else, so that it makes no difference to them whether signaling is there.
 */

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ask, eventsOf, offers, post, untilOffers } from './capability-client.ts';
import { CocoonProcess, enginePairs, enroll, full, sees } from './cocoon-process.ts';
import { ProviderDesk } from './provider-desk.ts';
import { bytesThroughSignaling } from './signaling-metrics.ts';

const much = 'x'.repeat(500_000);

for (const [near, far] of full ? enginePairs : enginePairs.slice(0, 2))
  describe(`capabilities over ${near} and ${far}`, () => {
    test('are asked plainly and streaming, past signaling, and go on when it stops', async () => {
      await using parts = new AsyncDisposableStack();
      const desk = parts.use(await ProviderDesk.start());
      const signaling = parts.use(await CocoonProcess.start({ command: 'signaling', args: ['--port', '0'] }));
      const laptop = parts.use(
        await CocoonProcess.start({
          command: 'run',
          args: ['--name', 'laptop', '--gateway-port', '0', '--signaling', signaling.signaling],
          engine: near,
        }),
      );
      const plugin = await desk.plugin('box', [
        { protocol: 'demo.plain', version: '1.0.0' },
        { protocol: 'demo.stream', version: '1.0.0', streams: true },
      ]);
      const box = parts.use(await enroll(laptop, { name: 'box', engine: far, args: ['--plugin', plugin] }));
      await sees(laptop, 'box');
      await untilOffers(laptop, 'box', offers('demo.stream'));
      desk.when('box', (call) => {
        if (call.protocol === 'demo.stream') for (const n of [1, 2, 3]) call.chunk([n, much]);
        call.end(call.payload);
      });

      const both = async (): Promise<void> => {
        const plain = await ask(laptop, 'demo.plain', { payload: { much } });
        assert.deepEqual(plain.result, { much });
        assert.deepEqual([plain.device, plain.attempts], ['box', 1]);
        const seen: string[] = [];
        for await (const { name, data } of eventsOf(
          await post(laptop, 'demo.stream', { payload: 'the end' }),
        )) {
          const [n, text] = name === 'chunk' ? (data['payload'] as [number, string]) : [data['result'], much];
          assert.equal(text, much);
          seen.push(`${name} ${String(n)}`);
        }
        assert.deepEqual(seen, ['chunk 1', 'chunk 2', 'chunk 3', 'done the end']);
      };
      // The introduction is signaling's matter, the rest is not.
      await both();
      const before = await bytesThroughSignaling(signaling);
      await both();
      const moved = (await bytesThroughSignaling(signaling)) - before;
      assert.ok(moved < 5_000, `${moved} bytes`);
      await signaling.stop('SIGKILL');
      await both();

      const rows =
        await laptop.json<{ name: string; path: string | null; engine: string | null }[]>('devices');
      const { path, engine } = rows.find(({ name }) => name === 'box') ?? {};
      assert.match(path ?? '', /^(lan|direct)$/);
      assert.equal(engine, near);
      const { device } = await laptop.json<{ device: string }>('request', 'demo.plain');
      assert.equal(device, box.name);
    });
  });
