import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { ModelRequest } from './chat-backend.ts';
import { promptTokens, roomFor, textTokens } from './ollama-context.ts';

const request = (content: string, fields: object = {}): ModelRequest => ({
  model: 'm',
  messages: [{ role: 'user', content }],
  ...fields,
});

describe('how many tokens a text may have', () => {
  it('is guessed too high rather than too low, for what tokenizers make of such texts', () => {
    // Roughly what byte-pair tokenizers with 100,000 and more entries make of them.
    for (const [text, tokens] of [
      ['The quick brown fox jumps over the lazy dog.', 10],
      ['const answer = await fetch(`${url}/v1/models`, { signal });', 16],
      ['1234567890'.repeat(10), 34],
      ['Überraschenderweise heißt es „Öffnungszeiten“.', 17],
      ['今日はとても良い天気ですね。', 12],
      ['aGVsbG8gd29ybGQsIHRoaXMgaXMgYmFzZTY0IHRleHQ=', 30],
      ['😀😃😄😁', 8],
    ] as const)
      assert.ok(textTokens(text) >= tokens, `${text}: ${textTokens(text)} for ${tokens}`);
    assert.ok(textTokens('The quick brown fox jumps over the lazy dog. '.repeat(100)) < 2500);
  });

  it('counts everything that is sent along', () => {
    const bare = promptTokens(request('x'));
    const tools = [
      { type: 'function' as const, function: { name: 'weather', description: 'word '.repeat(100) } },
    ];
    assert.ok(promptTokens(request('x', { tools })) > bare + 100);
    const image = [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'data:' } }] }];
    assert.ok(promptTokens({ model: 'm', messages: image } as ModelRequest) > 4000);
  });
});

describe('the room that is asked for', () => {
  it('holds prompt and answer, within what the model takes', () => {
    assert.deepEqual(roomFor(request('x', { max_tokens: 10 }), 131_072, 0), { numCtx: 8192, numPredict: 10 });
    const most = roomFor(request('x', { max_tokens: 1_000_000 }), 16_000, 0);
    assert.equal(most?.numCtx, 16_000);
    assert.ok((most?.numPredict ?? 0) + promptTokens(request('x')) === 16_000);
    assert.equal(roomFor(request('word '.repeat(10_000)), 8192, 0), null);
    assert.equal(roomFor(request('word '.repeat(10_000)), null, 0)?.numCtx, 32_768);
  });

  it('does not shrink again, for that loads the model anew', () => {
    assert.equal(roomFor(request('x'), 131_072, 65_536)?.numCtx, 65_536);
    assert.equal(roomFor(request('x'), 16_000, 65_536)?.numCtx, 16_000);
  });
});
