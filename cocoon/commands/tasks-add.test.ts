import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chosenHost, readJson } from './tasks-add.ts';

test('a device is chosen by its number or its name; nothing and yes take the first', () => {
  const devices = ['gpu', 'server'];
  for (const answer of ['', 'y', 'yes', '1', 'gpu']) assert.equal(chosenHost(answer, devices), 'gpu', answer);
  for (const answer of ['2', 'server']) assert.equal(chosenHost(answer, devices), 'server', answer);
  for (const answer of ['n', 'no', '0', '3', 'laptop'])
    assert.equal(chosenHost(answer, devices), null, answer);
});

test('JSON on the command line is a text, a file, or refused in words', async () => {
  assert.deepEqual(await readJson('{"a":[1]}'), { a: [1] });
  await assert.rejects(readJson('hello'), { code: 'usage' });
  await assert.rejects(readJson('@/nonexistent/file.json'), { code: 'usage' });
});
