import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { hasContent } from './chat-content.ts';
import { chunksOf, gatherCompletion } from './chat-gather.ts';
import type { ChatChunk } from './chat-payload.ts';
import { chatCompletionSchema } from './chat-payload.ts';
import { delta, usage } from './model-server.contract.ts';

const chunk = (fields: object, reason: string | null = null): ChatChunk => delta(fields, reason) as ChatChunk;

async function* list(...chunks: ChatChunk[]): AsyncGenerator<ChatChunk> {
  yield* chunks;
}

describe('a completion out of chunks', () => {
  it('joins texts, reasoning and calls of tools', async () => {
    const call = (fields: object): ChatChunk => chunk({ tool_calls: [fields] });
    const whole = await gatherCompletion(
      list(
        chunk({ role: 'assistant', content: '' }),
        chunk({ reasoning_content: 'Hm' }),
        chunk({ reasoning_content: 'm.' }),
        chunk({ content: 'Hel' }),
        chunk({ content: 'lo', refusal: null }),
        call({ index: 1, id: 'b', function: { name: 'two', arguments: '{}' } }),
        call({ index: 0, id: 'a', function: { name: 'one', arguments: '{"x"' } }),
        call({ index: 0, function: { arguments: ':1}' } }),
        chunk({}, 'tool_calls'),
        { ...chunk({}), choices: [], usage },
      ),
      1000,
    );
    assert.deepEqual(chatCompletionSchema.parse(whole), whole);
    assert.deepEqual(whole.choices, [
      {
        index: 0,
        message: {
          role: 'assistant',
          content: 'Hello',
          reasoning_content: 'Hmm.',
          refusal: null,
          tool_calls: [
            { id: 'a', type: 'function', function: { name: 'one', arguments: '{"x":1}' } },
            { id: 'b', type: 'function', function: { name: 'two', arguments: '{}' } },
          ],
        },
        finish_reason: 'tool_calls',
      },
    ]);
    assert.deepEqual(whole.usage, usage);
  });

  it('tells calls without a number apart by their ids', async () => {
    const call = (fields: object): ChatChunk => chunk({ tool_calls: [fields] });
    const { choices } = await gatherCompletion(
      list(
        call({ id: 'a', function: { name: 'one', arguments: '{}' } }),
        call({ id: 'b', function: { name: 'two', arguments: '{' } }),
        call({ function: { arguments: '}' } }),
      ),
      1000,
    );
    assert.deepEqual(
      choices[0]?.message.tool_calls?.map(({ id, function: called }) => [id, called.name, called.arguments]),
      [
        ['a', 'one', '{}'],
        ['b', 'two', '{}'],
      ],
    );
  });

  it('keeps several answers, and what is said about their tokens', async () => {
    const of = (index: number, content: string): ChatChunk => ({
      ...chunk({}),
      choices: [{ index, delta: { content }, logprobs: { content: [{ token: content }] } }],
    });
    const { choices } = await gatherCompletion(list(of(1, 'b'), of(0, 'a'), of(1, 'c')), 1000);
    assert.deepEqual(
      choices.map(({ message, logprobs }) => [message.content, logprobs]),
      [
        ['a', { content: [{ token: 'a' }] }],
        ['bc', { content: [{ token: 'b' }, { token: 'c' }] }],
      ],
    );
  });

  it('is bounded, whatever it is made of', async () => {
    const long = chunk({ content: 'x'.repeat(60) });
    await assert.rejects(gatherCompletion(list(long, long), 100), { code: 'bad_answer' });
    const strange = chunk({ extra: [{ text: 'x'.repeat(60) }] });
    await assert.rejects(gatherCompletion(list(strange, strange), 100), { code: 'bad_answer' });
    await assert.rejects(gatherCompletion(list(), 100), { code: 'bad_answer' });
    const tooMuch = { code: 'bad_answer', message: /longer than/ };
    const call = chunk({ tool_calls: [{ index: 0, function: { name: 'x'.repeat(60) } }] });
    await assert.rejects(gatherCompletion(list(call, call), 100), tooMuch);
    const calls = chunk({ tool_calls: Array.from({ length: 100 }, (_, index) => ({ index })) });
    await assert.rejects(gatherCompletion(list(calls), 100), tooMuch);
    const id = chunk({ tool_calls: [{ index: 0, id: 'x'.repeat(200) }] });
    await assert.rejects(gatherCompletion(list(id), 100), tooMuch);
    const empty = Array.from({ length: 100 }, (_, index) => ({ index, delta: {} }));
    await assert.rejects(gatherCompletion(list({ ...chunk({}), choices: empty }), 100), tooMuch);
    const fields = Object.fromEntries(Array.from({ length: 100 }, (_, i) => [`field${i}`, null]));
    await assert.rejects(gatherCompletion(list(chunk(fields)), 100), tooMuch);
    const [choice] = chunk({}).choices;
    const besides = { ...chunk({}), choices: [{ ...choice, ...fields }] } as ChatChunk;
    await assert.rejects(gatherCompletion(list(besides), 100), tooMuch);
  });

  it('comes apart again as a stream would have had it', async () => {
    const whole = await gatherCompletion(
      list(chunk({ content: 'Hello' }, 'stop'), { ...chunk({}), usage }),
      1000,
    );
    assert.deepEqual(await gatherCompletion(list(...chunksOf(whole)), 1000), whole);
  });
});

describe('the first piece of an answer', () => {
  it('is neither a role nor what keeps the connection alive', () => {
    for (const fields of [
      { role: 'assistant' },
      { role: 'assistant', content: '' },
      {},
      { content: null, tool_calls: [] },
    ])
      assert.equal(hasContent(chunk(fields)), false, JSON.stringify(fields));
    assert.equal(hasContent({ ...chunk({}), choices: [], usage }), false);
    for (const fields of [{ content: ' ' }, { reasoning: 'x' }, { tool_calls: [{ index: 0 }] }])
      assert.equal(hasContent(chunk(fields)), true, JSON.stringify(fields));
    assert.equal(hasContent(chunk({}, 'stop')), true);
  });
});
