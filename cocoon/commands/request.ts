/** `cocoon request`: one capability request, to whichever device serves it best. */

import type { IncomingMessage } from 'node:http';
import { createInterface } from 'node:readline';
import type { Command } from 'commander';
import { MeshError, isErrorCode } from '@cocoon-mesh/protocol/errors.ts';
import { limits } from '@cocoon-mesh/protocol/limits.ts';
import type { CommandContext } from '../command-context.ts';
import { collect } from '../command-context.ts';
import { ControlClient } from '../control/client.ts';
import { parseDuration } from '../duration.ts';
import type { Output } from '../output.ts';
import { payloadToStream, shownPiece, shownWhole } from './request-text.ts';
import { readJson } from './tasks-add.ts';

interface RequestFlags {
  readonly preferDevice?: string;
  readonly device?: string;
  readonly feature?: readonly string[];
  readonly session?: string;
  readonly stream?: boolean;
  readonly timeout?: string;
}

export function describe(command: Command): void {
  command
    .description('Ask for a capability; the best device that offers it answers.')
    .argument('<capability>', 'such as llm.chat, or llm.chat@^1.0.0 for a range of versions')
    .argument('[json]', 'what it is asked: JSON, @FILE, or - for standard input (default: null)')
    .option('--prefer-device <device>', 'this one, if it can')
    .option('--device <device>', 'this one and no other')
    .option('--feature <feature>', 'needed, such as model:NAME; may stand several times', collect)
    .option('--session <name>', 'requests with the same one go to the same device while it can take them')
    .option('--stream', 'print the answer as it comes: the words of a chat, pieces of anything else')
    .option('--timeout <time>', 'how long the whole answer may take (default: 30s, with --stream 10m)');
}

interface Source {
  readonly device: string;
  readonly device_id: string;
  readonly version: string;
  readonly attempts: number;
  readonly queue_ms: number;
  readonly total_ms: number;
  readonly instead_of: { readonly device: string; readonly code: string; readonly reason: string } | null;
}

interface Piece {
  readonly payload: unknown;
  readonly parts?: readonly string[];
}

