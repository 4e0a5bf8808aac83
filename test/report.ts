/** What a test run prints: each file as it ends, and last what failed, what was skipped and why, the totals. */

import type { TestEvent } from './events-reporter.ts';
import type { FileResult } from './run-file.ts';

type Finished = Exclude<TestEvent, { kind: 'started' }>;

interface Noted {
  readonly file: string;
  readonly name: string;
  readonly text: string;
}

const colours = process.stdout.isTTY ? { red: 31, green: 32, grey: 90, bold: 1 } : null;
const marks = { passed: '✔', failed: '✖', skipped: '﹣', todo: '…' } as const;

export class Report {
  readonly #started = performance.now();
  readonly #counts = { passed: 0, failed: 0, skipped: 0, todo: 0 };
  readonly #failures: Noted[] = [];
  readonly #skips: Noted[] = [];
  #files = 0;

  suiteStarts(name: string, files: number): void {
    console.log(paint(`\n${name}: ${files} files`, 'bold'));
  }

  fileEnded(file: string, result: FileResult): void {
    this.#files++;
    console.log(`${paint(`\n${file}`, 'bold')} ${paint(`(${seconds(result.durationMs)})`, 'grey')}`);
    const slots = inReadingOrder(result.events);
    for (const { event } of slots) if (event) this.#test(file, event);
    const failure = result.failure === null ? null : result.failure + unfinished(slots);
    if (failure !== null) {
      this.#note(this.#failures, 'failed', { file, name: 'the file itself', text: failure });
      console.log(`  ${paint(`${marks.failed} ${failure}`, 'red')}`);
    }
    const broken = failure !== null || result.events.some((event) => event.kind === 'failed');
    if (broken && result.output.trim() !== '') console.log(indent(result.output.trim(), 4));
  }

  /** @returns the exit code */
  end(): number {
    for (const { file, name, text } of this.#failures)
      console.log(`\n${paint(`${marks.failed} ${file}: ${name}`, 'red')}\n${indent(text, 4)}`);
    if (this.#skips.length > 0) console.log(paint('\nSkipped:', 'bold'));
    for (const { file, name, text } of this.#skips)
      console.log(`  ${marks.skipped} ${file}: ${name} — ${text === '' ? 'no reason given' : text}`);
    const { passed, failed, skipped, todo } = this.#counts;
    const totals = `${passed} passed, ${failed} failed, ${skipped} skipped`;
    console.log(`\n${this.#files} files, ${todo} to do, ${seconds(performance.now() - this.#started)}`);
    // Alone on its line, so that whatever runs the tests finds it.
    console.log(paint(totals, failed > 0 ? 'red' : 'green'));
    // A run without a test proves nothing; a wrong path would look like a success.
    return failed > 0 || passed + skipped === 0 ? 1 : 0;
  }

  #test(file: string, event: Finished): void {
    const { kind, name, text, type } = event;
    const colour = kind === 'failed' ? 'red' : kind === 'passed' ? 'green' : 'grey';
    const reason = (kind === 'skipped' || kind === 'todo') && text !== '' ? ` # ${text}` : '';
    const line = `${paint(marks[kind], colour)} ${name} ${paint(`(${event.durationMs.toFixed(1)} ms)`, 'grey')}`;
    console.log('  '.repeat(event.nesting + 1) + line + reason);
    if (kind === 'failed' && text !== '') this.#note(this.#failures, kind, { file, name, text });
    else if (kind === 'skipped') this.#note(this.#skips, kind, { file, name, text });
    else if (type === 'test' && kind !== 'failed') this.#counts[kind]++;
  }

  #note(list: Noted[], kind: 'failed' | 'skipped', noted: Noted): void {
    this.#counts[kind]++;
    list.push(noted);
  }
}

interface Slot {
  readonly name: string;
  readonly nesting: number;
  event: Finished | null;
}

/** Tests end inside out; they start in the order in which they are read. */
function inReadingOrder(events: readonly TestEvent[]): Slot[] {
  const slots: Slot[] = [];
  for (const event of events) {
    const { name, nesting } = event;
    if (event.kind === 'started') {
      slots.push({ name, nesting, event: null });
      continue;
    }
    const slot = slots.find((open) => open.event === null && open.name === name && open.nesting === nesting);
    if (slot) slot.event = event;
    else slots.push({ name, nesting, event });
  }
  return slots;
}

/** Which tests had begun and not ended when the file did. */
function unfinished(slots: readonly Slot[]): string {
  const open = slots.filter((slot) => slot.event === null).map((slot) => slot.name);
  return open.length === 0 ? '' : `, in: ${open.join(' › ')}`;
}

function paint(text: string, colour: keyof NonNullable<typeof colours>): string {
  return colours ? `\x1b[${colours[colour]}m${text}\x1b[0m` : text;
}

function indent(text: string, by: number): string {
  return text.replaceAll(/^/gm, ' '.repeat(by));
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}
