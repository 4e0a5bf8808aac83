/** Errors as clients of OpenAI's API read them: they branch on the status, `type` and `code`, and obey `Retry-After`. */

import type { ServerResponse } from 'node:http';
import type { MeshError } from '@cocoon-mesh/protocol';

export interface OpenAiError {
  readonly error: {
    readonly message: string;
    readonly type: string;
    readonly param: string | null;
    readonly code: string;
  };
}

/** Names that clients know; all others are ours. */
const knownCodes: Readonly<Record<string, string>> = {
  unauthorized: 'invalid_api_key',
  text_too_long: 'context_length_exceeded',
  rate_limited: 'rate_limit_exceeded',
};

/** @param code in place of the one that the error has, where clients know another */
export function openAiError(error: MeshError, code?: string): OpenAiError {
  const hint = error.hint === '' ? '' : ` ${error.hint}`;
  return {
    error: {
      message: `${error.message}.${hint}`,
      type: typeOf(error.status),
      param: code === 'model_not_found' ? 'model' : null,
      code: code ?? knownCodes[error.code] ?? error.code,
    },
  };
}

function typeOf(status: number): string {
  if (status === 401) return 'authentication_error';
  if (status === 403) return 'permission_error';
  if (status === 429) return 'rate_limit_error';
  return status < 500 ? 'invalid_request_error' : 'server_error';
}

/** For whoever answers before anything was said. Also of the gateway itself, below `/v1/`: no token, a bad head. */
export function answerOpenAiError(response: ServerResponse, error: MeshError, code?: string): void {
  answerErrorBody(response, error, openAiError(error, code));
}

export function answerErrorBody(response: ServerResponse, error: MeshError, value: unknown): void {
  const body = JSON.stringify(value);
  response.writeHead(error.status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    ...retryHeaders(error),
  });
  response.end(body);
}

function retryHeaders({ status, retry, retryAfterMs }: MeshError): Record<string, string> {
  if (retryAfterMs === null && !(status === 503 && retry) && status !== 429) return {};
  const waitMs = retryAfterMs ?? 1_000;
  return {
    'retry-after': String(Math.max(1, Math.ceil(waitMs / 1000))),
    // OpenAI's own clients obey this one before the other.
    'retry-after-ms': String(waitMs),
  };
}
