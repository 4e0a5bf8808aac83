/**
 * Credit in absolute offsets, so that a repeated or reordered announcement does no harm.
 *
 * A stream's credit bounds all its bytes. The session's credit bounds the bytes of all streams, except those
 * charged to a stream's minimum: a DATA frame may carry the flag `minimum` when it ends no further than
 * `streamMinimumBytes` beyond what the receiver's program has read. The sender knows that position from the
 * last CREDIT of the stream (credit − window = read), the receiver knows it exactly and is never behind the
 * sender's view, so it can check every frame. Unread bytes of a session are thus at most
 * sessionWindow + streams × minimum, and a stream whose reader keeps up can always send its minimum,
 * whatever the other streams leave unread.
 *
 * For that to hold, announcements must not lag when the session's credit runs short: see `ReceiveCredit.due`.
 */

export class SendCredit {
  #sent = 0;
  #limit: number;

  constructor(initial: number) {
    this.#limit = initial;
  }

  get sent(): number {
    return this.#sent;
  }

  get room(): number {
    return this.#limit - this.#sent;
  }

  /** Bytes that may go out charged to the minimum, given the receiver's window and minimum. */
  minimumRoom(window: number, minimum: number): number {
    return Math.max(0, Math.min(this.room, this.#limit - window + minimum - this.#sent));
  }

  spend(bytes: number): void {
    this.#sent += bytes;
  }

  /** False when the announcement is an old one, which is ignored. */
  raise(limit: number): boolean {
    if (limit <= this.#limit) return false;
    this.#limit = limit;
    return true;
  }
}

export class ReceiveCredit {
  readonly #window: number;
  #received = 0;
  #consumed = 0;
  #announced: number;

  constructor(window: number) {
    this.#window = window;
    this.#announced = window;
  }

  /** Takes in bytes from the wire; false when the sender had no credit for them. */
  accept(bytes: number): boolean {
    if (this.#received + bytes > this.#announced) return false;
    this.#received += bytes;
    return true;
  }

  consume(bytes: number): void {
    this.#consumed += bytes;
  }

  /** Would a frame of this many more bytes end within the minimum? */
  withinMinimum(bytes: number, minimum: number): boolean {
    return this.#received + bytes <= this.#consumed + minimum;
  }

  /** Less than a quarter is left to the sender: it may soon be blocked. */
  get tight(): boolean {
    return this.#announced - this.#received < this.#window / 4;
  }

  /**
   * Is an announcement worth a frame? Normally when half the window was read; in a tight session as soon as
   * `tightStep` bytes were, because the sender may have nothing left but what this announcement frees.
   */
  due(tight: boolean, tightStep: number): boolean {
    const gain = this.#consumed + this.#window - this.#announced;
    return gain >= (tight ? Math.min(tightStep, this.#window / 2) : this.#window / 2);
  }

  /** The new absolute offset, to be sent in a CREDIT frame. */
  announce(): number {
    this.#announced = this.#consumed + this.#window;
    return this.#announced;
  }
}
