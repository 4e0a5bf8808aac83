/** The newest bytes of a stream, as many as are allowed; older ones are overwritten. Grows only as far as it is filled. */

const firstBytes = 64 * 1024;

export class NewestBytes {
  readonly #maxBytes: number;
  #ring = Buffer.alloc(0);
  /** Where the oldest byte lies. */
  #from = 0;
  #length = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  get length(): number {
    return this.#length;
  }

  /** Copies them. */
  append(bytes: Uint8Array): void {
    const newest = bytes.length > this.#maxBytes ? bytes.subarray(bytes.length - this.#maxBytes) : bytes;
    this.#grow(this.#length + newest.length);
    const size = this.#ring.length;
    const at = (this.#from + this.#length) % size;
    const head = newest.subarray(0, size - at);
    this.#ring.set(head, at);
    this.#ring.set(newest.subarray(head.length), 0);
    const over = Math.max(0, this.#length + newest.length - size);
    this.#from = (this.#from + over) % size;
    this.#length += newest.length - over;
  }

  /** Oldest first, in at most two pieces; they are overwritten by the next append. */
  pieces(): Buffer[] {
    const end = this.#from + this.#length;
    const size = this.#ring.length;
    const pieces = [this.#ring.subarray(this.#from, end), this.#ring.subarray(0, Math.max(0, end - size))];
    return pieces.filter(({ length }) => length > 0);
  }

  clear(): void {
    this.#from = 0;
    this.#length = 0;
  }

  #grow(wanted: number): void {
    const size = this.#ring.length;
    if (size >= this.#maxBytes || (size > 0 && wanted <= size)) return;
    let larger = Math.max(size, Math.min(firstBytes, this.#maxBytes));
    while (larger < wanted && larger < this.#maxBytes) larger = Math.min(2 * larger, this.#maxBytes);
    const ring = Buffer.allocUnsafeSlow(larger);
    let used = 0;
    for (const piece of this.pieces()) used += piece.copy(ring, used);
    this.#ring = ring;
    this.#from = 0;
  }
}
