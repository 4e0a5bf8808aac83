/**
 * The open streams of a session and the rules of their ids: the peer with the lower PeerId uses odd ids,
 * whoever dialled; ids only grow and are never used twice.
 */

import { MeshError } from '@cocoon-mesh/protocol';
import type { SessionStream } from './session-stream.ts';

export class StreamTable {
  readonly #streams = new Map<number, SessionStream>();
  readonly #parity: number;
  readonly #maxId: number;
  #nextLocal: number;
  #highestRemote = 0;
  #remote = 0;

  /** @param lower do we have the lower PeerId? */
  constructor(lower: boolean, maxId: number) {
    this.#parity = lower ? 1 : 0;
    this.#nextLocal = lower ? 1 : 2;
    this.#maxId = maxId;
  }

  get size(): number {
    return this.#streams.size;
  }

  /** Open streams that the other side opened. */
  get remote(): number {
    return this.#remote;
  }

  /** Open streams that we opened. */
  get local(): number {
    return this.#streams.size - this.#remote;
  }

  get(id: number): SessionStream | undefined {
    return this.#streams.get(id);
  }

  /** A new id of ours, or null when they are used up. */
  allocate(): number | null {
    if (this.#nextLocal > this.#maxId) return null;
    const id = this.#nextLocal;
    this.#nextLocal += 2;
    return id;
  }

  /** @throws MeshError protocol_violation when the other side may not open this id */
  claim(id: number): void {
    if (this.#isLocal(id)) throw new MeshError('protocol_violation', `stream ${id} has the wrong parity`);
    if (id <= this.#highestRemote) {
      throw new MeshError('protocol_violation', `stream ${id} was opened after ${this.#highestRemote}`);
    }
    this.#highestRemote = id;
  }

  /** Is, or was, there a stream of this id? */
  wasOpened(id: number): boolean {
    return this.#isLocal(id) ? id < this.#nextLocal : id <= this.#highestRemote;
  }

  add(stream: SessionStream): void {
    this.#streams.set(stream.id, stream);
    if (!this.#isLocal(stream.id)) this.#remote++;
  }

  /** False when it was not there any more. */
  remove(stream: SessionStream): boolean {
    if (!this.#streams.delete(stream.id)) return false;
    if (!this.#isLocal(stream.id)) this.#remote--;
    return true;
  }

  clear(): void {
    this.#streams.clear();
    this.#remote = 0;
  }

  [Symbol.iterator](): Iterator<SessionStream> {
    return this.#streams.values();
  }

  #isLocal(id: number): boolean {
    return (id & 1) === this.#parity;
  }
}
