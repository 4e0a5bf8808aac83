import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { MeshError } from './errors.ts';
import { problemBody, problemText } from './problem.ts';

const error = new MeshError('bad_message', 'Größe', { hint: 'Try again.' });
const body = { type: 'about:blank', title: 'Größe', status: 400, code: 'bad_message', hint: 'Try again.' };

describe('a problem', () => {
  test('has the code, the sentence, the status and what to do, and what its writer adds', () => {
    assert.deepEqual(JSON.parse(problemBody(error)), body);
    const { hint: _, ...bare } = body;
    const silent = new MeshError('bad_message', 'Größe', { hint: '' });
    assert.deepEqual(JSON.parse(problemBody(silent, { retry_after_ms: 5 })), { ...bare, retry_after_ms: 5 });
  });

  test('as a whole answer ends the connection and has its length in bytes', () => {
    const [head = '', text = ''] = problemText(error, { 'Cache-Control': 'no-store' }).split('\r\n\r\n');
    assert.deepEqual(JSON.parse(text), body);
    assert.deepEqual(head.split('\r\n'), [
      'HTTP/1.1 400 Refused',
      'Cache-Control: no-store',
      'Connection: close',
      'Content-Type: application/problem+json',
      `Content-Length: ${Buffer.byteLength(text)}`,
    ]);
  });
});
