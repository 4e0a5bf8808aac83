/** Durations and dates as users write them: `90s`, `10m`, `1h`, `7d`; `2027-01-31`. */

import { MeshError } from '@cocoon-mesh/protocol/errors.ts';

const unitSeconds: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86_400, w: 604_800 };

/** Seconds. @throws MeshError usage */
export function parseDuration(text: string): number {
  const [, digits, unit = 's'] = /^(\d{1,9})(s|m|h|d|w)$/.exec(text) ?? [];
  const seconds = Number(digits ?? 0) * (unitSeconds[unit] ?? 0);
  if (seconds === 0)
    throw new MeshError('usage', `${JSON.stringify(text)} is not a duration`, {
      hint: 'Write a number and a unit: 90s, 10m, 1h, 7d or 4w.',
    });
  return seconds;
}

const dayPattern = /^\d{4}-\d\d-\d\d$/;
const momentPattern = /^(\d{4}-\d\d-\d\d)T\d\d:\d\d(:\d\d(\.\d{1,3})?)?(Z|[+-]\d\d:\d\d)$/;

/** Seconds since 1970; a day without a time means its last second, UTC. @throws MeshError usage */
export function parseDate(text: string, nowMs: number): number {
  const seconds = parseMoment(text, 'T23:59:59Z');
  if (seconds * 1000 <= nowMs) throw new MeshError('usage', `The date ${text} has passed`);
  return seconds;
}

/** As `parseDate`, whenever; a day means its beginning. @throws MeshError usage */
export function parseSince(text: string): number {
  return parseMoment(text, 'T00:00:00Z');
}

function parseMoment(text: string, timeOfDay: string): number {
  const day = momentPattern.exec(text)?.[1] ?? (dayPattern.test(text) ? text : null);
  const ms = day !== null && isDay(day) ? Date.parse(day === text ? `${day}${timeOfDay}` : text) : Number.NaN;
  if (!Number.isFinite(ms))
    throw new MeshError('usage', `${JSON.stringify(text)} is not a date`, {
      hint: 'Example: 2027-01-31 or 2027-01-31T12:00:00Z.',
    });
  return Math.floor(ms / 1000);
}

/** `Date` takes the 31st of February for the 3rd of March. */
function isDay(day: string): boolean {
  const ms = Date.parse(`${day}T00:00:00Z`);
  return Number.isFinite(ms) && new Date(ms).toISOString().startsWith(day);
}
