import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MeshError } from '@cocoon-mesh/protocol';
import { Output, facts, table } from './output.ts';

const evil = 'a\u001b[2J\u009b2J\u202eb';

test('what another device wrote steers no terminal, whichever way it is said', (t) => {
  const written: string[] = [];
  const take = (text: unknown): boolean => written.push(String(text)) > 0;
  t.mock.method(process.stdout, 'write', take);
  t.mock.method(process.stderr, 'write', take);
  for (const output of [new Output(false), new Output(true)]) {
    output.say({ evil }, evil);
    output.tell(evil);
    output.piece(evil);
    output.note(evil);
    output.error(new MeshError('internal', evil, { hint: evil }));
  }
  t.mock.restoreAll();
  assert.equal(written.length, 8);
  for (const text of written) assert.doesNotMatch(text.replaceAll('\n', ''), /[\p{Cc}\p{Cf}]/u);
});

test('an error is one line and one of advice, whatever is in it', (t) => {
  const write = t.mock.method(process.stderr, 'write', () => true);
  new Output(false).error(new MeshError('internal', 'no\nok    all is well', { hint: 'a\nb' }));
  const text = write.mock.calls[0]?.arguments[0];
  t.mock.restoreAll();
  assert.equal(text, 'cocoon: no?ok    all is well. (internal)\n  a?b\n');
});

test('a cell and a fact are one line, whatever is in them', () => {
  assert.equal(table(['A', 'B'], [['x\ny', evil]]), 'A    B\nx?y  a?[2J?2J?b');
  assert.equal(facts([['A', 'x\ny']]), 'A  x?y');
});
