import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import {
  content,
  scriptedProvider,
  untilAborted,
} from '@cocoon-mesh/capabilities/scripted-provider.contract.ts';
import { MeshError, memberRights } from '@cocoon-mesh/protocol';
import type { DeviceView } from '../device-view.ts';
import type { FeatureDevice } from '../feature-devices.contract.ts';
import { Devices } from '../feature-devices.contract.ts';

const devices = new Devices();
let laptop: FeatureDevice;
let gpu: FeatureDevice;
/** Of streams whose askers went away. */
const left: AbortSignal[] = [];

before(async () => {
  laptop = await devices.add('laptop');
  gpu = await devices.add('gpu', { disabledCapabilities: ['demo.off'] });
  const { local } = gpu.features.capabilities;
  local.add(scriptedProvider({ version: '1.3.0', state: { features: ['model:a'] } }));
  local.add(scriptedProvider({ protocol: 'demo.off' }));
  local.add(
    scriptedProvider({
      protocol: 'demo.count',
      handle: async function* ({ payload, signal }) {
        for (let n = 1; n <= Number(payload); n++) yield content({ n }, Uint8Array.of(n));
        if (payload === 2) return;
        if (payload === 3) throw new MeshError('text_too_long', 'No more than two');
        left.push(signal);
        await untilAborted(signal);
      },
    }),
  );
  local.add(
    scriptedProvider({
      protocol: 'demo.busy',
      handle: async () => {
        throw new MeshError('overloaded', 'Busy', { retryAfterMs: 6_500 });
      },
    }),
  );
});

after(async () => devices[Symbol.asyncDispose]());

