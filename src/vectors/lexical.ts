/**
 * The vector space `cocoon-lexical-v1`: texts are near each other when they share words, parts of words and pairs of
 * words. It knows no meaning: "car" and "automobile" are strangers. It needs no model and gives the same vectors on
 * every device. Whoever computes it in another runtime must come to the same values within 1e-6:
 *
 * 1. **Words.** Normalise to NFKD, remove every `\p{M}`, put a space between a `\p{Ll}` and a `\p{Lu}` that follows
 *    it, make lower case (root locale), take the matches of `\p{L}+|\p{N}+` in order, the first 4,096 of them.
 * 2. **Weight of a word** w: `v = min(1.6, 0.55 + 0.15 · code points of w)`, times 0.08 if it is a stop word
 *    (`stop-words.ts`).
 * 3. **Features of a word**, each with what it adds:
 *    `"w" + w` adds v; `"s" + stem(w)` adds v; if w is no stop word, every run of 3 and of 4 UTF-16 code units of
 *    `"<" + w + ">"` as `"g" + run` adds `0.9 · v / √(number of runs)`, repeated runs each time; unless it is the
 *    first word, or both are stop words, `"b" + previous word + " " + w` adds `0.35 · v`.
 *    `stem(w)`: of at most 4 UTF-16 code units, without one `s` at the end. Longer ones lose, once each and in this
 *    order, the longest of `ational ization fulness ousness iveness`, then the longest of `ingly edly ments ment
 *    ness tions tion sions sion ings ing ers er ies ied ed es ly s`; if nothing is left, w itself.
 * 4. **Hash** of a feature: 32 bits over its UTF-16 code units c: start with 0x811c9dc5, `h = (h xor c) · 0x01000193`
 *    for each; then `h ^= h >>> 16; h *= 0x85ebca6b; h ^= h >>> 13; h *= 0xc2b2ae35; h ^= h >>> 16`, unsigned,
 *    modulo 2³². Features of the same hash are one feature.
 * 5. **Vector.** What a feature was given in sum is `t`. It adds `√t` to dimension `h mod 512`, or takes it away if
 *    bit 31 of h is set. At last every dimension is divided by the Euclidean length; a text without words has the
 *    zero vector. Sums are made in 64-bit floats, the result is rounded to 32.
 *
 * `lexical-vectors.json` has texts with their vectors.
 */

import { FeatureSums } from './feature-sums.ts';
import { stopWords } from './stop-words.ts';

export const lexicalSpace = {
  name: 'cocoon-lexical-v1',
  /** SHA-256 of `lexicalRecipe`. Vectors of two spaces are comparable exactly when these are equal. */
  fingerprint: '050bf51d1b0b8ab808b523272ca10f26f2a9415d07d20e3e32db03f1a6e802a0',
  dimensions: 512,
  semantic: false,
} as const;

/** The rules above in one line; it changes when they do. */
export const lexicalRecipe =
  'cocoon-lexical-v1 dims=512 words=nfkd,-M,camel,lower,L+|N+,4096 weight=min(1.6,.55+.15n) stop=.08 ' +
  'w=1 s=1 g=3-4:.9/sqrt b=.35 hash=fnv1a32+fmix32 sign=bit31 tf=sqrt norm=l2';

/** Later ones do not count. */
export const maxLexicalWords = 4096;
const stopWeight = 0.08;
const runWeight = 0.9;
const pairWeight = 0.35;
/** Words come again and again; a dictionary of a tree of documents has some ten thousand. */
const maxKnownWords = 16_384;

interface WordFeatures {
  readonly hashes: Uint32Array;
  readonly adds: Float64Array;
}

const knownWords = new Map<string, WordFeatures>();

/** 512 values of length 1 together, or all zero for a text without words. */
export function lexicalVector(text: string): Float32Array {
  return lexicalVectorOf(lexicalWords(text));
}

/** @param words of `lexicalWords` */
export function lexicalVectorOf(words: readonly string[]): Float32Array {
  return normalised(lexicalFeatures(words));
}

/** Hashes with their sums `t`: all that rule 5 needs. */
export function lexicalFeatures(words: readonly string[]): FeatureSums {
  const sums = new FeatureSums();
  const counts = new Map<string, number>();
  let previous: string | null = null;
  for (const word of words) {
    counts.set(word, (counts.get(word) ?? 0) + 1);
    if (previous !== null && !(stopWords.has(previous) && stopWords.has(word)))
      sums.add(hash(`b${previous} ${word}`), pairWeight * weightOf(word));
    previous = word;
  }
  for (const [word, count] of counts) {
    const { hashes, adds } = featuresOf(word);
    for (let i = 0; i < hashes.length; i++) sums.add(hashes[i] ?? 0, count * (adds[i] ?? 0));
  }
  return sums;
}

/** @param most words after that many are left out */
export function lexicalWords(text: string, most = maxLexicalWords): readonly string[] {
  const plain = text
    .normalize('NFKD')
    .replace(/\p{M}+/gu, '')
    .replace(/(\p{Ll})(?=\p{Lu})/gu, '$1 ')
    .toLowerCase();
  return (plain.match(/\p{L}+|\p{N}+/gu) ?? []).slice(0, most);
}

export function stem(word: string): string {
  if (word.length <= 4) return word.replace(/s$/, '') || word;
  const shorter = word
    .replace(/(ational|ization|fulness|ousness|iveness)$/, '')
    .replace(/(ingly|edly|ments?|ness|tions?|sions?|ings?|ers?|ies|ied|ed|es|ly|s)$/, '');
  return shorter || word;
}

function featuresOf(word: string): WordFeatures {
  const known = knownWords.get(word);
  if (known) return known;
  const weight = weightOf(word);
  const names = [`w${word}`, `s${stem(word)}`];
  const runs = stopWords.has(word) ? [] : runsOf(`<${word}>`);
  const adds = new Float64Array(names.length + runs.length).fill(
    (runWeight * weight) / Math.sqrt(runs.length),
  );
  adds.fill(weight, 0, names.length);
  const made = { hashes: Uint32Array.from([...names, ...runs], hash), adds };
  if (knownWords.size >= maxKnownWords) knownWords.clear();
  // The longest are no words, and keep no memory.
  if (word.length <= 64) knownWords.set(word, made);
  return made;
}

function weightOf(word: string): number {
  const codePoints = word.length - (word.match(/[\ud800-\udbff]/g)?.length ?? 0);
  return Math.min(1.6, 0.55 + 0.15 * codePoints) * (stopWords.has(word) ? stopWeight : 1);
}

function runsOf(word: string): string[] {
  const runs: string[] = [];
  for (const length of [3, 4])
    for (let i = 0; i + length <= word.length; i++) runs.push(`g${word.slice(i, i + length)}`);
  return runs;
}

function hash(feature: string): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < feature.length; i++) h = Math.imul(h ^ feature.charCodeAt(i), 0x01000193);
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

function normalised(features: FeatureSums): Float32Array {
  const { dimensions } = lexicalSpace;
  const sums = new Float64Array(dimensions);
  features.each((key, sum) => {
    const at = key % dimensions;
    sums[at] = (sums[at] ?? 0) + (key >>> 31 === 1 ? -Math.sqrt(sum) : Math.sqrt(sum));
  });
  let squares = 0;
  for (const value of sums) squares += value * value;
  const length = squares === 0 ? 1 : Math.sqrt(squares);
  const vector = new Float32Array(dimensions);
  for (let i = 0; i < dimensions; i++) vector[i] = (sums[i] ?? 0) / length;
  return vector;
}
