import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { delta, usage } from '@cocoon-mesh/ai/model-server.contract.ts';
import type { Content, ProviderCall } from '@cocoon-mesh/capabilities';
import { content, scriptedProvider } from '@cocoon-mesh/capabilities/scripted-provider.contract.ts';
import type { Json } from '@cocoon-mesh/protocol';
import { MeshError, systemClock } from '@cocoon-mesh/protocol';
import type { CommandContext } from '../command-context.ts';
import type { Commands } from '../commands-api.ts';
import { ControlServer } from '../control/server.ts';
import { controlSocketPath } from '../control/socket-path.ts';
import { Devices } from '../feature-devices.contract.ts';
import { Home } from '../home.ts';
import type { Reach } from '../reach.ts';
import { request } from './request.ts';

const devices = new Devices();
let home: Home;
let control: ControlServer;

before(async () => {
  const laptop = await devices.add('laptop');
  const gpu = await devices.add('gpu');
  const { local } = gpu.features.capabilities;
  local.add(scriptedProvider({ version: '1.3.0' }));
  local.add(
    scriptedProvider({
      protocol: 'demo.count',
      handle: async function* ({ payload }) {
        yield content('one');
        if (payload === 'bad') throw new MeshError('text_too_long');
        yield content('two', Uint8Array.of(1));
      },
    }),
  );
  local.add(
    scriptedProvider({
      protocol: 'demo.long',
      handle: async function* () {
        for (let i = 0; i < 5; i++) yield content('x'.repeat(4 * 1024 * 1024));
      },
    }),
  );
  local.add(scriptedProvider({ protocol: 'llm.chat', handle: chat }));
  home = new Home(laptop.folder);
  control = await ControlServer.start({
    path: controlSocketPath(home),
    commands: {} as Commands,
    reach: {} as Reach,
    clock: systemClock,
    features: laptop.features,
  });
});

after(async () => {
  await control.close();
  await devices[Symbol.asyncDispose]();
});

/** Says hello, calls a tool if it has one, and fails in the middle if asked to. */
function chat({ payload }: ProviderCall): AsyncIterable<Content> | Promise<Content> {
  const { stream, tools, user } = payload as { stream?: boolean; tools?: unknown; user?: string };
  const message = { role: 'assistant', content: 'Hello\nworld' };
  if (stream !== true)
    return Promise.resolve(
      content({
        id: 'c',
        object: 'chat.completion',
        created: 1,
        model: 'm',
        choices: [{ index: 0, message, finish_reason: 'stop' }],
        usage,
      }),
    );
  return (async function* () {
    const piece = (fields: object): Content => content(delta(fields) as unknown as Json);
    yield piece({ role: 'assistant', content: 'Hello' });
    if (user === 'bad') throw new MeshError('provider_failed');
    if (tools) yield piece({ tool_calls: [{ index: 0, id: 'c1', function: { name: 'f' } }] });
    yield piece({ content: '\nworld' });
    yield content({ ...delta({}), choices: [], usage });
  })();
}

async function run(json: boolean, flags: object, ...args: readonly string[]) {
  const said: unknown[] = [];
  const notes: string[] = [];
  const output = {
    json,
    terminal: false,
    say: (value: unknown, text: string) => said.push(json ? value : text),
    tell: (text: string) => json || said.push(text),
    piece: (text: string) => json || said.push({ piece: text }),
    note: (text: string) => notes.push(text),
  } as unknown as CommandContext['output'];
  const context = { home, output, environment: {} } as CommandContext;
  await request(context, { timeout: '5s', ...flags }, args);
  return { said, notes };
}

describe('cocoon request', () => {
  test('prints which device answered, what it took, and the result', async () => {
    const { said } = await run(true, {}, 'demo.echo@^1.0.0', '{"a": 1}');
    const [answer] = said as [Record<string, unknown>];
    const { queue_ms: queueMs, total_ms: totalMs, device_id: id, ...rest } = answer;
    assert.deepEqual(rest, {
      device: 'gpu',
      version: '1.3.0',
      attempts: 1,
      instead_of: null,
      result: { a: 1 },
    });
    assert.deepEqual([typeof queueMs, typeof totalMs, id], ['number', 'number', 'peer-of-gpu']);
  });

  test('asks without a payload and without a range', async () => {
    assert.deepEqual((await run(false, {}, 'demo.echo')).said, ['null']);
  });

  test('prints lists of numbers in one line for people, whatever texts look like', async () => {
    const value = { vectors: [[1, -0.5], [2e-9]], text: '[\n 1,\n 2\n]', none: [], mixed: [1, 'a'] };
    const { said } = await run(false, {}, 'demo.echo', JSON.stringify(value));
    const [text] = said as [string];
    assert.deepEqual(JSON.parse(text), value);
    assert.ok(text.includes('[1,-0.5],\n'), text);
    assert.equal(text.split('\n').length, 12);
  });

  test('says for people when another device served than the one they preferred', async () => {
    const { notes } = await run(false, { preferDevice: 'laptop' }, 'demo.echo', '"x"');
    assert.deepEqual(notes, ['laptop did not serve it: laptop does not offer demo.echo.']);
  });

  test('prints the pieces of a stream as they come, or all of them as one result', async () => {
    const { said } = await run(true, { stream: true }, 'demo.count');
    assert.deepEqual(said.slice(0, 2), [{ chunk: 'one' }, { chunk: 'two', parts: ['AQ=='] }]);
    assert.deepEqual((said[2] as { result: unknown }).result, ['one', 'two']);
    const [whole] = (await run(true, {}, 'demo.count')).said as [{ device: string; result: unknown }];
    assert.deepEqual([whole.device, whole.result], ['gpu', ['one', 'two']]);
  });

  test('holds no more of a stream than one answer may be', async () => {
    await assert.rejects(run(true, {}, 'demo.long'), { code: 'message_too_large' });
    const { said } = await run(true, { stream: true, timeout: '20s' }, 'demo.long');
    assert.equal(said.length, 6);
    assert.equal((said[5] as { result: unknown }).result, null);
  });

  test('shows people the words of a chat, whole or as they come, and programs all of it', async () => {
    const asked = '{"messages":[{"role":"user","content":"hi"}]}';
    assert.deepEqual((await run(false, {}, 'llm.chat', asked)).said, ['Hello\nworld']);
    const streamed = await run(false, { stream: true }, 'llm.chat', asked);
    const pieces = [{ piece: 'Hello' }, { piece: '\nworld' }, { piece: '' }];
    assert.deepEqual(streamed.said, [...pieces, '']);
    const called = await run(false, { stream: true }, 'llm.chat', `{"tools":[],${asked.slice(1)}`);
    assert.match(JSON.stringify(called.said[2]), /tool_calls/);
    const { said } = await run(true, { stream: true }, 'llm.chat', asked);
    assert.deepEqual((said[0] as { chunk: unknown }).chunk, delta({ role: 'assistant', content: 'Hello' }));
    assert.equal((said.at(-1) as { device: string }).device, 'gpu');
    await assert.rejects(run(false, { stream: true }, 'llm.chat', `{"user":"bad",${asked.slice(1)}`), {
      code: 'provider_failed',
    });
  });

  test('fails with the code of what went wrong', async () => {
    for (const [args, code] of [
      [['demo.none'], 'capability_not_found'],
      [['demo.echo@^2'], 'capability_not_found'],
      [['demo.echo@latest'], 'bad_payload'],
      [['demo.echo', '{'], 'usage'],
      [['demo.count', '"bad"'], 'text_too_long'],
    ] as const)
      await assert.rejects(run(true, {}, ...args), { code }, args.join(' '));
  });
});
