/**
 * Holds one device's answer to what an answer is: parts in sequence, rows in order and no more than were asked
 * for. What broke the rules is not taken; what came before stays good.
 */

import type { QueryPart, QueryRow } from '@cocoon-mesh/protocol';
import { MeshError } from '@cocoon-mesh/protocol';
import { compareKeys } from './row-order.ts';

type RowPart = QueryPart & { kind: 'part' };

export class AnswerCheck {
  readonly #limit: number;
  readonly #rows: QueryRow[] = [];
  #nextSeq = 0;
  #done = false;
  #more = false;

  /** @param limit rows that were asked for */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Good ones so far. */
  get rows(): readonly QueryRow[] {
    return this.#rows;
  }

  get done(): boolean {
    return this.#done;
  }

  /** There are rows behind these. */
  get more(): boolean {
    return this.#more;
  }

  /** False: the part was there before. @throws MeshError bad_message */
  take({ seq, rows, is_final: isFinal, more = false }: RowPart): boolean {
    if (seq < this.#nextSeq) return false;
    if (seq > this.#nextSeq) throw broken(`part ${this.#nextSeq} is missing`);
    if (this.#rows.length + rows.length > this.#limit) throw broken(`it has more rows than ${this.#limit}`);
    let last = this.#rows.at(-1);
    for (const row of rows) {
      if (last && compareKeys(last.key, row.key) > 0) throw broken('its rows are out of order');
      last = row;
    }
    if (isFinal && more && !last) throw broken('it says that there is more and has nothing');
    this.#rows.push(...rows);
    this.#nextSeq++;
    this.#done = isFinal;
    this.#more = isFinal && more;
    return true;
  }
}

function broken(why: string): MeshError {
  return new MeshError('bad_message', `The answer breaks its protocol: ${why}`);
}
