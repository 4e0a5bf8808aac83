/** A node:test reporter that writes one JSON line per event, for `run-file.ts` to read. */

import { inspect } from 'node:util';

export type TestEvent =
  | { readonly kind: 'started'; readonly name: string; readonly nesting: number }
  | {
      readonly kind: 'passed' | 'failed' | 'skipped' | 'todo';
      readonly type: 'test' | 'suite';
      readonly name: string;
      readonly nesting: number;
      readonly durationMs: number;
      /** Of a skipped test or one to do: why. Of a failed one: the error, shown. */
      readonly text: string;
    };

interface Data {
  readonly name: string;
  readonly nesting: number;
  readonly skip?: string | boolean;
  readonly todo?: string | boolean;
  readonly details: {
    readonly duration_ms: number;
    readonly type?: string;
    readonly error?: Error & { readonly failureType?: string };
  };
}

interface Emitted {
  readonly type: string;
  readonly data: unknown;
}

export default async function* report(source: AsyncIterable<Emitted>): AsyncGenerator<string> {
  for await (const event of source) {
    const told = toEvent(event);
    if (told) yield `${JSON.stringify(told)}\n`;
  }
}

function toEvent({ type, data }: Emitted): TestEvent | null {
  const test = data as Data;
  // `test:start` comes when earlier tests are told, which a test that hangs never is.
  if (type === 'test:dequeue') return { kind: 'started', name: test.name, nesting: test.nesting };
  if (type !== 'test:pass' && type !== 'test:fail') return null;
  return {
    ...outcome(type === 'test:pass', test),
    type: test.details.type === 'suite' ? 'suite' : 'test',
    name: test.name,
    nesting: test.nesting,
    durationMs: test.details.duration_ms,
  };
}

function outcome(
  passed: boolean,
  test: Data,
): { kind: 'passed' | 'failed' | 'skipped' | 'todo'; text: string } {
  const reason = (mark: string | boolean): string => (typeof mark === 'string' ? mark : '');
  if (isMarked(test.skip)) return { kind: 'skipped', text: reason(test.skip) };
  if (isMarked(test.todo)) return { kind: 'todo', text: reason(test.todo) };
  if (passed) return { kind: 'passed', text: '' };
  const { error } = test.details;
  // A group fails by its tests, which have been told.
  if (error?.failureType === 'subtestsFailed') return { kind: 'failed', text: '' };
  return { kind: 'failed', text: inspect(error?.cause ?? error, { depth: 6 }) };
}

function isMarked(mark: string | boolean | undefined): mark is string | boolean {
  return mark !== undefined && mark !== false;
}
