import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { utf8 } from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { OutputLines } from './output-lines.ts';

function makeLines() {
  const clock = new SteppedClock();
  const lines: string[] = [];
  return { clock, lines, output: new OutputLines(clock, (line) => lines.push(line)) };
}

describe('what a plugin prints', () => {
  it('becomes lines, however it comes', () => {
    const { lines, output } = makeLines();
    for (const piece of ['on', 'e\ntwo\n\nthr', 'ee']) output.add(utf8(piece));
    output.end();
    assert.deepEqual(lines, ['one', 'two', 'three']);
  });

  it('is cut where a line is too long, without holding the rest of it', () => {
    const { lines, output } = makeLines();
    for (let index = 0; index < 100; index++) output.add(utf8('x'.repeat(1000)));
    output.add(utf8('\nnext\n'));
    assert.deepEqual(
      lines.map((line) => line.length),
      [1024, 4],
    );
  });

  it('may be no text at all', () => {
    const { lines, output } = makeLines();
    output.add(Uint8Array.from([0xff, 0xfe, 0x00, 0x0a]));
    assert.equal(lines.length, 1);
  });

  it('is left out when it is too much, which is said', () => {
    const { clock, lines, output } = makeLines();
    for (let index = 0; index < 250; index++) output.add(utf8(`${index}\n`));
    assert.equal(lines.length, 100);
    clock.step(10_000);
    output.add(utf8('later\n'));
    assert.deepEqual(lines.slice(100), ['(150 more lines were left out)', 'later']);
  });
});
