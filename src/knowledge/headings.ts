/** Which lines of a text are headings, by the syntax that its file's name or its content says. */

export type Syntax = 'markdown' | 'asciidoc' | 'org' | 'rst' | 'plain';

export interface Heading {
  /** 1 for the largest. */
  readonly level: number;
  readonly text: string;
  /** Where its first line starts, and where the text behind it does. */
  readonly start: number;
  readonly end: number;
}

const syntaxes: Readonly<Record<string, Syntax>> = {
  md: 'markdown',
  markdown: 'markdown',
  mdx: 'markdown',
  adoc: 'asciidoc',
  asciidoc: 'asciidoc',
  org: 'org',
  rst: 'rst',
};

/** @param extension in lower case, without its dot; '' for none */
export function syntaxOf(extension: string, text: string): Syntax {
  const known = syntaxes[extension];
  if (known !== undefined) return known;
  return (extension === '' || extension === 'txt') && looksLikeMarkdown(text) ? 'markdown' : 'plain';
}

/** A comment sign at the start of lines makes no Markdown: something else of it has to be there, too. */
function looksLikeMarkdown(text: string): boolean {
  const start = text.slice(0, 8192);
  return !start.startsWith('#!') && /^#{1,6} \S/m.test(start) && /^```|^[-*] \S|\]\(|`[^`\n]+`/m.test(start);
}

/** The block of settings between two lines of `---` at the start; '' for none. */
export function frontMatterOf(text: string, syntax: Syntax): string {
  if (syntax !== 'markdown' || !text.startsWith('---\n')) return '';
  return /^---\n[\s\S]{0,4096}?\n---[ \t]*(\n|$)/.exec(text)?.[0] ?? '';
}

const maxHeadingLength = 200;
/** A text of two megabytes with more of them is no text. */
const maxHeadings = 20_000;
const mayBeSign = /^ {0,3}[^\p{L}\p{N}\s]/u;
const marks: Readonly<Record<Exclude<Syntax, 'rst' | 'plain'>, RegExp>> = {
  markdown: /^ {0,3}(#{1,6})[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*$/,
  asciidoc: /^(={1,6})[ \t]+(.*?)(?:[ \t]+=+)?[ \t]*$/,
  org: /^(\*{1,6})[ \t]+(.*?)[ \t]*$/,
};

export function findHeadings(text: string, syntax: Syntax): readonly Heading[] {
  if (syntax === 'plain') return [];
  const found: Heading[] = [];
  const underlines: string[] = [];
  let fence: string | null = null;
  let previous = { text: '', start: 0 };
  for (let start = frontMatterOf(text, syntax).length; start < text.length && found.length < maxHeadings;) {
    const newline = text.indexOf('\n', start);
    const end = newline < 0 ? text.length : newline + 1;
    const line = text.slice(start, newline < 0 ? text.length : newline);
    const here = { text: line, start };
    // What is long or begins like a sentence is no heading, and no work for expressions.
    if (line.length <= maxHeadingLength && mayBeSign.test(line)) {
      const sign = fenceSign(line, syntax);
      if (fence === null && sign !== null) fence = sign;
      else if (fence !== null) fence = sign !== null && closes(fence, sign) ? null : fence;
      else {
        const heading = marked(line, syntax) ?? underlined(line, previous.text, syntax, underlines);
        if (heading) found.push({ ...heading, start: heading.isUnderlined ? previous.start : start, end });
      }
    }
    previous = here;
    start = end;
  }
  return found.map(({ level, text, start, end }) => ({ level, text, start, end }));
}

function fenceSign(line: string, syntax: Syntax): string | null {
  if (syntax === 'markdown') return /^ {0,3}(`{3,}|~{3,})/.exec(line)?.[1] ?? null;
  if (syntax === 'asciidoc') return /^(-{4,}|\.{4,})$/.exec(line)?.[1] ?? null;
  if (syntax === 'org') return /^#\+(begin|end)_/i.test(line) ? '#+' : null;
  return null;
}

function closes(fence: string, sign: string): boolean {
  return sign.startsWith(fence.slice(0, 1)) && sign.length >= fence.length;
}

interface FoundHeading {
  readonly level: number;
  readonly text: string;
  readonly isUnderlined: boolean;
}

function marked(line: string, syntax: Syntax): FoundHeading | null {
  if (syntax === 'rst' || syntax === 'plain') return null;
  const [, signs = '', words = ''] = marks[syntax].exec(line) ?? [];
  return signs === '' || words === ''
    ? null
    : { level: signs.length, text: plain(words), isUnderlined: false };
}

/** Markdown's `===` and `---`; reStructuredText ranks its signs by where they come first. */
function underlined(line: string, above: string, syntax: Syntax, signs: string[]): FoundHeading | null {
  if (above.trim() === '' || above.length > maxHeadingLength || /^[ \t]/.test(above)) return null;
  if (syntax === 'markdown') {
    if (!/^(={2,}|-{2,})[ \t]*$/.test(line) || /^([-*>|#]|\d+\.)/.test(above)) return null;
    return { level: line.startsWith('=') ? 1 : 2, text: plain(above), isUnderlined: true };
  }
  if (syntax !== 'rst' || !/^([=\-~^"'`#*+.:_])\1{2,}[ \t]*$/.test(line) || line.length < above.trim().length)
    return null;
  if (/^([=\-~^"'`#*+.:_])\1{2,}$/.test(above)) return null;
  const sign = line.slice(0, 1);
  if (!signs.includes(sign)) signs.push(sign);
  return { level: Math.min(6, signs.indexOf(sign) + 1), text: plain(above), isUnderlined: true };
}

/** Without the marks of links, code and emphasis. */
function plain(words: string): string {
  return words
    .replace(/!?\[([^\]]*)\]\([^)]*\)/g, '$1')
    .replace(/<[^>]*>/g, '')
    .replace(/[`*]+/g, '')
    .trim();
}
