/**
 * Cuts a text into chunks: by heading, then by paragraph, line, sentence and word, each about as long as one screen.
 * Chunks of one section overlap a little, so that a sentence at the cut is whole in one of them.
 */

import type { Heading, Syntax } from './headings.ts';
import { findHeadings, frontMatterOf } from './headings.ts';

export interface Chunk {
  /** Headings above it, from the largest, joined with ` > `. */
  readonly heading: string;
  /** Of its first character; the first line is 1. */
  readonly line: number;
  readonly text: string;
}

export interface ChunkedText {
  readonly title: string;
  readonly chunks: readonly Chunk[];
}

const maxChunkLength = 1200;
const overlapLength = 150;
/** A text that is nothing but headings would come to one for each; then small sections share one. */
const maxSections = 4000;
const headingSeparator = ' > ';
const maxHeadingPathLength = 400;

interface Section {
  readonly heading: string;
  readonly start: number;
  readonly end: number;
}

/** @param fallbackTitle for a text without a heading */
export function chunkText(text: string, syntax: Syntax, fallbackTitle: string): ChunkedText {
  const headings = findHeadings(text, syntax);
  const lines = new LineCounter(text);
  const chunks: Chunk[] = [];
  for (const { heading, start, end } of sectionsOf(text, headings))
    for (const [from, to] of cut(text, start, end))
      chunks.push({ heading, line: lines.at(from), text: text.slice(from, to) });
  const title = frontMatterTitle(text, syntax) ?? headings[0]?.text ?? '';
  return { title: title === '' ? fallbackTitle : title, chunks };
}

/** Headings that follow each other without words between stay in one section. */
function sectionsOf(text: string, headings: readonly Heading[]): Section[] {
  const least = Math.floor(text.length / maxSections);
  const sections: Section[] = [];
  const path: Heading[] = [];
  let start = 0;
  let bodyStart = 0;
  let name = '';
  for (const heading of headings) {
    const hasWords = /\S/.test(text.slice(bodyStart, heading.start));
    if (hasWords && heading.start - start >= least) {
      sections.push({ heading: name, start, end: heading.start });
      ({ start } = heading);
    }
    while ((path.at(-1)?.level ?? 0) >= heading.level) path.pop();
    path.push(heading);
    if (!hasWords || start === heading.start)
      name = path
        .map(({ text }) => text)
        .join(headingSeparator)
        .slice(0, maxHeadingPathLength);
    bodyStart = heading.end;
  }
  sections.push({ heading: name, start, end: text.length });
  return sections;
}

function* cut(text: string, start: number, end: number): Generator<readonly [number, number]> {
  let from = skipBlank(text, start, end);
  while (from < end) {
    const to = end - from <= maxChunkLength ? end : cutBefore(text, from, from + maxChunkLength);
    yield [from, trimEnd(text, from, to)];
    const next = skipBlank(text, to, end);
    if (next >= end) return;
    from = overlapStart(text, from, next);
  }
}

/** Sentences end before these; nothing else says where paragraphs, lines and words do. */
const breaks = [/\n[ \t]*\n/g, /\n/g, /[.!?。！？]["')\]]?\s/g, /\s/g];

/** The best place in the last part of what fits; further back, chunks would become small. */
function cutBefore(text: string, from: number, limit: number): number {
  const earliest = from + Math.floor(maxChunkLength / 2);
  const last = text.slice(earliest, limit);
  for (const kind of breaks) {
    const places = [...last.matchAll(kind)];
    const place = places.at(-1);
    if (place) return earliest + place.index + place[0].length;
  }
  return wholeCharacter(text, limit);
}

/** Some words of what came before, from the start of a word on; never back to where the chunk before started. */
function overlapStart(text: string, from: number, next: number): number {
  const earliest = Math.max(from + Math.floor(maxChunkLength / 4), next - overlapLength);
  const tail = text.slice(earliest, next);
  const line = tail.indexOf('\n');
  if (line >= 0 && /\S/.test(tail.slice(line))) return skipBlank(text, earliest + line, next);
  const space = tail.search(/\s\S/);
  return space < 0 ? next : earliest + space + 1;
}

function skipBlank(text: string, from: number, end: number): number {
  const found = text.slice(from, end).search(/\S/);
  if (found < 0) return end;
  // The indent of a first line belongs to it.
  return from + text.slice(from, from + found).lastIndexOf('\n') + 1;
}

function trimEnd(text: string, from: number, to: number): number {
  return from + text.slice(from, to).trimEnd().length;
}

function wholeCharacter(text: string, at: number): number {
  const code = text.charCodeAt(at);
  return code >= 0xdc00 && code <= 0xdfff ? at - 1 : at;
}

function frontMatterTitle(text: string, syntax: Syntax): string | null {
  return /^title:[ \t]*["']?(.{1,200}?)["']?[ \t]*$/m.exec(frontMatterOf(text, syntax))?.[1] ?? null;
}

/** Places are asked for in rising order, apart from the few that overlap. */
class LineCounter {
  readonly #text: string;
  #at = 0;
  #line = 1;

  constructor(text: string) {
    this.#text = text;
  }

  at(place: number): number {
    if (place < this.#at) {
      for (let i = place; i < this.#at; i++) if (this.#text.charCodeAt(i) === 10) this.#line--;
    } else {
      for (let i = this.#at; i < place; i++) if (this.#text.charCodeAt(i) === 10) this.#line++;
    }
    this.#at = place;
    return this.#line;
  }
}
