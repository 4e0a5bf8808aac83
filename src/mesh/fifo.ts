/** A queue whose `shift` costs the same however long it is; arrays move every element. */

interface Link<T> {
  readonly value: T;
  next: Link<T> | null;
}

export class Fifo<T> {
  #head: Link<T> | null = null;
  #tail: Link<T> | null = null;
  #length = 0;

  get length(): number {
    return this.#length;
  }

  push(value: T): void {
    const link = { value, next: null };
    if (this.#tail) this.#tail.next = link;
    else this.#head = link;
    this.#tail = link;
    this.#length++;
  }

  peek(): T | undefined {
    return this.#head?.value;
  }

  peekLast(): T | undefined {
    return this.#tail?.value;
  }

  shift(): T | undefined {
    const link = this.#head;
    if (!link) return undefined;
    this.#head = link.next;
    if (!link.next) this.#tail = null;
    this.#length--;
    return link.value;
  }

  clear(): void {
    this.#head = null;
    this.#tail = null;
    this.#length = 0;
  }

  *[Symbol.iterator](): Generator<T, void, undefined> {
    for (let link = this.#head; link; link = link.next) yield link.value;
  }
}
