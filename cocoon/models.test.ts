import assert from 'node:assert/strict';
import { test } from 'node:test';
import { mayHaveKey } from './models.ts';

test('what embeds learns the key of the chats at their server only', () => {
  for (const [llmProvider, embeddingModel, may] of [
    ['https://api.example.com/v1', 'https://api.example.com/v1#small', true],
    ['https://api.example.com/v1', 'https://api.example.com:8443/v1', false],
    ['https://api.example.com/v1', 'http://api.example.com/v1', false],
    ['https://api.example.com/v1', 'https://other.example.com/v1', false],
    // Nothing else could be meant.
    [null, 'https://api.example.com/v1', true],
    ['ollama', 'https://api.example.com/v1', true],
    ['/models/llama', 'https://api.example.com/v1', true],
  ] as const)
    assert.equal(mayHaveKey({ llmProvider, embeddingModel }), may, `${llmProvider} ${embeddingModel}`);
});
