/*
 * Devices that fail while they are asked for a capability: killed, hung, broken, or sending what is no answer. Before
 * the first byte of an answer another device takes over and nobody notices; after it the asker is told.
 */

import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import type { Stream } from '@cocoon-mesh/mesh';
import {
  capabilityAnswerSchema,
  capabilityRequestOpenSchema,
  concat,
  encode,
  randomBytes,
  streamProtocols,
  utf8,
} from '@cocoon-mesh/protocol';
import { ask as askAt, endOf, eventsOf, offers, post as postAt, untilOffers } from './capability-client.ts';
import type { Answer, RequestBody } from './capability-client.ts';
import { CocoonProcess } from './cocoon-process.ts';
import type { ProviderDesk } from './provider-desk.ts';
import { ProviderMesh } from './provider-mesh.ts';
import { WirePeer } from './wire-peer.ts';

const names = ['ape', 'bee', 'cat'];
const offered = [
  { protocol: 'demo.work', version: '1.0.0' },
  { protocol: 'demo.talk', version: '1.0.0', streams: true },
];
/** Of single stories. */
const parts = new AsyncDisposableStack();
let mesh: ProviderMesh;
let desk: ProviderDesk;
let laptop: CocoonProcess;

before(async () => {
  mesh = await ProviderMesh.start(Object.fromEntries(names.map((name) => [name, offered])));
  ({ desk, laptop } = mesh);
});

after(async () => {
  await parts.disposeAsync();
  await mesh?.[Symbol.asyncDispose]();
});

beforeEach(() => mesh.oblige());

function provider(name: string): CocoonProcess {
  return mesh.provider(name);
}

async function pluginOf(name: string): Promise<number> {
  const { plugins } = await provider(name).json<{ plugins: { pid: number }[] }>('plugins', 'list');
  return plugins[0]?.pid ?? assert.fail();
}

function ask(protocol: string, body?: RequestBody): Promise<Answer> {
  return askAt(laptop, protocol, body);
}

function post(protocol: string, body?: RequestBody): Promise<Response> {
  return postAt(laptop, protocol, body);
}

interface Way {
  readonly what: string;
  readonly kill: (name: string) => Promise<unknown>;
  readonly mend: (name: string) => Promise<void>;
}

const deaths: readonly Way[] = [
  {
    what: 'whose plugin is killed',
    kill: async (name) => process.kill(await pluginOf(name), 'SIGKILL'),
    mend: async (name) => {
      // It comes back by itself; others hear of it a little later.
      await untilOffers(provider(name), name, offers('demo.work'));
      await untilOffers(laptop, name, offers('demo.work'));
    },
  },
  {
    what: 'that is killed itself',
    kill: (name) => provider(name).stop('SIGKILL'),
    mend: async (name) => {
      await provider(name).restart({ input: '' });
      await untilOffers(laptop, name, offers('demo.work'));
    },
  },
];

for (const { what, kill, mend } of deaths)
  describe(`a provider ${what}`, () => {
    test('before it answers is replaced by the next device, and nobody notices', async () => {
      const held = desk.hold('ape');
      const asked = ask('demo.work', { prefer_device: 'ape', payload: 1 });
      const talk = post('demo.talk', { prefer_device: 'ape', payload: 2 });
      await desk.until(() => held.length === 2);
      await kill('ape');
      const { status, device, attempts, headers } = await asked;
      assert.deepEqual([status, attempts, headers.get('cocoon-instead-of')], [200, 2, 'ape']);
      assert.notEqual(device, 'ape');
      const streamed = await talk;
      assert.equal(await endOf(streamed), 'done');
      await mend('ape');
    });

    test('in the middle of an answer is an error, and nobody else is asked', async () => {
      const held = desk.hold(...names);
      const talk = post('demo.talk', { prefer_device: 'bee' });
      await desk.until(() => held.length === 1);
      held[0]?.chunk('half of it');
      const events = eventsOf(await talk);
      assert.deepEqual((await events.next()).value, { name: 'chunk', data: { payload: 'half of it' } });
      await kill('bee');
      const { value } = await events.next();
      assert.equal(value?.name, 'error');
      assert.equal(held.length, 1);
      await mend('bee');
    });
  });

