/** The part of a chunk that says most about a question, in one line. */

import { lexicalWords, stem, stopWords } from '@cocoon-mesh/vectors';

const snippetLength = 240;
const leadLength = 60;

interface Place {
  readonly start: number;
  readonly end: number;
  readonly word: string;
  readonly weight: number;
}

export function snippetOf(text: string, question: string): string {
  const places = placesOf(text, question);
  const best = places.reduce<{ start: number; weight: number }>(
    (best, { start }) => {
      const weight = weightFrom(places, start);
      return weight > best.weight ? { start, weight } : best;
    },
    { start: 0, weight: 0 },
  );
  const from = wordStart(text, best.start - leadLength);
  const to = wordEnd(text, from + snippetLength);
  const line = text.slice(from, to).replace(/\s+/g, ' ').trim();
  return `${from > 0 ? '… ' : ''}${line}${to < text.length ? ' …' : ''}`;
}

function placesOf(text: string, question: string): readonly Place[] {
  const asked = new Map(lexicalWords(question).map((word) => [stem(word), stopWords.has(word) ? 0.1 : 1]));
  const last = lexicalWords(question).at(-1) ?? '';
  const places: Place[] = [];
  for (const match of text.matchAll(/[\p{L}\p{N}\p{M}]+/gu)) {
    const [found] = match;
    for (const word of lexicalWords(found)) {
      const weight = asked.get(stem(word)) ?? (last.length > 1 && word.startsWith(last) ? 0.5 : 0);
      if (weight > 0)
        places.push({ start: match.index, end: match.index + found.length, word: stem(word), weight });
    }
  }
  return places;
}

/** Words that come again count once. */
function weightFrom(places: readonly Place[], start: number): number {
  const seen = new Map<string, number>();
  for (const place of places)
    if (place.start >= start && place.end <= start + snippetLength - leadLength)
      seen.set(place.word, place.weight);
  return [...seen.values()].reduce((sum, weight) => sum + weight, 0);
}

function wordStart(text: string, at: number): number {
  if (at <= 0) return 0;
  const space = text.slice(at, at + 40).search(/\s\S/);
  return space < 0 ? at : at + space + 1;
}

function wordEnd(text: string, at: number): number {
  if (at >= text.length) return text.length;
  const space = text.lastIndexOf(' ', at);
  return space > at - 40 ? space : at;
}
