/**
 * What a user types to search, as words and groups of them. It never becomes a query by being pasted into one:
 * databases get the words, and the signs between them are ours.
 *
 * All words must be there; `"two words"` next to each other, `-word` must not be there, `or` between two sides means
 * that one is enough.
 */

import { MeshError } from '@cocoon-mesh/protocol';

export interface SearchTerm {
  /** More than one stand next to each other. */
  readonly words: readonly string[];
  readonly excluded: boolean;
}

/** Sides of `or`; each has at least one term that is not excluded. */
export type SearchQuery = readonly (readonly SearchTerm[])[];

const maxTextLength = 1_000;
const maxWords = 32;

/** What both databases take for a word. */
const wordPattern = /[\p{L}\p{N}\p{M}]*[\p{L}\p{N}][\p{L}\p{N}\p{M}]*/gu;
const partPattern = /(?<minus>-?)(?:"(?<phrase>[^"]*)(?:"|$)|(?<word>[^\s"]+))/gu;

/** @throws MeshError bad_filter */
export function parseSearch(text: string): SearchQuery {
  if (text.length > maxTextLength)
    throw new MeshError('bad_filter', `A search has at most ${maxTextLength} characters`);
  const sides: SearchTerm[][] = [[]];
  let count = 0;
  for (const { groups } of text.matchAll(partPattern)) {
    if (groups?.['word']?.toLowerCase() === 'or') {
      sides.push([]);
      continue;
    }
    const words = wordsOf(groups?.['phrase'] ?? groups?.['word'] ?? '');
    if (words.length === 0) continue;
    count += words.length;
    sides.at(-1)?.push({ words, excluded: groups?.['minus'] === '-' });
  }
  if (count > maxWords) throw new MeshError('bad_filter', `A search has at most ${maxWords} words`);
  const query = sides.filter((side) => side.length > 0);
  if (query.length === 0 || query.some((side) => side.every(({ excluded }) => excluded)))
    throw new MeshError('bad_filter', 'A search needs a word that is to be found');
  return query;
}

function wordsOf(text: string): string[] {
  return text.match(wordPattern) ?? [];
}

/** The words of a text as they are compared: without case, accents, and everything between them. */
export function foldedWords(text: string): string {
  return wordsOf(text)
    .map((word) => word.normalize('NFKD').replaceAll(/\p{M}/gu, '').toLowerCase())
    .join(' ');
}
