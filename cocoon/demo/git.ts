/** A repository to clone: this checkout, served by git's own HTTP backend over CGI (RFC 3875). */

import { execFile, spawn } from 'node:child_process';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { createServer } from 'node:http';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
const checkout = resolve(import.meta.dirname, '../..');
const maxHeadBytes = 16 * 1024;

/** Null where there is no git, or no repository. */
export async function gitServer(folder: string): Promise<Server | null> {
  try {
    await run('git', ['clone', '--quiet', '--bare', checkout, join(folder, 'cocoon.git')]);
  } catch {
    return null;
  }
  return createServer((request, response) => serve(folder, request, response));
}

function serve(folder: string, request: IncomingMessage, response: ServerResponse): void {
  const [path = '', query = ''] = (request.url ?? '').split('?');
  const backend = spawn('git', ['http-backend'], {
    stdio: ['pipe', 'pipe', 'ignore'],
    env: {
      PATH: process.env['PATH'],
      GIT_PROJECT_ROOT: folder,
      GIT_HTTP_EXPORT_ALL: '1',
      PATH_INFO: path,
      QUERY_STRING: query,
      REQUEST_METHOD: request.method,
      CONTENT_TYPE: request.headers['content-type'] ?? '',
      HTTP_CONTENT_ENCODING: request.headers['content-encoding'] ?? '',
      GIT_PROTOCOL: String(request.headers['git-protocol'] ?? ''),
    },
  });
  response.on('close', () => backend.kill());
  backend.on('error', () => response.destroy());
  backend.stdin.on('error', () => undefined);
  request.pipe(backend.stdin);
  passAnswer(backend.stdout, response);
}

/** The head of a CGI answer is a few fields, with the status among them. */
function passAnswer(answer: NodeJS.ReadableStream, response: ServerResponse): void {
  let head = Buffer.alloc(0);
  const readHead = (chunk: Buffer): void => {
    head = Buffer.concat([head, chunk]);
    const end = head.indexOf('\r\n\r\n');
    if (end < 0) {
      if (head.length > maxHeadBytes) response.destroy();
      return;
    }
    answer.off('data', readHead);
    const fields = head.toString('latin1', 0, end).split('\r\n').map(fieldOf);
    const status = fields.find(([name]) => name.toLowerCase() === 'status')?.[1] ?? '200';
    response.writeHead(
      Number(status.slice(0, 3)),
      fields.filter(([name]) => name.toLowerCase() !== 'status').flat(),
    );
    response.write(head.subarray(end + 4));
    answer.pipe(response);
  };
  answer.on('data', readHead);
}

function fieldOf(line: string): [string, string] {
  const at = line.indexOf(':');
  return [line.slice(0, at), line.slice(at + 1).trim()];
}
