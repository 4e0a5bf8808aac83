/**
 * `cocoon fetch`: one HTTP request through the mesh, bodies streamed both ways. Like curl it ends with 0 for any
 * answer of the service, and with `--fail` with 1 from status 400 on; failures of the mesh have their own codes.
 */

import type { WriteStream } from 'node:fs';
import { open } from 'node:fs/promises';
import type { ClientRequest, IncomingMessage } from 'node:http';
import type { Readable } from 'node:stream';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { Command } from 'commander';
import { systemClock } from '@cocoon-mesh/protocol/clock.ts';
import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import type { CommandContext } from '../command-context.ts';
import { collect } from '../command-context.ts';
import { ControlClient } from '../control/client.ts';
import type { Output } from '../output.ts';

interface Options {
  readonly request?: string;
  readonly header?: readonly string[];
  readonly data?: string;
  readonly output?: string;
  readonly fail?: boolean;
}

const progressEveryMs = 200;

export function describe(command: Command): void {
  command
    .description(
      'One HTTP request to a service of a device. Ends with 0 whatever status the service answers; see --fail.',
    )
    .argument('<device/service/path>')
    .option('-X, --request <method>', 'the method (default: GET, with -d POST)')
    .option("-H, --header <'name: value'>", 'a header field; may stand several times', collect)
    .option('-d, --data <data|@file|@->', 'the body: as it is, from a file, or from stdin')
    .option('-o, --output <file>', 'write the answer there')
    .option('--fail', 'end with 1 when the status is 400 or more');
}

export async function fetchCommand(
  { home, output }: CommandContext,
  options: Options,
  [target = '']: readonly string[],
): Promise<void> {
  const path = proxyPath(target);
  const client = new ControlClient(home);
  const body = await bodyOf(options.data);
  const method = methodOf(options.request ?? (body === null ? 'GET' : 'POST'));
  const request = await client.open(path, { method, headers: headerFields(options.header ?? [], body) });
  // What goes wrong with the body is seen in the answer, or in that there is none.
  sendBody(request, body).catch(() => undefined);
  const response = await client.answer(request);
  await receive(response, options, output);
  // A service may answer before the body is out; then the answer counts, and nobody waits for the rest.
  if (!request.writableFinished) request.destroy();
  if (options.fail && (response.statusCode ?? 0) >= 400) process.exitCode = 1;
}

/** @throws MeshError usage | method_not_allowed */
function methodOf(method: string): string {
  if (/^(connect|trace)$/i.test(method)) throw new MeshError('method_not_allowed');
  if (!/^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/.test(method))
    throw new MeshError('usage', `${JSON.stringify(method)} is not a method`);
  return method;
}

/** `server/files/a b` → `/proxy/server/files/a%20b`: what is no character of a path is escaped, the rest stays. */
function proxyPath(target: string): string {
  const [device = '', service = ''] = target.split('/');
  if (device === '' || service === '')
    throw new MeshError('usage', 'Name a device, a service and a path', {
      hint: 'Example: cocoon fetch server/grafana/api/health',
    });
  const escaped = Array.from(target, (char) =>
    /[\x21-\x7e]/.test(char) ? char : encodeURIComponent(char),
  ).join('');
  return `/proxy/${escaped.split('#')[0]}`;
}

type Body =
  { readonly kind: 'bytes'; readonly bytes: Buffer } | { readonly kind: 'stream'; readonly stream: Readable };

/** A file is opened before anything is sent. @throws MeshError usage */
async function bodyOf(data: string | undefined): Promise<Body | null> {
  if (data === undefined) return null;
  if (data === '@-') return { kind: 'stream', stream: process.stdin };
  if (data.startsWith('@')) return { kind: 'stream', stream: await fileStream(data.slice(1)) };
  return { kind: 'bytes', bytes: Buffer.from(data) };
}

function headerFields(given: readonly string[], body: Body | null): string[] {
  const fields = given.flatMap((text) => {
    const [, name, value = ''] = /^([!#$%&'*+\-.^_`|~0-9A-Za-z]+):\s*(.*)$/.exec(text) ?? [];
    if (name === undefined)
      throw new MeshError('usage', `${JSON.stringify(text)} is not a header field`, {
        hint: "Write -H 'Name: value'.",
      });
    return [name, value];
  });
  const has = (name: string): boolean =>
    fields.some((field, i) => i % 2 === 0 && field.toLowerCase() === name);
  if (body?.kind === 'bytes' && !has('content-length'))
    fields.push('Content-Length', String(body.bytes.length));
  if (body?.kind === 'stream' && !has('content-length')) fields.push('Transfer-Encoding', 'chunked');
  return fields;
}

async function sendBody(request: ClientRequest, body: Body | null): Promise<void> {
  if (body?.kind !== 'stream') {
    request.end(body?.bytes);
    return;
  }
  await pipeline(body.stream, request);
}

async function fileStream(path: string): Promise<Readable> {
  try {
    return (await open(path)).createReadStream();
  } catch (cause) {
    throw new MeshError('usage', `The file ${path} cannot be read`, { cause });
  }
}

async function receive(response: IncomingMessage, options: Options, output: Output): Promise<void> {
  const { statusCode: status = 0, statusMessage = '' } = response;
  try {
    const file = options.output === undefined ? null : await fileSink(options.output);
    if (!output.json && status >= 400) output.note(`HTTP ${status} ${statusMessage}`);
    if (file) await pipeline(response, progress(response), file);
    else if (!output.json) await pipeline(response, process.stdout, { end: false });
    if (output.json) output.say(await documentOf(response, options, file?.bytesWritten ?? 0), '');
  } catch (cause) {
    response.destroy();
    if (cause instanceof MeshError) throw cause;
    throw new MeshError('bad_gateway', 'The answer broke off before its end', { cause });
  }
}

async function fileSink(path: string): Promise<WriteStream> {
  try {
    return (await open(path, 'w')).createWriteStream();
  } catch (cause) {
    throw new MeshError('usage', `The file ${path} cannot be written`, { cause });
  }
}

/** Without `-o` the body is in the document: as text where it is text. */
async function documentOf(response: IncomingMessage, options: Options, written: number): Promise<object> {
  const head = { status: response.statusCode, headers: response.rawHeaders };
  if (options.output !== undefined) return { ...head, bytes: written, file: options.output };
  const parts: Buffer[] = [];
  for await (const part of response) parts.push(part as Buffer);
  const body = Buffer.concat(parts);
  const text = body.toString();
  const shown = Buffer.from(text).equals(body) ? { body: text } : { body_base64: body.toString('base64') };
  return { ...head, bytes: body.length, ...shown };
}

/** On a terminal: how far a file is. */
function progress(response: IncomingMessage): Transform {
  const total = Number(response.headers['content-length'] ?? Number.NaN);
  const shown = process.stderr.isTTY;
  let bytes = 0;
  let last = 0;
  const show = (end: string): void => {
    const share = total > 0 ? ` of ${mebibytes(total)} (${Math.floor((100 * bytes) / total)} %)` : '';
    process.stderr.write(`\r${mebibytes(bytes)}${share}\u001b[K${end}`);
  };
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      bytes += chunk.length;
      if (shown && systemClock.monotonic() - last > progressEveryMs) {
        last = systemClock.monotonic();
        show('');
      }
      done(null, chunk);
    },
    flush(done) {
      if (shown) show('\n');
      done();
    },
  });
}

function mebibytes(bytes: number): string {
  return `${(bytes / 1_048_576).toFixed(1)} MiB`;
}
