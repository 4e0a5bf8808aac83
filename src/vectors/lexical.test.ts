import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { lexicalRecipe, lexicalSpace, lexicalVector } from './lexical.ts';
import { stopWords } from './stop-words.ts';
import { packVector, unpackVector } from './vector-bytes.ts';

interface SampleVector {
  readonly text: string;
  /** Base64 of packed little-endian float32. */
  readonly vector: string;
}

const samples = JSON.parse(
  readFileSync(new URL('./lexical-vectors.json', import.meta.url), 'utf8'),
) as readonly SampleVector[];

function likeness(a: string, b: string): number {
  const other = lexicalVector(b);
  return lexicalVector(a).reduce((sum, value, i) => sum + value * (other[i] ?? 0), 0);
}

function assertClose(actual: ArrayLike<number>, expected: ArrayLike<number>, what: string): void {
  assert.equal(actual.length, expected.length);
  for (let i = 0; i < expected.length; i++)
    assert.ok(Math.abs((actual[i] ?? NaN) - (expected[i] ?? NaN)) <= 1e-6, `dimension ${i} of ${what}`);
}

describe('the lexical space', () => {
  it('gives the vectors that were written down', () => {
    assert.ok(samples.length >= 8);
    for (const { text, vector } of samples)
      assertClose(lexicalVector(text), unpackVector(Buffer.from(vector, 'base64')), JSON.stringify(text));
  });

  it('has the fingerprint of its recipe', () => {
    assert.equal(createHash('sha256').update(lexicalRecipe).digest('hex'), lexicalSpace.fingerprint);
  });

  it('is what its description says, for any text', () => {
    const word = fc.constantFrom(
      'the',
      'of',
      'revoke',
      'Revocations',
      'ÄRGER',
      'x',
      '中文字',
      '1998',
      'camelCase',
      'ﬁne',
    );
    const text = fc.oneof(
      fc.string({ unit: 'grapheme' }),
      fc.array(word).map((words) => words.join(' ')),
    );
    fc.assert(
      fc.property(text, (some) => assertClose(lexicalVector(some), asDescribed(some), JSON.stringify(some))),
      { numRuns: 300 },
    );
  });

  it('has vectors of length one, and the zero vector for a text without words', () => {
    assert.ok(Math.abs(likeness('one two three', 'one two three') - 1) < 1e-6);
    assert.ok(lexicalVector(' …!').every((value) => value === 0));
  });

  it('puts typos, other forms and other accents nearer than other words', () => {
    const question = 'revoking a stolen device';
    const far = likeness(question, 'the weather in the mountains');
    for (const near of [
      'revokking a stollen devise',
      'how stolen devices are revoked',
      'Révoking a Stolen DEVICE',
    ])
      assert.ok(likeness(question, near) > far + 0.2, near);
  });

  it('reads a text of a million words within its limits', () => {
    const long = 'word '.repeat(4096);
    assertClose(lexicalVector(`${long} ${'other '.repeat(1_000_000)}`), lexicalVector(long), 'a long text');
  });

  it('packs vectors little-endian', () => {
    assert.deepEqual([...packVector(Float32Array.of(1, -2))], [0, 0, 128, 63, 0, 0, 0, 192]);
    assert.deepEqual([...unpackVector(packVector(Float32Array.of(1, -2)))], [1, -2]);
  });
});

/** Written from the description alone, with nothing of the code. */
function asDescribed(text: string): number[] {
  const words = (
    text
      .normalize('NFKD')
      .replace(/\p{M}/gu, '')
      .replace(/(\p{Ll})(?=\p{Lu})/gu, '$1 ')
      .toLowerCase()
      .match(/\p{L}+|\p{N}+/gu) ?? []
  ).slice(0, 4096);
  const given: [string, number][] = words.flatMap((w, n): [string, number][] => {
    const v = Math.min(1.6, 0.55 + 0.15 * Array.from(w).length) * (stopWords.has(w) ? 0.08 : 1);
    const marked = `<${w}>`;
    const runs = [3, 4].flatMap((length) =>
      Array.from({ length: Math.max(0, marked.length - length + 1) }, (_, i) => marked.slice(i, i + length)),
    );
    const before = words[n - 1];
    return [
      [`w${w}`, v],
      [`s${stemmed(w)}`, v],
      ...(stopWords.has(w)
        ? []
        : runs.map((run): [string, number] => [`g${run}`, (0.9 * v) / Math.sqrt(runs.length)])),
      ...(before === undefined || (stopWords.has(before) && stopWords.has(w))
        ? []
        : [[`b${before} ${w}`, 0.35 * v] satisfies [string, number]]),
    ];
  });
  const features = new Map<bigint, number>();
  for (const [name, amount] of given) features.set(hashed(name), (features.get(hashed(name)) ?? 0) + amount);
  const vector = Array.from({ length: 512 }, () => 0);
  for (const [h, t] of features) {
    const i = Number(h % 512n);
    vector[i] = (vector[i] ?? 0) + (h >> 31n === 1n ? -1 : 1) * Math.sqrt(t);
  }
  const length = Math.hypot(...vector);
  return vector.map((value) => (length === 0 ? 0 : value / length));
}

function stemmed(w: string): string {
  if (w.length <= 4) return w.endsWith('s') && w.length > 1 ? w.slice(0, -1) : w;
  const without = (word: string, endings: string): string => {
    const longest = endings
      .split(' ')
      .toSorted((a, b) => b.length - a.length)
      .find((ending) => word.endsWith(ending));
    return longest === undefined ? word : word.slice(0, -longest.length);
  };
  const first = without(w, 'ational ization fulness ousness iveness');
  return (
    without(first, 'ingly edly ments ment ness tions tion sions sion ings ing ers er ies ied ed es ly s') || w
  );
}

function hashed(name: string): bigint {
  const bits = (1n << 32n) - 1n;
  let h = 0x811c9dc5n;
  for (let i = 0; i < name.length; i++) h = ((h ^ BigInt(name.charCodeAt(i))) * 0x01000193n) & bits;
  h ^= h >> 16n;
  h = (h * 0x85ebca6bn) & bits;
  h ^= h >> 13n;
  h = (h * 0xc2b2ae35n) & bits;
  return h ^ (h >> 16n);
}
