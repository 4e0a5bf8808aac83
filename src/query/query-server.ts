/**
 * `/cocoon/query/1`, the answering end: a stream, its right, its request, then parts as fast as the asker reads
 * them. Who answers which type is registered; nothing here knows tasks or documents.
 */

import type { ProvenPeer, Stream } from '@cocoon-mesh/mesh';
import { readSingleMessage, writeMessage } from '@cocoon-mesh/mesh';
import type { Clock, NeededRight, QueryPart, QueryRequest, QueryType } from '@cocoon-mesh/protocol';
import {
  MeshError,
  ResetCode,
  allows,
  check,
  decode,
  limits,
  queryCapability,
  queryOpenSchema,
  queryPartSchema,
  queryRequestSchema,
  toMeshError,
} from '@cocoon-mesh/protocol';
import { errorPart, startAnswer } from './answer-parts.ts';
import type { Answerer, Asker } from './answer-parts.ts';
import { maxQueryRequestBytes } from './ask-stream.ts';

export interface QueryServerOptions {
  readonly clock: Clock;
  /** A peer that may ask queries asked one that its other rights do not allow. */
  readonly denied?: (peer: ProvenPeer, right: NeededRight) => void;
  readonly log: (level: 'debug' | 'info' | 'warn', message: string, fields?: Record<string, unknown>) => void;
}

type QueryPeer = Pick<ProvenPeer, 'peerId' | 'rights'>;

const readTasks: NeededRight = { protocol: 'tasks', verb: 'read', name: null };

/** After the deadline, for the last part to leave. */
const lingerMs = 5_000;

export class QueryServer {
  readonly #options: QueryServerOptions;
  readonly #answerers = new Map<QueryType, Answerer>();
  /** Streams, and answerers that have not ended, by peer. */
  readonly #running = new Map<string, number>();
  readonly #streams = new Set<Stream>();
  #closed = false;

  constructor(options: QueryServerOptions) {
    this.#options = options;
  }

  /** One answerer for each type. */
  answer(type: QueryType, answerer: Answerer): void {
    this.#answerers.set(type, answerer);
  }

  /** For `Mesh.handle`. */
  readonly handle = (stream: Stream, peer: ProvenPeer): void => {
    void this.#serve(stream, peer);
  };

  /** This device's own answer, without a stream and without asking for rights. */
  async *ask(request: QueryRequest, signal: AbortSignal): AsyncGenerator<QueryPart, void, undefined> {
    const answerer = this.#answerers.get(request.type);
    if (!answerer) return yield errorPart(noAnswerer(request.type));
    try {
      for await (const part of startAnswer(answerer, request, this.#options.clock, signal, null).parts)
        yield check(queryPartSchema, part);
    } catch (thrown) {
      yield errorPart(thrown);
    }
  }

  /** Queries under way end. Idempotent. */
  close(): void {
    this.#closed = true;
    for (const stream of this.#streams) stream.reset(ResetCode.shuttingDown);
  }

  async #serve(stream: Stream, peer: ProvenPeer): Promise<void> {
    const refused = this.#refusal(stream, peer);
    if (refused !== null) return stream.reset(refused);
    const { peerId } = peer;
    this.#running.set(peerId, (this.#running.get(peerId) ?? 0) + 1);
    this.#streams.add(stream);
    try {
      await this.#answer(stream, { id: peerId, name: peer.name });
    } catch (thrown) {
      // Reset by the asker, gone, or too slow: nobody is there to be told.
      const { code } = toMeshError(thrown);
      this.#options.log('debug', 'A query was not answered to its end', { peer: peerId, code });
      stream.reset(code === 'timeout' ? ResetCode.timeout : ResetCode.internal);
    } finally {
      this.#streams.delete(stream);
      const left = (this.#running.get(peerId) ?? 1) - 1;
      if (left > 0) this.#running.set(peerId, left);
      else this.#running.delete(peerId);
    }
  }

  #refusal(stream: Stream, peer: ProvenPeer): ResetCode | null {
    if (this.#closed) return ResetCode.shuttingDown;
    const type = openedType(stream);
    if (type === null) return ResetCode.badHeader;
    if (isAboutTasks(type) && !mayReadTasks(peer)) {
      this.#options.denied?.(peer, readTasks);
      return ResetCode.denied;
    }
    const running = this.#running.get(peer.peerId) ?? 0;
    return running >= limits.maxQueriesPerPeer ? ResetCode.tooManyStreams : null;
  }

  async #answer(stream: Stream, from: Asker): Promise<void> {
    const { clock } = this.#options;
    let request: QueryRequest;
    let answerer: Answerer;
    try {
      const patience = { clock, ms: limits.openTimeoutMs };
      request = await readSingleMessage(stream, queryRequestSchema, maxQueryRequestBytes, patience);
      answerer = this.#answererFor(request, stream);
    } catch (thrown) {
      stream.signal.throwIfAborted();
      await writeMessage(stream, queryPartSchema, errorPart(thrown), limits.maxQueryPartBytes);
      return stream.end();
    }
    const limit = clock.after(request.timeout_ms + lingerMs, () => stream.reset(ResetCode.timeout));
    const { parts, over } = startAnswer(answerer, request, clock, stream.signal, from);
    try {
      await sendParts(stream, parts);
      stream.signal.throwIfAborted();
      stream.end();
      await stream.closed;
    } finally {
      limit.cancel();
      // It holds its place until it has ended, or a peer could start any number that do not.
      await over;
    }
  }

  #answererFor({ type }: QueryRequest, stream: Stream): Answerer {
    if (type !== openedType(stream))
      throw new MeshError('bad_message', 'The query is of another type than its stream was opened for');
    const answerer = this.#answerers.get(type);
    if (!answerer) throw noAnswerer(type);
    return answerer;
  }
}

/** @throws MeshError as `Stream.write` */
async function sendParts(stream: Stream, parts: AsyncIterable<QueryPart>): Promise<void> {
  const send = (part: QueryPart) => writeMessage(stream, queryPartSchema, part, limits.maxQueryPartBytes);
  try {
    for await (const part of parts) await send(part);
  } catch (thrown) {
    // Its answerer made rows that are none.
    if (toMeshError(thrown).code !== 'bad_message') throw thrown;
    await send(errorPart(thrown));
  }
}

function openedType(stream: Stream): QueryType | null {
  try {
    return decode(queryOpenSchema, stream.header, limits.maxOpenHeaderBytes).type;
  } catch {
    return null;
  }
}

function isAboutTasks(type: QueryType): boolean {
  return type !== 'custom' && queryCapability[type] === 'tasks';
}

function mayReadTasks({ rights }: QueryPeer): boolean {
  return allows(rights, readTasks.protocol, readTasks.verb, readTasks.name);
}

function noAnswerer(type: QueryType): MeshError {
  return new MeshError('unsupported', `This device answers no ${type}`);
}
