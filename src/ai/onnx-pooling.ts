/** How the vectors of a text's tokens become one, as sentence-transformers does it. */

export const poolingModes = [
  'cls',
  'mean',
  'max',
  'lasttoken',
  'mean_sqrt_len_tokens',
  'weightedmean',
] as const;
export type PoolingMode = (typeof poolingModes)[number];

/** Tokens of one text: `count` vectors of `dimensions` from `start` on in `values`. Padding is not among them. */
export interface TokenVectors {
  readonly values: Float32Array;
  readonly start: number;
  readonly count: number;
  readonly dimensions: number;
}

export function pool(mode: PoolingMode, tokens: TokenVectors, into: Float32Array): void {
  const { values, start, count, dimensions } = tokens;
  const copy = (token: number): void => {
    const from = start + token * dimensions;
    into.set(values.subarray(from, from + dimensions));
  };
  switch (mode) {
    case 'cls':
      return copy(0);
    case 'lasttoken':
      return copy(count - 1);
    case 'max':
      into.fill(-Infinity);
      for (let at = 0; at < count * dimensions; at++) {
        const i = at % dimensions;
        into[i] = Math.max(into[i] ?? 0, values[start + at] ?? 0);
      }
      return;
    case 'mean':
      return sum(tokens, into, () => 1, count);
    case 'mean_sqrt_len_tokens':
      return sum(tokens, into, () => 1, Math.sqrt(count));
    case 'weightedmean':
      return sum(tokens, into, (token) => token + 1, (count * (count + 1)) / 2);
  }
}

function sum(
  { values, start, count, dimensions }: TokenVectors,
  into: Float32Array,
  weight: (token: number) => number,
  divisor: number,
): void {
  into.fill(0);
  for (let token = 0; token < count; token++) {
    const from = start + token * dimensions;
    const by = weight(token) / divisor;
    for (let i = 0; i < dimensions; i++) into[i] = (into[i] ?? 0) + by * (values[from + i] ?? 0);
  }
}

/** To length 1; the zero vector stays. */
export function normalise(vector: Float32Array): void {
  let squares = 0;
  for (const value of vector) squares += value * value;
  const length = Math.sqrt(squares);
  if (length > 0) for (let i = 0; i < vector.length; i++) vector[i] = (vector[i] ?? 0) / length;
}