export async function request(
  { home, output }: CommandContext,
  flags: RequestFlags,
  [capability = '', json]: readonly string[],
): Promise<void> {
  const { protocol, version } = split(capability);
  const streams = flags.stream === true;
  const payload = json === undefined ? null : await readJson(json, 'The payload');
  const body = {
    version,
    payload: streams ? payloadToStream(protocol, payload) : payload,
    timeout_ms: timeoutMs(flags.timeout ?? (streams ? '10m' : '30s')),
    ...(flags.preferDevice === undefined ? {} : { prefer_device: flags.preferDevice }),
    ...(flags.device === undefined ? {} : { device: flags.device }),
    ...(flags.feature ? { features: flags.feature } : {}),
    ...(flags.session === undefined ? {} : { session: flags.session }),
  };
  const client = new ControlClient(home);
  const opened = await client.open(`/capabilities/${encodeURIComponent(protocol)}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
  });
  const response = await client.send(opened, JSON.stringify(body));
  const pieces: Piece[] = [];
  let held = 0;
  const shown = new ShownPieces(output, protocol);
  const { source, result } = await answerOf(response, (piece, bytes) => {
    held += bytes;
    if (held <= limits.maxCapabilityMessageBytes) pieces.push(piece);
    else if (!streams) throw tooLong();
    else pieces.length = 0;
    if (streams) shown.add(piece);
  }).finally(() => shown.end());
  const whole = held === 0 || result.payload !== null ? result.payload : wholeOf(pieces);
  const document = { ...source, result: whole, ...(result.parts ? { parts: result.parts } : {}) };
  if (!streams || held === 0 || output.json) output.say(document, shownWhole(protocol, whole));
  if (output.json) return;
  const { device, attempts, queue_ms: queueMs, total_ms: totalMs, instead_of: insteadOf } = source;
  const tries = attempts === 1 ? '' : `, ${attempts} tries`;
  const waited = queueMs === 0 ? '' : `, ${queueMs} ms of it waiting`;
  if (output.terminal) output.note(`${device} answered in ${totalMs} ms${waited}${tries}.`);
  if (insteadOf) output.note(`${insteadOf.device} did not serve it: ${insteadOf.reason}.`);
}

/** @throws MeshError usage */
function timeoutMs(text: string): number {
  const ms = parseDuration(text) * 1000;
  if (ms > limits.maxCapabilityTimeoutMs)
    throw new MeshError('usage', `--timeout is at most ${limits.maxCapabilityTimeoutMs / 60_000}m`);
  return ms;
}

/** Null: they were too many to be held, and have been printed one by one. */
function wholeOf(pieces: readonly Piece[]): readonly unknown[] | null {
  return pieces.length === 0 ? null : pieces.map(({ payload }) => payload);
}

function tooLong(): MeshError {
  return new MeshError('message_too_large', 'The stream is too long for one answer', {
    hint: 'Read it as it comes, with --stream.',
  });
}

/** `llm.chat@^1.0.0`. */
function split(capability: string): { readonly protocol: string; readonly version: string } {
  const at = capability.indexOf('@');
  return at < 0
    ? { protocol: capability, version: '*' }
    : { protocol: capability.slice(0, at), version: capability.slice(at + 1) };
}

class ShownPieces {
  readonly #output: Output;
  readonly #protocol: string;
  /** The cursor stands behind text. */
  #inLine = false;

  constructor(output: Output, protocol: string) {
    this.#output = output;
    this.#protocol = protocol;
  }

  add({ payload, parts }: Piece): void {
    if (this.#output.json) return this.#output.say({ chunk: payload, ...(parts ? { parts } : {}) }, '');
    const shown = shownPiece(this.#protocol, payload);
    if ('line' in shown) {
      this.end();
      return this.#output.tell(shown.line);
    }
    this.#output.piece(shown.text);
    if (shown.text !== '') this.#inLine = !shown.text.endsWith('\n');
  }

  end(): void {
    if (this.#inLine) this.#output.tell('');
    this.#inLine = false;
  }
}

async function answerOf(
  response: IncomingMessage,
  onPiece: (piece: Piece, bytes: number) => void,
): Promise<{ readonly source: Source; readonly result: Piece }> {
  if (response.headers['content-type'] !== 'text/event-stream') {
    let text = '';
    response.setEncoding('utf8');
    for await (const chunk of response) text += String(chunk);
    const { result, ...more } = JSON.parse(text) as { result: unknown; parts?: readonly string[] };
    return { source: sourceIn(response), result: { payload: result, ...more } };
  }
  let name = '';
  for await (const line of createInterface({ input: response })) {
    if (line.startsWith('event: ')) name = line.slice('event: '.length);
    if (!line.startsWith('data: ')) continue;
    const data = JSON.parse(line.slice('data: '.length)) as unknown;
    if (name === 'chunk') onPiece(data as Piece, line.length);
    if (name === 'error') throw told(data as { error: { code: string; message: string; hint?: string } });
    if (name !== 'done') continue;
    const { result, parts, ...source } = data as Source & { result: unknown; parts?: readonly string[] };
    return { source, result: { payload: result, ...(parts ? { parts } : {}) } };
  }
  throw new MeshError('internal', 'The cocoon broke off its answer');
}

function sourceIn({ headers }: IncomingMessage): Source {
  const text = (name: string): string => String(headers[name] ?? '');
  const instead = text('cocoon-instead-of');
  return {
    device: text('cocoon-device'),
    device_id: text('cocoon-device-id'),
    version: text('cocoon-version'),
    attempts: Number(text('cocoon-attempts')),
    queue_ms: Number(text('cocoon-queue-ms')),
    total_ms: Number(text('cocoon-total-ms')),
    instead_of:
      instead === ''
        ? null
        : {
            device: instead,
            code: text('cocoon-instead-reason'),
            reason: decodeURIComponent(text('cocoon-instead-message')),
          },
  };
}

function told({ error }: { error: { code: string; message: string; hint?: string } }): MeshError {
  const { code, message, hint } = error;
  return new MeshError(isErrorCode(code) ? code : 'internal', message, hint === undefined ? {} : { hint });
}
