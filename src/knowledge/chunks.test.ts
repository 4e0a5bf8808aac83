import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { chunkText } from './chunks.ts';
import { syntaxOf } from './headings.ts';

function places(text: string, extension = 'md'): string[] {
  const { chunks } = chunkText(text, syntaxOf(extension, text), 'file');
  return chunks.map(({ heading, line }) => `${line} ${heading}`);
}

describe('chunks', () => {
  it('follow the headings of Markdown, with their path and first line', () => {
    const text = '# Guide\n\nHello.\n\n## Install\n\nRun it.\n\n### Linux\n\nToo.\n\nSetext\n------\nEnd.\n';
    assert.deepEqual(places(text), [
      '1 Guide',
      '5 Guide > Install',
      '9 Guide > Install > Linux',
      '13 Guide > Setext',
    ]);
  });

  it('keep headings that follow each other with the words below them', () => {
    assert.deepEqual(places('# A\n\n## B\n\ntext\n'), ['1 A > B']);
    assert.deepEqual(places('# Only a title\n'), ['1 Only a title']);
  });

  it('see no headings in code', () => {
    assert.deepEqual(places('# A\n\n```sh\n# no heading\n```\n~~~\n# none\n~~~\n\n# B\nx\n'), [
      '1 A',
      '10 B',
    ]);
  });

  it('follow the headings of reStructuredText, AsciiDoc and Org', () => {
    assert.deepEqual(places('Title\n=====\n\ntext\n\nPart\n----\n\nmore\n', 'rst'), [
      '1 Title',
      '6 Title > Part',
    ]);
    assert.deepEqual(places('= Title\n\ntext\n\n== Part\n\nmore\n', 'adoc'), ['1 Title', '5 Title > Part']);
    assert.deepEqual(places('* Title\ntext\n** Part\nmore\n', 'org'), ['1 Title', '3 Title > Part']);
  });

  it('take a text without a telling name for Markdown only if it looks so', () => {
    assert.equal(syntaxOf('', '# Title\n\n- one\n'), 'markdown');
    assert.equal(syntaxOf('', '#!/bin/sh\n# comment\n- x\n'), 'plain');
    assert.equal(syntaxOf('py', '# comment\n- x\n'), 'plain');
  });

  it('are titled by the front matter, the first heading or the file', () => {
    const title = (text: string) => chunkText(text, 'markdown', 'file').title;
    assert.equal(title('---\ntitle: "Mine"\n---\n# Other\n'), 'Mine');
    assert.equal(title('# The [link](x) and `code`\n'), 'The link and code');
    assert.equal(title('words\n'), 'file');
  });

  it('end at paragraphs, and overlap within a section', () => {
    const paragraph = (n: number) => `Paragraph ${n} ${'says something. '.repeat(30)}`.trim();
    const text = Array.from({ length: 8 }, (_, n) => paragraph(n)).join('\n\n');
    const { chunks } = chunkText(text, 'plain', 'file');
    assert.ok(chunks.length >= 3);
    for (const { text } of chunks) assert.match(text, /(something\.)$/);
    for (let i = 1; i < chunks.length; i++)
      assert.ok(
        chunks[i - 1]?.text.endsWith((chunks[i]?.text ?? '').split(/\n\n/)[0] ?? '?'),
        `overlap ${i}`,
      );
  });

  it('are bounded for a single line of two megabytes and for a text of headings alone', () => {
    for (const text of ['word '.repeat(400_000), 'x'.repeat(2_000_000), '# a\nb\n'.repeat(300_000)]) {
      const { chunks } = chunkText(text, 'markdown', 'file');
      assert.ok(chunks.length < 6_000, `${chunks.length} chunks`);
      assert.ok(chunks.every(({ text }) => text.length <= 1200));
    }
  });

  it('hold every word of any text, on the line that they say', () => {
    const line = fc.oneof(
      fc.string({ unit: 'grapheme', maxLength: 300 }),
      fc.constantFrom('', '# Heading', '## Sub', '```', '---', '===', '  indented'),
      fc.nat(1e6).map((n) => Array.from({ length: 300 }, (_, i) => `w${n}-${i}`).join(' ')),
    );
    fc.assert(
      fc.property(fc.array(line, { maxLength: 40 }), (lines) => {
        const text = lines.join('\n').replace(/\r\n?/g, '\n');
        const { chunks } = chunkText(text, 'markdown', 'file');
        let at = 0;
        let from = -1;
        for (const chunk of chunks) {
          const line = text
            .split('\n')
            .slice(0, chunk.line - 1)
            .join('\n').length;
          from = text.indexOf(chunk.text, Math.max(line, from + 1));
          assert.equal(text.slice(0, from).split('\n').length, chunk.line);
          assert.equal(text.slice(at, Math.max(at, from)).trim(), '', 'leaves nothing out');
          at = Math.max(at, from + chunk.text.length);
        }
        assert.equal(text.slice(at).trim(), '');
      }),
      { numRuns: 200 },
    );
  });
});
