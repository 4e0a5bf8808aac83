/** The JSON body of a request to the gateway itself: bounded while it is read, and refused in words of its own. */

import type { IncomingMessage } from 'node:http';
import type { ErrorCode, Schema } from '@cocoon-mesh/protocol';
import { MeshError, concat, decodeJson } from '@cocoon-mesh/protocol';
import * as z from 'zod/mini';

/**
 * @param code what is said when the body does not follow the schema
 * @throws MeshError message_too_large | bad_message (no JSON) | the code
 */
export async function readJsonBody<T>(
  request: IncomingMessage,
  schema: Schema<T>,
  maxBytes: number,
  code: ErrorCode,
): Promise<T> {
  const body = await readBody(request, maxBytes);
  try {
    return decodeJson(schema, body, maxBytes);
  } catch (thrown) {
    throw fieldError(thrown, code) ?? thrown;
  }
}

/** What a schema did not take, naming the field; null: it was something else. */
export function fieldError(thrown: unknown, code: ErrorCode): MeshError | null {
  if (!(thrown instanceof MeshError) || !(thrown.cause instanceof z.core.$ZodError)) return null;
  const [issue] = thrown.cause.issues;
  if (!issue) return null;
  const path = issue.path.map(String).join('.');
  if (issue.code === 'unrecognized_keys') {
    const inside = path === '' ? '' : ` in ${path}`;
    return new MeshError(code, `The field ${JSON.stringify(issue.keys[0])}${inside} is not known`, {
      cause: thrown,
    });
  }
  if (issue.code === 'invalid_value')
    return new MeshError(code, `The field ${path} is not one of ${issue.values.map(String).join(', ')}`, {
      cause: thrown,
    });
  const what = path === '' ? 'It' : `The field ${path}`;
  const bound = boundOf(issue);
  if (bound !== null) return new MeshError(code, `${what} ${bound}`, { cause: thrown });
  const said = issue.message === '' || issue.message === 'Invalid input' ? '' : ` (${issue.message})`;
  return new MeshError(code, `${what} is missing or not as it has to be${said}`, { cause: thrown });
}

/** Null: it is not about a size. */
function boundOf(issue: z.core.$ZodIssue): string | null {
  if (issue.code !== 'too_big' && issue.code !== 'too_small') return null;
  const [most, bound] = issue.code === 'too_big' ? ['at most', issue.maximum] : ['at least', issue.minimum];
  if (issue.origin === 'string') return `has ${most} ${bound} characters`;
  return issue.origin === 'array' ? `has ${most} ${bound} entries` : `is ${most} ${bound}`;
}

async function readBody(request: IncomingMessage, maxBytes: number): Promise<Uint8Array> {
  const announced = Number(request.headers['content-length'] ?? 0);
  if (announced > maxBytes) throw tooLarge(maxBytes);
  const chunks: Uint8Array[] = [];
  let length = 0;
  try {
    for await (const chunk of request as AsyncIterable<Uint8Array>) {
      length += chunk.length;
      if (length > maxBytes) break;
      chunks.push(chunk);
    }
  } catch (cause) {
    throw new MeshError('cancelled', 'The request broke off', { cause });
  }
  if (length > maxBytes) throw tooLarge(maxBytes);
  return concat(...chunks);
}

function tooLarge(maxBytes: number): MeshError {
  return new MeshError('message_too_large', `The body of a request here has at most ${maxBytes} bytes`);
}
