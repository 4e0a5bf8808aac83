/** Query parameters of a request: each is asked for by name, and what nobody asked for is refused. */

import type { ErrorCode } from '@cocoon-mesh/protocol';
import { MeshError } from '@cocoon-mesh/protocol';

export class Parameters {
  readonly #values: URLSearchParams;
  readonly #code: ErrorCode;

  /**
   * @param names all that there are
   * @param code for one that is not among them, stands twice or is wrong
   * @throws MeshError
   */
  constructor(values: URLSearchParams, names: readonly string[], code: ErrorCode = 'usage') {
    this.#values = values;
    this.#code = code;
    assertKnown(values, names, code);
  }

  one(name: string): string | null {
    const [value, ...more] = this.#values.getAll(name);
    if (more.length > 0) throw new MeshError(this.#code, `The parameter ${name} stands there twice`);
    return value ?? null;
  }

  /** `a,b` and `a&b` alike. */
  list(name: string): string[] {
    return this.#values
      .getAll(name)
      .flatMap((value) => value.split(','))
      .filter((value) => value !== '');
  }

  /** As often as it stands there; a value may hold commas. */
  all(name: string): string[] {
    return this.#values.getAll(name);
  }

  number(name: string, { from, to }: { from: number; to: number }): number | null {
    const text = this.one(name);
    if (text === null) return null;
    const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
    if (value >= from && value <= to) return value;
    throw new MeshError(this.#code, `The parameter ${name} is a number from ${from} to ${to}`);
  }

  flag(name: string): boolean {
    const text = this.one(name);
    if (text === null || text === '0' || text === 'false') return false;
    if (text === '1' || text === 'true') return true;
    throw new MeshError(this.#code, `The parameter ${name} is 1 or 0`);
  }
}

/** @throws MeshError of the code */
export function assertKnown(values: URLSearchParams, names: readonly string[], code: ErrorCode): void {
  for (const name of values.keys())
    if (!names.includes(name))
      throw new MeshError(code, `The parameter ${JSON.stringify(name)} is not known`, {
        hint: names.length === 0 ? 'There are none here.' : `Known parameters: ${names.join(', ')}.`,
      });
}
