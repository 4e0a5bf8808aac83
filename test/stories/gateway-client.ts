/** Requests to a gateway as a local program makes them: node:http with the token, nothing buffered. */

import { once } from 'node:events';
import { request as httpRequest } from 'node:http';
import type { ClientRequest, IncomingMessage, OutgoingHttpHeaders, RequestOptions } from 'node:http';
import type { CocoonProcess } from './cocoon-process.ts';

export interface GatewayRequest {
  readonly method?: string;
  readonly headers?: OutgoingHttpHeaders | readonly string[];
  readonly options?: RequestOptions;
}

/** A request to `/proxy/<path>`, not ended yet. */
export async function open(
  cocoon: CocoonProcess,
  path: string,
  { method = 'GET', headers = {}, options = {} }: GatewayRequest = {},
): Promise<ClientRequest> {
  const { hostname, port } = new URL(cocoon.gateway);
  const authorization = `Bearer ${await cocoon.gatewayToken()}`;
  return httpRequest({
    hostname,
    port,
    path: `/proxy/${path}`,
    method,
    headers: Array.isArray(headers)
      ? ['Host', `${hostname}:${port}`, 'Authorization', authorization, ...headers]
      : { authorization, ...(headers as OutgoingHttpHeaders) },
    agent: false,
    maxHeaderSize: 256 * 1024,
    ...options,
  });
}

/** Ends the request and resolves with the head of the answer. */
export async function answer(request: ClientRequest): Promise<IncomingMessage> {
  request.end();
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  return response;
}

export async function get(
  cocoon: CocoonProcess,
  path: string,
  request?: GatewayRequest,
): Promise<IncomingMessage> {
  return answer(await open(cocoon, path, request));
}

export async function bodyOf(response: IncomingMessage): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const part of response) parts.push(part as Buffer);
  return Buffer.concat(parts);
}

export async function textOf(response: IncomingMessage): Promise<string> {
  return (await bodyOf(response)).toString();
}
