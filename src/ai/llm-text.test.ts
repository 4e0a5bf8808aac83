import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { likeliest, samplerOf } from './llm-sampler.ts';
import { StopText, TokenText } from './llm-text.ts';
import type { WrittenPiece } from './llm-tool-calls.ts';
import { ToolCallReader } from './llm-tool-calls.ts';

/** A token is a byte. */
const bytes = (ids: number[]): string => new TextDecoder().decode(Uint8Array.from(ids));

describe('text out of tokens', () => {
  it('comes in whole characters, however they are cut', () => {
    const text = new TokenText(bytes);
    const said = [...new TextEncoder().encode('aé€😀b')].map((id) => text.push(id));
    assert.deepEqual(
      said.filter((piece) => piece !== ''),
      ['a', 'é', '€', '😀', 'b'],
    );
    assert.equal(text.rest(), '');
  });

  it('does not wait for ever for a character that never ends', () => {
    const text = new TokenText(bytes);
    const said = [0xf0, 0xf0, 0xf0, 0xf0, 0x61].map((id) => text.push(id));
    assert.match(said.join(''), /a$/);
    text.push(0xe2);
    assert.equal(text.rest(), '\uFFFD');
  });

  it('keeps the spaces that a tokenizer leaves out at the beginning', () => {
    const words = ['Hello', 'my', 'world'];
    const text = new TokenText((ids) => ids.map((id) => words[id] ?? '').join(' '));
    assert.deepEqual(
      [0, 1, 2].map((id) => text.push(id)),
      ['Hello', ' my', ' world'],
    );
  });
});

describe('a text that ends the answer', () => {
  it('is found across pieces, and nothing of it is said', () => {
    const stop = new StopText(['END', '\n\n']);
    const said = ['some text E', 'N', 'C EN', 'D and more'].map((piece) => stop.push(piece));
    assert.equal(said.map(({ text }) => text).join(''), 'some text ENC ');
    assert.deepEqual(
      said.map(({ stopped }) => stopped),
      [false, false, false, true],
    );
  });

  it('holds nothing back when there is none', () => {
    assert.deepEqual(new StopText([]).push('text'), { text: 'text', stopped: false });
    const stop = new StopText(['END']);
    assert.equal(stop.push('E').text + stop.rest(), 'E');
  });
});

describe('calls of tools in what a model writes', () => {
  const read = (...texts: string[]): WrittenPiece[] => {
    const reader = new ToolCallReader();
    return [...texts.flatMap((text) => reader.push(text)), ...reader.rest()];
  };
  const textOf = (pieces: WrittenPiece[]): string =>
    pieces
      .map((piece) => (piece.kind === 'text' ? piece.text : `[${piece.name} ${piece.arguments}]`))
      .join('');

  it('are found wherever the pieces are cut', () => {
    const written =
      'Let me see.<tool_call>\n{"name": "a", "arguments": {"x": 1}}\n</tool_call> Then <tool_call>{"name":"b"}</tool_call>';
    const expected = 'Let me see.[a {"x":1}] Then [b {}]';
    assert.equal(textOf(read(written)), expected);
    assert.equal(textOf(read(...Array.from(written))), expected);
  });

  it('stay text when they are none', () => {
    for (const text of [
      'a < b <tool',
      '<tool_call>{"name": </tool_call> and on',
      '<tool_call>[1]</tool_call>',
      '<tool_call>{"name": "a"}',
    ])
      assert.equal(textOf(read(...Array.from(text))), text);
  });
});

describe('the next token', () => {
  const logits = Float32Array.of(1, 3, 2, -5);

  it('is the likeliest without a temperature', () => {
    assert.equal(likeliest(logits), 1);
    assert.equal(samplerOf({ temperature: 0, topP: 1, topK: 0, seed: 1 })(logits), 1);
  });

  it('is drawn as often as its probability says, and the same again for the same seed', () => {
    const draw = (options: object): number[] => {
      const choose = samplerOf({ temperature: 1, topP: 1, topK: 0, seed: 7, ...options });
      return Array.from({ length: 4000 }, () => choose(logits));
    };
    const share = (ids: number[], id: number): number =>
      ids.filter((each) => each === id).length / ids.length;
    const all = draw({});
    assert.deepEqual(draw({}), all);
    // softmax of 1, 3, 2, −5
    for (const [id, expected] of [
      [0, 0.09],
      [1, 0.665],
      [2, 0.245],
    ] as const)
      assert.ok(Math.abs(share(all, id) - expected) < 0.03, `${id}: ${share(all, id)}`);
    assert.deepEqual(new Set(draw({ topK: 2 })), new Set([1, 2]));
    assert.deepEqual(new Set(draw({ topP: 0.5 })), new Set([1]));
    assert.ok(share(draw({ temperature: 0.2 }), 1) > 0.99);
  });
});
