import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { after, before, describe, test } from 'node:test';
import { CocoonProcess, fewPairs, enroll, meshOfTwo, sees } from './cocoon-process.ts';
import { bodyOf, get, open, textOf } from './gateway-client.ts';
import { Origin, sha256Of } from './origin.ts';

const MiB = 1 << 20;

for (const engines of fewPairs) {
  describe(`when something fails (${engines.join(' and ')})`, () => {
    let origin: Origin;

    before(async () => {
      origin = await Origin.start();
    });

    after(async () => {
      await origin[Symbol.asyncDispose]();
    });

    test('killing signaling during a download changes nothing, nor does it hinder new requests', async () => {
      await using signaling = await CocoonProcess.start({ command: 'signaling', args: ['--port', '0'] });
      await using laptop = await CocoonProcess.start({
        command: 'run',
        args: ['--name', 'laptop', '--gateway-port', '0', '--signaling', signaling.signaling],
        engine: engines[0],
      });
      await using server = await enroll(laptop, {
        name: 'server',
        engine: engines[1],
        args: ['--service', `web:${origin.port}`],
      });
      await sees(laptop, 'server', 'web');
      const response = await get(laptop, `server/web/big?bytes=${64 * MiB}`);
      const hash = createHash('sha256');
      let received = 0;
      for await (const chunk of response) {
        if (received === 0) await signaling.stop('SIGKILL');
        received += (chunk as Buffer).length;
        hash.update(chunk as Buffer);
      }
      assert.equal(hash.digest('hex'), sha256Of(0, 64 * MiB));
      assert.equal(await textOf(await get(laptop, 'server/web/again')), 'hello from /again');
      const status = await server.json<{ signaling: { connected: boolean } }>('status');
      assert.equal(status.signaling.connected, false);
    });

    test('a device that is killed while signaling is gone, too, is found dead by its silence', async (t) => {
      await using signaling = await CocoonProcess.start({ command: 'signaling', args: ['--port', '0'] });
      await using laptop = await CocoonProcess.start({
        command: 'run',
        args: ['--name', 'laptop', '--gateway-port', '0', '--signaling', signaling.signaling],
        engine: engines[0],
      });
      await using server = await enroll(laptop, {
        name: 'server',
        engine: engines[1],
        args: ['--service', `web:${origin.port}`],
      });
      await sees(laptop, 'server', 'web');
      const response = await get(laptop, 'server/web/endless');
      await once(response, 'data');
      await signaling.stop('SIGKILL');
      const began = performance.now();
      await server.stop('SIGKILL');
      await assert.rejects(bodyOf(response));
      const known = performance.now() - began;
      const next = await get(laptop, 'server/web/');
      const answered = performance.now() - began;
      t.diagnostic(
        `known dead after ${known.toFixed(0)} ms, the next request answered after ${answered.toFixed(0)} ms`,
      );
      assert.ok(known < 5_000, `${known} ms`);
      assert.ok(answered < 6_000, `${answered} ms`);
      assert.equal(next.statusCode, 503);
      assert.match(
        (JSON.parse(await textOf(next)) as { code: string }).code,
        /^(device_offline|signaling_unreachable)$/,
      );
    });

    test('a device that comes back after kill -9 is used again without help', async (t) => {
      const { laptop, server } = await meshOfTwo({
        engines,
        runArgs: ['--service', `web:${origin.port}`],
      });
      await using _laptop = laptop;
      await using _server = server;
      await sees(laptop, 'server', 'web');
      const response = await get(laptop, 'server/web/endless');
      await once(response, 'data');
      const pending = open(laptop, 'server/web/hang').then(async (request) => {
        request.end();
        const [answered] = (await once(request, 'response')) as [typeof response];
        return answered;
      });
      const count = origin.seen.length;
      while (origin.seen.length === count) await new Promise((resolve) => setImmediate(resolve));
      const began = performance.now();
      await server.stop('SIGKILL');
      await assert.rejects(bodyOf(response));
      const known = performance.now() - began;
      const answered = await pending;
      const answeredAfter = performance.now() - began;
      t.diagnostic(
        `download broke off after ${known.toFixed(0)} ms, request answered after ${answeredAfter.toFixed(0)} ms`,
      );
      assert.ok(known < 5_000 && answeredAfter < 6_000);
      assert.equal(answered.statusCode, 502);
      assert.equal((JSON.parse(await textOf(answered)) as { code: string }).code, 'carrier_lost');
      const gone = await get(laptop, 'server/web/');
      assert.equal(gone.statusCode, 503);
      assert.equal((JSON.parse(await textOf(gone)) as { code: string }).code, 'device_offline');
      assert.ok(Number(gone.headers['retry-after']) > 0);
      await server.restart();
      await sees(laptop, 'server', 'web');
      assert.equal(await textOf(await get(laptop, 'server/web/back')), 'hello from /back');
    });

    test('the asking device is killed and comes back: its requests end at the service, the next one works', async () => {
      const { laptop, server } = await meshOfTwo({
        engines,
        runArgs: ['--service', `web:${origin.port}`],
      });
      await using _laptop = laptop;
      await using _server = server;
      await sees(laptop, 'server', 'web');
      origin.ended = Promise.withResolvers();
      const response = await get(laptop, 'server/web/endless');
      await once(response, 'data');
      response.on('error', () => undefined);
      await laptop.stop('SIGKILL');
      await origin.ended.promise;
      await laptop.restart();
      await sees(laptop, 'server', 'web');
      assert.equal(await textOf(await get(laptop, 'server/web/back')), 'hello from /back');
    });

    test('a device that is restarted while its old session is still up is reached at once', async () => {
      const { laptop, server } = await meshOfTwo({
        engines,
        runArgs: ['--service', `web:${origin.port}`],
      });
      await using _laptop = laptop;
      await using _server = server;
      await sees(laptop, 'server', 'web');
      assert.equal((await get(laptop, 'server/web/')).statusCode, 200);
      await server.stop('SIGKILL');
      await server.restart();
      const response = await get(laptop, 'server/web/after');
      assert.equal(await textOf(response), 'hello from /after');
    });
  });
}
