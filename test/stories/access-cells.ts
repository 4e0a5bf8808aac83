/** The cells of the access matrix: everything that a peer may try at a cocoon, and what each party gets of it. */

import {
  concat,
  encode,
  queryOpenSchema,
  queryTypes,
  streamProtocols,
  tasksOpenSchema,
  utf8,
} from '@cocoon-mesh/protocol';
import type { QueryType } from '@cocoon-mesh/protocol';
import type { Caller } from './caller.ts';
import { outcome } from './caller.ts';
import type { CocoonProcess } from './cocoon-process.ts';
import type { Offered } from './provider-desk.ts';

/** What a cell says: `ok`, a status, or the code of the refusal. */
export interface Cells {
  readonly 'see device': string;
  readonly introduction: string;
  readonly session: string;
  readonly 'proxy web': string;
  readonly 'proxy hidden': string;
  readonly 'forward db': string;
  readonly query: string;
  readonly 'capability embeddings': string;
  readonly 'capability llm.chat': string;
  readonly 'read tasks': string;
  readonly 'run tasks': string;
  readonly 'token making': string;
  readonly revoke: string;
  readonly 'secret and configuration': string;
}

/** Let in, and told that nothing was asked. */
const answered = 'answered';

export const everything: Cells = {
  'see device': 'web hidden db',
  introduction: 'ok',
  session: 'ok',
  'proxy web': '200',
  'proxy hidden': '200',
  'forward db': 'connected',
  query: answered,
  'capability embeddings': 'ok',
  'capability llm.chat': 'ok',
  'read tasks': answered,
  'run tasks': answered,
  'token making': 'ok',
  revoke: 'ok',
  'secret and configuration': 'unsupported',
};

export const nothing: Cells = {
  'see device': 'nothing',
  introduction: 'none',
  session: 'not_found',
  'proxy web': 'not_found',
  'proxy hidden': 'not_found',
  'forward db': 'not_found',
  query: 'not_found',
  'capability embeddings': 'not_found',
  'capability llm.chat': 'not_found',
  'read tasks': 'not_found',
  'run tasks': 'not_found',
  'token making': 'not_found',
  revoke: 'not_found',
  'secret and configuration': 'not_found',
};

/** Seen nothing of, and every try ends with this code. */
export function refusedWith(code: string): Cells {
  const { 'see device': seen, introduction, ...rest } = nothing;
  const cells = Object.fromEntries(Object.keys(rest).map((cell) => [cell, code])) as typeof rest;
  return { 'see device': seen, introduction, ...cells };
}

export const enrolled: Cells = { ...everything, 'token making': 'denied', revoke: 'denied' };
export const browser: Cells = { ...enrolled, 'run tasks': 'denied' };
export const coOwner: Cells = { ...enrolled, 'run tasks': 'denied' };

export const guestOfService: Cells = {
  ...coOwner,
  'see device': 'web',
  'proxy hidden': 'service_not_found',
  'forward db': 'service_not_found',
  query: 'denied',
  'capability embeddings': 'denied',
  'capability llm.chat': 'denied',
  'read tasks': 'denied',
};

export const guestOfCapability: Cells = {
  ...guestOfService,
  'see device': '',
  'proxy web': 'service_not_found',
  'capability embeddings': 'ok',
};

/** Searches what the device knows, and asks nothing else. */
export const guestOfKnowledge: Cells = {
  ...guestOfCapability,
  query: 'search_knowledgebase',
  'capability embeddings': 'denied',
};

export const services = ['web', 'hidden', 'db'];

/** What the box has beside what every device has. */
export const chat: Offered = { protocol: 'llm.chat', version: '1.0.0' };

export async function cellsOf(peer: Caller, box: CocoonProcess, victim: string): Promise<Cells> {
  const { peerId } = box;
  const tasks = (verb: 'read' | 'run'): Promise<string> =>
    peer.stream(peerId, streamProtocols.tasks, encode(tasksOpenSchema, { verb }));
  const owner = (request: Parameters<Caller['owner']>[1]): Promise<string> =>
    outcome(async () => (await peer.owner(peerId, request)).error?.code ?? 'ok');
  const before = await accepted(box, peer.peerId);
  const session = await peer.session(peerId);
  const known = peer.servicesOf(peerId);
  return {
    'see device': known ? services.filter((name) => known.includes(name)).join(' ') : 'nothing',
    introduction: (await accepted(box, peer.peerId)) > before ? 'ok' : 'none',
    session,
    'proxy web': await peer.proxy(peerId, 'web'),
    'proxy hidden': await peer.proxy(peerId, 'hidden'),
    'forward db': await peer.forward(peerId, 'db'),
    // Whoever gets no session is refused before its question is read, and a device writes down thirty refusals only.
    query: await everyQuery(peer, peerId, session === 'ok' ? queryTypes : ['list_tasks']),
    'capability embeddings': await peer.capability(peerId, 'embeddings', { input: 'x' }),
    'capability llm.chat': await peer.capability(peerId, 'llm.chat', null),
    'read tasks': await tasks('read'),
    'run tasks': await tasks('run'),
    'token making': await owner({
      op: 'token',
      token: { scope: 'enroll', expires_s: 60, admin: false, services: [], capabilities: [] },
    }),
    revoke: await owner({ op: 'revoke', device: victim }),
    'secret and configuration': await outcome(async () => {
      const codes = new Set<string>();
      for (const op of ['secret', 'rotate', 'config', 'plugins', 'services'])
        codes.add((await peer.ownerRaw(peerId, packedOp(op))).error?.code ?? 'ok');
      return [...codes].join(' ');
    }),
  };
}

/** Documents are no less private than tasks: one word when all types are answered alike, else those that are let in. */
async function everyQuery(peer: Caller, peerId: string, types: readonly QueryType[]): Promise<string> {
  const answers = new Map<string, string>();
  for (const type of types)
    answers.set(type, await peer.stream(peerId, streamProtocols.query, encode(queryOpenSchema, { type })));
  const kinds = new Set(answers.values());
  if (kinds.size === 1) return [...kinds].join();
  const told = [...answers].filter(([, answer]) => answer !== 'denied');
  return told.map(([type, answer]) => (answer === answered ? type : `${type}: ${answer}`)).join(' ');
}

export interface AuditLine {
  readonly event: string;
  readonly peer?: string;
  readonly code?: string | null;
}

export async function auditOf(cocoon: CocoonProcess): Promise<AuditLine[]> {
  const { stdout } = await cocoon.command(['audit', '--json']);
  return stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as AuditLine);
}

/** Introductions with a peer that the device accepted, by its own audit. */
async function accepted(cocoon: CocoonProcess, peerId: string): Promise<number> {
  return (await auditOf(cocoon)).filter(({ event, peer }) => event === 'introduction' && peer === peerId)
    .length;
}

/** MessagePack of `{ op }`, for requests that the schema has not. */
function packedOp(op: string): Uint8Array {
  const name = utf8(op);
  return concat(new Uint8Array([0x81, 0xa2]), utf8('op'), new Uint8Array([0xa0 | name.length]), name);
}
