/**
 * Text from the bytes of a file, whatever its name says. UTF-8, UTF-16 with its mark, and old 8-bit texts as
 * windows-1252; anything else is no text. Lines end with `\n` afterwards.
 */

/** Formats that begin like text and are none. */
const notText = ['%PDF-', '%!PS', '{\\rtf'];
/** Of 8-bit text at most: what has more control characters is a program or data. */
const maxControlShare = 0.002;
/** Tab, line feed, form feed, carriage return, and the escape of a terminal's colours. */
const usualControls = new Set([9, 10, 12, 13, 27]);
const replacement = '\ufffd';

/** Null for what is no text. */
export function decodeText(bytes: Uint8Array): string | null {
  const text = decode(bytes);
  // SQLite's own functions end a text at NUL.
  if (text === null || text.includes('\0') || notText.some((start) => text.startsWith(start))) return null;
  return text.replace(/\r\n?/g, '\n');
}

function decode(bytes: Uint8Array): string | null {
  const [first, second] = bytes;
  if (first === 0xff && second === 0xfe) return new TextDecoder('utf-16le').decode(bytes);
  if (first === 0xfe && second === 0xff) return new TextDecoder('utf-16be').decode(bytes);
  if (bytes.includes(0)) return null;
  const text = new TextDecoder().decode(bytes);
  const broken = count(text, replacement);
  if (broken === 0) return hasFewControls(text) ? text : null;
  // A UTF-8 text that was damaged in places has more letters outside ASCII than breaks, or very few breaks.
  const whole = [...text.matchAll(/[^\0-\x7f\ufffd]/gu)].length;
  const decoded =
    whole > broken || broken * 1000 < text.length ? text : new TextDecoder('windows-1252').decode(bytes);
  return hasFewControls(decoded) && broken * 3 < bytes.length ? decoded : null;
}

function hasFewControls(text: string): boolean {
  const most = Math.max(1, text.length * maxControlShare);
  let controls = 0;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if ((code < 32 && !usualControls.has(code)) || code === 127) controls++;
  }
  return controls <= most;
}

function count(text: string, part: string): number {
  return text.split(part).length - 1;
}
