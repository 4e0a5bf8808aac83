import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { ChatChunk } from './chat-payload.ts';
import { delta } from './model-server.contract.ts';
import { WholeCharacters } from './whole-characters.ts';

const chunk = (fields: object): ChatChunk => delta(fields) as ChatChunk;

function joined(...chunks: object[]): unknown[] {
  const characters = new WholeCharacters();
  return chunks.map((fields) => characters.join(chunk(fields)).choices[0]?.delta);
}

describe('a character that was cut in two', () => {
  it('comes whole with its second half', () => {
    assert.deepEqual(joined({ content: 'a\ud83d' }, { content: '\ude00b' }, { content: 'c' }), [
      { content: 'a' },
      { content: '\u{1f600}b' },
      { content: 'c' },
    ]);
  });

  it('waits in the field in which it stood, past pieces of others', () => {
    assert.deepEqual(joined({ content: '\ud83d' }, { reasoning: 'why' }, { content: '\ude00' }), [
      { content: '' },
      { reasoning: 'why' },
      { content: '\u{1f600}' },
    ]);
  });

  it('is none when the other half does not come', () => {
    assert.deepEqual(joined({ content: 'a\ud83d' }, { content: 'b' }, { content: '\ude00' }), [
      { content: 'a' },
      { content: '\ufffdb' },
      { content: '\ufffd' },
    ]);
  });
});
