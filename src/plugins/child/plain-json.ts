/** What a plugin made, as the JSON that is sent: dates as text, fields without a value left out, as authors expect. */

import type { Json } from '@cocoon-mesh/protocol';
import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import { jsonOfDepth } from '@cocoon-mesh/protocol/json.ts';
import { limits } from '@cocoon-mesh/protocol/limits.ts';

const sendable = jsonOfDepth(limits.maxCapabilityJsonDepth);

/** @param what it is, for the error. @throws MeshError bad_answer, or the code that is given */
export function plainJson(
  value: unknown,
  what: string,
  code: 'bad_answer' | 'bad_payload' = 'bad_answer',
): Json {
  const own = sendable.safeParse(value ?? null);
  if (own.success) return own.data;
  let made: unknown;
  try {
    made = JSON.parse(JSON.stringify(value) ?? 'null');
  } catch (cause) {
    const why = cause instanceof Error ? (cause.message.split('\n')[0] ?? '') : String(cause);
    throw new MeshError(code, `${what} is no JSON: ${why}`, { cause });
  }
  const result = sendable.safeParse(made);
  if (result.success) return result.data;
  throw new MeshError(
    code,
    `${what} cannot be sent: it has more than ${limits.maxCapabilityJsonDepth} levels or ${limits.maxCapabilityJsonValues} values, or text that is not Unicode`,
  );
}
