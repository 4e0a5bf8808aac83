/**
 * A question of the user as a query of FTS5. Only letters and digits of it come through, each word in quotes, so that
 * none of its operators is one for SQLite.
 */

import { stopWords } from '@cocoon-mesh/vectors';

const maxQueryWords = 32;
const maxWordLength = 64;
/** A shorter beginning would be one of too many words. */
const minPrefixLength = 2;

/** Null when there is nothing to look for. Words are alternatives; the rank says how many of them fit. */
export function fullTextQuery(question: string): string | null {
  const words = question.match(/[\p{L}\p{N}][\p{L}\p{N}\p{M}]*/gu) ?? [];
  const telling = words.filter((word) => !stopWords.has(word.toLowerCase()));
  const used = [...new Set(telling.length > 0 ? telling : words)].slice(0, maxQueryWords);
  const last = words.at(-1);
  const terms = used.map((word) => {
    const quoted = `"${word.slice(0, maxWordLength)}"`;
    return word === last && word.length >= minPrefixLength ? `${quoted}*` : quoted;
  });
  return terms.length === 0 ? null : terms.join(' OR ');
}
