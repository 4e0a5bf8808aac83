/** Which token comes next: the likeliest, or one by chance that a seed repeats. */

export interface Sampling {
  /** 0: always the likeliest. */
  readonly temperature: number;
  /** Only the likeliest that make up this share of the probability. */
  readonly topP: number;
  /** Only so many of the likeliest; 0: all. */
  readonly topK: number;
  readonly seed: number;
}

/** @returns chooses a token by the logits of all of them */
export function samplerOf({ temperature, topP, topK, seed }: Sampling): (logits: Float32Array) => number {
  if (temperature <= 0) return likeliest;
  const random = randomFrom(seed);
  return (logits) => {
    const top = candidates(logits, topK > 0 ? topK : logits.length);
    const most = logits[top[0] ?? 0] ?? 0;
    const weights = top.map((id) => Math.exp(((logits[id] ?? 0) - most) / temperature));
    const kept = keep(weights, topP);
    let left = random() * kept.sum;
    for (let i = 0; i < kept.count; i++) {
      left -= weights[i] ?? 0;
      if (left <= 0) return top[i] ?? 0;
    }
    return top[kept.count - 1] ?? 0;
  };
}

export function likeliest(logits: Float32Array): number {
  let best = 0;
  for (let i = 1; i < logits.length; i++) if ((logits[i] ?? 0) > (logits[best] ?? 0)) best = i;
  return best;
}

/** Likeliest first. What is below one in a million of the first cannot matter, and would be most of the sorting. */
function candidates(logits: Float32Array, count: number): number[] {
  const floor = (logits[likeliest(logits)] ?? 0) - 40;
  const ids: number[] = [];
  for (let i = 0; i < logits.length; i++) if ((logits[i] ?? 0) >= floor) ids.push(i);
  return ids.toSorted((a, b) => (logits[b] ?? 0) - (logits[a] ?? 0)).slice(0, count);
}

function keep(weights: readonly number[], topP: number): { count: number; sum: number } {
  const wanted = weights.reduce((sum, weight) => sum + weight, 0) * Math.min(1, Math.max(0, topP));
  let sum = 0;
  let count = 0;
  while (count < weights.length) {
    sum += weights[count] ?? 0;
    count++;
    if (sum >= wanted) break;
  }
  return { count, sum };
}

/** mulberry32: small, and good enough to pick words. */
function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