describe('a provider that hangs', () => {
  test('holds up a request until its session is given up, the next one less than that, and then none', async () => {
    const held = desk.hold('cat');
    const asking = ask('demo.work', { prefer_device: 'cat' });
    await desk.until(() => held.length === 1);
    const { pid } = provider('cat');
    process.kill(pid, 'SIGSTOP');
    try {
      const took = (answer: Answer): number => Number(answer.headers.get('cocoon-total-ms'));
      const first = await asking;
      assert.deepEqual([first.status, first.attempts], [200, 2]);
      assert.ok(took(first) < 10_000, `${took(first)} ms`);
      // Signaling still has it as online; it does not answer, though.
      const second = await ask('demo.work', { prefer_device: 'cat' });
      assert.deepEqual([second.status, second.attempts], [200, 2]);
      assert.equal(second.headers.get('cocoon-instead-reason'), 'connect_timeout');
      assert.ok(took(second) < 8_000, `${took(second)} ms`);
      for (const body of [{ prefer_device: 'cat' }, {}]) {
        const third = await ask('demo.work', body);
        assert.deepEqual([third.status, third.attempts], [200, 1]);
        assert.ok(took(third) < 1_000, `${took(third)} ms`);
      }
    } finally {
      process.kill(pid, 'SIGCONT');
    }
    desk.when('cat');
    // It is there again as soon as it answers, without anybody's help.
    for (const end = Date.now() + 20_000; ;) {
      const { status, code } = await ask('demo.work', { device: 'cat' });
      if (status === 200) break;
      assert.ok(Date.now() < end, code);
    }
  });
});

describe('a request that fails everywhere', () => {
  test('is tried at three devices at most, and ends with what the last of them said', async () => {
    const plugin = await desk.plugin('laptop', offered);
    await laptop.json('plugins', 'add', plugin);
    await untilOffers(laptop, 'laptop', offers('demo.work'));
    try {
      for (const name of ['laptop', ...names]) desk.when(name, (call) => call.fail('no code that there is'));
      const before = desk.calls.length;
      const { status, code } = await ask('demo.work');
      assert.deepEqual([status, code], [502, 'plugin_failed']);
      const tried = desk.calls.slice(before).map(({ device }) => device);
      assert.equal(tried[0], 'laptop');
      assert.equal(new Set(tried).size, 3);
      assert.equal(tried.length, 3);
      // What the request itself is to blame for is asked of nobody else.
      for (const name of ['laptop', ...names]) desk.when(name, (call) => call.fail('bad_payload'));
      assert.equal((await ask('demo.work')).code, 'bad_payload');
      assert.equal(desk.calls.length, before + 4);
    } finally {
      desk.when('laptop');
      await laptop.json('plugins', 'remove', 'of-laptop');
      await untilOffers(laptop, 'laptop', (own) => !offers('demo.work')(own));
    }
  });

  test('at one device again and again is no longer brought there, and others serve', async () => {
    desk.when('ape', (call) => call.fail('no code that there is'));
    const codes: (string | undefined)[] = [];
    for (let i = 0; i < 60 && codes.at(-1) !== 'overloaded'; i++)
      codes.push((await ask('demo.work', { device: 'ape' })).code);
    // Half of those of the last minute, in which it also has served some.
    assert.ok(codes.length > 10, codes.join());
    assert.deepEqual(new Set(codes), new Set(['plugin_failed', 'overloaded']));
    const before = desk.calls.length;
    const { status, headers } = await ask('demo.work', { device: 'ape' });
    assert.equal(status, 503);
    assert.ok(Number(headers.get('retry-after')) <= 10);
    for (let i = 0; i < 6; i++) {
      const { device, attempts } = await ask('demo.work');
      assert.notEqual(device, 'ape');
      assert.equal(attempts, 1);
    }
    assert.ok(desk.calls.slice(before).every(({ device }) => device !== 'ape'));
  });
});

