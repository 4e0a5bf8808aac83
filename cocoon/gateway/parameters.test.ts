import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Parameters } from './parameters.ts';

function parameters(text: string): Parameters {
  return new Parameters(new URLSearchParams(text), ['n', 'f', 'l'], 'bad_filter');
}

const refused = { code: 'bad_filter' };

describe('a parameter', () => {
  test('that is not known is refused, wherever it stands', () => {
    for (const text of ['x=1', 'n=1&x', 'N=1', '=1', '__proto__=1'])
      assert.throws(() => parameters(text), refused, text);
  });

  test('of which there is one does not stand there twice', () => {
    assert.equal(parameters('').one('n'), null);
    assert.equal(parameters('n=').one('n'), '');
    assert.throws(() => parameters('n=1&n=1').one('n'), refused);
    assert.throws(() => parameters('f=1&f=0').flag('f'), refused);
  });

  test('that is a number is digits, within its limits', () => {
    const limits = { from: 1, to: 20 };
    assert.deepEqual(
      ['n=1', 'n=020', ''].map((text) => parameters(text).number('n', limits)),
      [1, 20, null],
    );
    for (const text of ['0', '21', '', '-1', '%2B1', '1.5', '1e1', '0x10', ' 1', '1 ', '1,2', 'NaN', '٣'])
      assert.throws(() => parameters(`n=${text}`).number('n', limits), refused, text);
    const all = { from: 0, to: Number.MAX_SAFE_INTEGER };
    assert.throws(() => parameters('n=9007199254740993').number('n', all), refused, 'no longer exact');
  });

  test('that is a flag is on or off', () => {
    for (const [text, on] of [
      ['', false],
      ['f=0', false],
      ['f=false', false],
      ['f=1', true],
      ['f=true', true],
    ] as const)
      assert.equal(parameters(text).flag('f'), on, text);
    for (const text of ['f=', 'f=yes', 'f=2', 'f=TRUE'])
      assert.throws(() => parameters(text).flag('f'), refused, text);
  });

  test('that is a list may be written in one or in several', () => {
    assert.deepEqual(parameters('l=a,b&l=c&l=,').list('l'), ['a', 'b', 'c']);
    assert.deepEqual(parameters('l=a,b&l=c').all('l'), ['a,b', 'c']);
  });
});
