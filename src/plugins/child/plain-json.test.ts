import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { plainJson } from './plain-json.ts';

const what = 'The answer of demo.work';

describe('what a plugin answers', () => {
  it('is sent as it is where it is JSON', () => {
    const value = { text: 'a', list: [1, null, true] };
    assert.equal(plainJson(value, what), value);
    assert.equal(plainJson(undefined, what), null);
  });

  it('is what JSON.stringify makes of it where it is not', () => {
    class Point {
      x = 1;
      #y = 2;
      get sum(): number {
        return this.x + this.#y;
      }
    }
    const value = { at: new Date(0), left: undefined, points: [new Point(), undefined], none: () => 1 };
    assert.deepEqual(plainJson(value, what), {
      at: '1970-01-01T00:00:00.000Z',
      points: [{ x: 1 }, null],
    });
    assert.equal(
      plainJson(() => 1, what),
      null,
    );
  });

  it('that cannot become JSON is a bad answer, and says why', () => {
    const circle: { self?: object } = {};
    circle.self = circle;
    const bad = { code: 'bad_answer', message: /^The answer of demo\.work is no JSON: .*(circular|BigInt)/ };
    assert.throws(() => plainJson(circle, what), bad);
    assert.throws(() => plainJson({ big: 1n }, what), bad);
    assert.throws(() => plainJson('\ud800', what), { code: 'bad_answer', message: /not Unicode/ });
  });
});