describe('a capability request at the gateway', () => {
  test('is answered by the device that serves it, with payload, parts and where it came from', async () => {
    const parts = [Buffer.from([0, 255, 1]).toString('base64')];
    const body = { version: '^1.0.0', payload: { text: 'Grüße' }, parts, timeout_ms: 5_000 };
    const response = await laptop.fetch('POST', '/capabilities/demo.echo', body);
    assert.equal(response.status, 200);
    assert.deepEqual(await response.json(), { result: { text: 'Grüße' }, parts });
    const header = (name: string) => response.headers.get(name);
    assert.deepEqual(
      ['cocoon-device', 'cocoon-device-id', 'cocoon-version', 'cocoon-attempts', 'cocoon-instead-of'].map(
        header,
      ),
      ['gpu', gpu.peerId, '1.3.0', '1', null],
    );
    assert.match(`${header('cocoon-queue-ms')} ${header('cocoon-total-ms')}`, /^\d+ \d+$/);
  });

  test('for embeddings is answered in the shape of the API of OpenAI', async () => {
    const space = '5'.repeat(64);
    const usage = { prompt_tokens: 2, total_tokens: 2 };
    const said = { model: 'm', space, semantic: true, dimensions: 2, count: 2, usage };
    let vectors = new Uint8Array(Float32Array.of(0.1, 1, -1, 2).buffer);
    const embeddings = scriptedProvider({
      protocol: 'embeddings',
      version: '1.5.0',
      handle: async () => content(said, vectors),
    });
    const takeAway = gpu.features.capabilities.local.add(embeddings);
    const ask = (payload: object) =>
      laptop.ask<{ result: { data: { embedding: unknown }[] } }>('POST', '/capabilities/embeddings', {
        version: '^1.5.0',
        payload,
      });
    try {
      const { body } = await ask({ input: ['a', 'b'] });
      const [first, second] = [[Math.fround(0.1), 1], [-1, 2]]; // prettier-ignore
      assert.deepEqual(body, {
        result: {
          object: 'list',
          data: [
            { object: 'embedding', index: 0, embedding: first },
            { object: 'embedding', index: 1, embedding: second },
          ],
          model: 'm',
          usage,
          space,
          semantic: true,
          dimensions: 2,
        },
      });
      const packed = await ask({ input: ['a', 'b'], encoding_format: 'base64' });
      assert.deepEqual(
        packed.body.result.data.map(({ embedding }) => embedding),
        [vectors.subarray(0, 8), vectors.subarray(8)].map((part) => Buffer.from(part).toString('base64')),
      );
      vectors = vectors.subarray(4);
      const wrong = { version: '^1.5.0', payload: { input: ['a', 'b'] } };
      assert.equal(await laptop.refusal('POST', '/capabilities/embeddings', wrong), '502 bad_answer');
    } finally {
      takeAway();
    }
  });

  test('needs no more than the name of the capability', async () => {
    const { body } = await laptop.ask('POST', '/capabilities/demo.echo', {});
    assert.deepEqual(body, { result: null });
  });

  test('says which device it preferred in vain', async () => {
    const response = await gpu.fetch('POST', '/capabilities/demo.echo', { prefer_device: 'laptop' });
    assert.equal(response.headers.get('cocoon-device'), 'gpu');
    assert.equal(response.headers.get('cocoon-instead-of'), 'laptop');
    assert.equal(response.headers.get('cocoon-instead-reason'), 'capability_not_found');
    assert.equal(
      decodeURIComponent(response.headers.get('cocoon-instead-message') ?? ''),
      'laptop does not offer demo.echo',
    );
  });

  test('is a stream of events when its answer is one', async () => {
    const response = await laptop.fetch('POST', '/capabilities/demo.count', { payload: 2 });
    assert.equal(response.headers.get('content-type'), 'text/event-stream');
    assert.equal(response.headers.get('cocoon-device'), 'gpu');
    const events = eventsOf(await response.text());
    assert.deepEqual(events.slice(0, 2), [
      ['chunk', { payload: { n: 1 }, parts: ['AQ=='] }],
      ['chunk', { payload: { n: 2 }, parts: ['Ag=='] }],
    ]);
    const [name, done] = events[2] ?? [];
    assert.equal(name, 'done');
    const { device, attempts, result, instead_of: insteadOf } = done as Record<string, unknown>;
    assert.deepEqual([device, attempts, result, insteadOf], ['gpu', 1, null, null]);
  });

  test('ends with an event when its stream breaks off, and with a status when there was none yet', async () => {
    const text = await (await laptop.fetch('POST', '/capabilities/demo.count', { payload: 3 })).text();
    const [name, data] = eventsOf(text).at(-1) ?? [];
    assert.equal(name, 'error');
    assert.equal((data as { error: { code: string } }).error.code, 'text_too_long');
    const busy = await laptop.fetch('POST', '/capabilities/demo.busy', {});
    assert.deepEqual([busy.status, busy.headers.get('retry-after')], [503, '7']);
    await busy.body?.cancel();
  });

  test('is cancelled at the provider when the client goes away', async () => {
    const response = await laptop.fetch('POST', '/capabilities/demo.count', { payload: 1 });
    const reader = response.body?.getReader();
    await reader?.read();
    await reader?.cancel();
    const signal = left.shift();
    assert.ok(signal);
    if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve));
    assert.equal(
      gpu.features.capabilities.local.all().find(({ protocol }) => protocol === 'demo.count')?.queued,
      0,
    );
  });

  test('that cannot be served is refused with a clear code', async () => {
    for (const [path, body, expected] of [
      ['demo.none', {}, '404 capability_not_found'],
      ['Demo', {}, '404 capability_not_found'],
      ['demo.off', {}, '404 capability_not_found'],
      ['demo.echo', { version: '^2.0.0' }, '404 capability_not_found'],
      ['demo.echo', { version: 'latest' }, '400 bad_payload'],
      ['demo.echo', { features: ['model:b'] }, '404 capability_not_found'],
      ['demo.echo', { device: 'laptop' }, '404 capability_not_found'],
      ['demo.echo', { prefer_device: 'nobody' }, '404 device_not_found'],
      ['demo.echo', { parts: ['?'] }, '400 bad_payload'],
      ['demo.echo', { nonsense: 1 }, '400 bad_payload'],
      ['demo.echo', { timeout_ms: 0 }, '400 bad_payload'],
      ['demo.echo', 'nonsense', '400 bad_message'],
      ['demo.echo?x=1', {}, '400 usage'],
      ['demo/echo', {}, '404 not_found'],
    ] as const)
      assert.equal(
        await laptop.refusal('POST', `/capabilities/${path}`, body),
        expected,
        `${path} ${JSON.stringify(body)}`,
      );
    assert.equal(await laptop.refusal('GET', '/capabilities/demo.echo'), '404 not_found');
  });

  test('needs the right at the other device', async () => {
    devices.rights = memberRights.filter(({ protocol }) => protocol !== 'capability');
    try {
      assert.equal(await laptop.refusal('POST', '/capabilities/demo.echo', {}), '403 denied');
    } finally {
      devices.rights = memberRights;
    }
  });
});

test('a device shows how busy its providers are, and what they have', async () => {
  const { body } = await gpu.ask<{ cocoons: DeviceView[] }>('GET', '/cocoons');
  const own = body.cocoons.find(({ name }) => name === 'gpu')?.capabilities;
  assert.deepEqual(
    own?.find(({ protocol }) => protocol === 'demo.echo'),
    {
      protocol: 'demo.echo',
      version: '1.3.0',
      load: 0,
      in_flight: 0,
      queued: 0,
      limit: 2,
      warm: true,
      features: ['model:a'],
    },
  );
  assert.deepEqual(
    own?.find(({ protocol }) => protocol === 'tasks'),
    { protocol: 'tasks', version: '1.0.0' },
  );
});

function eventsOf(text: string): (readonly [string, unknown])[] {
  return text
    .trim()
    .split('\n\n')
    .map((event) => {
      const [, name = '', data = ''] = /^event: (.*)\ndata: (.*)$/.exec(event) ?? [];
      return [name, JSON.parse(data) as unknown] as const;
    });
}
