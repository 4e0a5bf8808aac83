/** Times as others see them: ISO 8601 in UTC with milliseconds, as `Date.prototype.toISOString` writes them. */

const dayMs = 86_400_000;
const two = Array.from({ length: 60 }, (_, n) => String(n).padStart(2, '0'));
const three = Array.from({ length: 1000 }, (_, n) => String(n).padStart(3, '0'));

let lastDay = 0;
let lastDate = '1970-01-01T';

/**
 * A page of tasks has a hundred of these, mostly of one day, and `toISOString` would take as long for them as SQLite
 * for the page.
 * @param ms since 1970, whole
 * @throws RangeError for what no calendar has
 */
export function isoTime(ms: number): string {
  const day = Math.floor(ms / dayMs);
  if (day !== lastDay) {
    lastDate = new Date(day * dayMs).toISOString().slice(0, -13);
    lastDay = day;
  }
  const inDay = ms - day * dayMs;
  const seconds = Math.floor(inDay / 1000);
  const minutes = Math.floor(seconds / 60);
  const hours = Math.floor(minutes / 60);
  return `${lastDate}${two[hours]}:${two[minutes - hours * 60]}:${two[seconds - minutes * 60]}.${three[inDay - seconds * 1000]}Z`;
}
