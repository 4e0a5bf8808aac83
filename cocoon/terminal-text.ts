/** What others wrote, shown on a terminal: it may have colours and lines, and must not steer anything else. */

/** One line of a table: no control, no direction and no line marks. */
export function printableLine(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, '?');
}

/** A log: colours, tabs and line ends stay. */
export function printableText(text: string): string {
  // oxlint-disable-next-line no-control-regex
  return text.replace(/\u001b\[[0-9;]*m|[\n\r\t]|[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (found) =>
    found.length > 1 || '\n\r\t'.includes(found) ? found : '?',
  );
}

/** The same JSON, with nothing in its texts that a terminal would take for more than a text. */
export function printableJson(value: unknown, indent?: number): string {
  return JSON.stringify(value, null, indent).replace(/[\u007f-\u009f\p{Cf}\p{Zl}\p{Zp}]/gu, (found) =>
    Array.from({ length: found.length }, (_, i) => escaped(found.charCodeAt(i))).join(''),
  );
}

function escaped(unit: number): string {
  return `\\u${unit.toString(16).padStart(4, '0')}`;
}