/** A device of the same owner that was taken over: it says that it has what is asked for. */
describe('a device that answers what is no answer', () => {
  let rogue: WirePeer;
  let misbehave: (stream: Stream) => Promise<void> | void = () => undefined;

  before(async () => {
    rogue = parts.use(
      await WirePeer.of(laptop, 'rogue', {
        capabilities: [
          { protocol: 'demo.work', version: '1.0.0' },
          { protocol: 'demo.talk', version: '1.0.0' },
        ],
      }),
    );
    rogue.mesh.handle(streamProtocols.capability, (stream) => {
      void (async () => {
        while ((await stream.read()) !== null);
        await misbehave(stream);
      })().catch(() => undefined);
    });
    await untilOffers(laptop, 'rogue', offers('demo.talk'));
  });

  const load = { in_flight: 0, queued: 0, limit: 1 };
  const well = { kind: 'end' as const, payload: 'well', parts: [], version: '1.0.0', queue_ms: 0, load };
  const behave = (stream: Stream): void => {
    stream.write(framed(encode(capabilityAnswerSchema, well)));
    stream.end();
  };

  // More good answers than bad ones: a device that mostly fails would be left alone.
  beforeEach(async () => {
    misbehave = behave;
    for (let i = 0; i < 4; i++) assert.equal((await ask('demo.work', { device: 'rogue' })).status, 200);
  });

  const chunk = encode(capabilityAnswerSchema, { kind: 'chunk', payload: 'half', parts: [] });

  const answers: Record<string, (stream: Stream) => void> = {
    'random bytes': (stream) => {
      stream.write(randomBytes(4096));
      stream.end();
    },
    nothing: (stream) => stream.end(),
    'a length beyond all limits': (stream) => void stream.write(new Uint8Array([0xff, 0xff, 0xff, 0xff])),
    'a message that is cut off': (stream) => {
      stream.write(framed(chunk).subarray(0, -3));
      stream.end();
    },
    'a message of another kind': (stream) =>
      void stream.write(
        framed(encode(capabilityRequestOpenSchema, { protocol: 'demo.work', version: '1.0.0' })),
      ),
    'JSON nested too deeply': (stream) => {
      const fields = [packed('kind'), packed('chunk'), packed('parts'), new Uint8Array([0x90])];
      const deep = concat(new Uint8Array(100).fill(0x91), new Uint8Array([1]));
      stream.write(framed(concat(new Uint8Array([0x83]), ...fields, packed('payload'), deep)));
    },
  };

  for (const [what, answer] of Object.entries(answers))
    test(`namely ${what}, is told so before the first piece, and another one serves`, async () => {
      misbehave = answer;
      const alone = await ask('demo.work', { device: 'rogue', timeout_ms: 10_000 });
      assert.deepEqual([alone.status, alone.code], [502, 'bad_answer']);
      const { status, attempts, headers } = await ask('demo.work', { prefer_device: 'rogue' });
      assert.deepEqual([status, attempts], [200, 2]);
      assert.equal(headers.get('cocoon-instead-reason'), 'bad_answer');
      misbehave = (stream) => {
        stream.write(framed(chunk));
        answer(stream);
      };
      assert.equal(
        await endOf(await post('demo.talk', { device: 'rogue', timeout_ms: 10_000 })),
        'bad_answer',
      );
    });

  test('namely one without an end, is left when the time is over, and takes no memory until then', async () => {
    let sent = 0;
    const piece = framed(
      encode(capabilityAnswerSchema, { kind: 'chunk', payload: 'x'.repeat(60_000), parts: [] }),
    );
    misbehave = async (stream) => {
      for (; !stream.signal.aborted; sent++) if (!stream.write(piece)) await stream.drained();
    };
    const before = await laptop.residentBytes();
    // A reader that takes its time.
    const response = await post('demo.talk', { device: 'rogue', timeout_ms: 3_000 });
    assert.equal((await ask('demo.work', { device: 'bee' })).status, 200);
    assert.equal(await endOf(response), 'timeout');
    const grown = (await laptop.residentBytes()) - before;
    assert.ok(grown < 100 * 1024 * 1024, `${grown} bytes`);
    assert.ok(sent > 10);
  });

  test('has no effect on what others are asked, nor on its own sessions', async () => {
    for (const name of ['bee', 'cat']) assert.equal((await ask('demo.work', { device: name })).status, 200);
    assert.equal((await ask('demo.work', { device: 'rogue' })).result, 'well');
  });
});

/** MessagePack of a short text. */
function packed(text: string): Uint8Array {
  return concat(new Uint8Array([0xa0 | text.length]), utf8(text));
}

/** With its length before it. */
function framed(bytes: Uint8Array): Uint8Array {
  const head = new Uint8Array(4);
  new DataView(head.buffer).setUint32(0, bytes.length);
  return concat(head, bytes);
}
