/** What comes in, held to the schemas of the wire before anything is stored, and refused in words that help. */

import type { ErrorCode } from '@cocoon-mesh/protocol';
import { MeshError } from '@cocoon-mesh/protocol';

/** As far as it is needed here; zod's issues have it. */
interface Issue {
  readonly code?: string | undefined;
  readonly path: readonly PropertyKey[];
  readonly message: string;
  readonly maximum?: number | bigint;
  readonly minimum?: number | bigint;
  readonly keys?: readonly string[];
  readonly values?: readonly unknown[];
  readonly expected?: string;
  readonly divisor?: number;
}

interface Schema<T> {
  safeParse(
    value: unknown,
  ):
    | { readonly success: true; readonly data: T }
    | { readonly success: false; readonly error: { readonly issues: readonly Issue[] } };
}

/** Of a field's name that somebody else chose. */
const maxShownLength = 64;

/** The value, typed. Its content is never part of the message. @throws MeshError `code` */
export function checked<T>(code: ErrorCode, what: string, schema: Schema<T>, value: unknown): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const path = issue?.path.map(String).join('.') ?? '';
  const subject = path === '' ? what : `The field ${path} of ${lowerFirst(what)}`;
  throw new MeshError(code, `${subject} ${issue ? reason(issue) : 'is not as it should be'}`);
}

function reason(issue: Issue): string {
  switch (issue.code) {
    case 'too_big':
      return `is too large: at most ${issue.maximum}`;
    case 'too_small':
      return `is too small: at least ${issue.minimum}`;
    case 'unrecognized_keys':
      return `has no field ${shown(issue.keys?.[0] ?? '')}`;
    case 'invalid_value':
      return `is none of ${issue.values?.map(String).join(', ')}`;
    case 'invalid_type':
      return `is not of type ${issue.expected}`;
    case 'invalid_format':
      return 'has characters that are not allowed there, or is not in the form that is needed';
    case 'custom':
      return `is ${issue.message}`;
    default:
      return 'is not as it should be';
  }
}

function shown(name: string): string {
  return JSON.stringify(name.slice(0, maxShownLength).toWellFormed());
}

function lowerFirst(text: string): string {
  return text.slice(0, 1).toLowerCase() + text.slice(1);
}
