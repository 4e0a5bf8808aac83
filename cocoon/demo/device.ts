/** A cocoon of the demo: a process of its own with a home of its own, as a user would start it. */

import type { ChildProcess } from 'node:child_process';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { createInterface } from 'node:readline';

const bin = fileURLToPath(new URL('../bin/cocoon', import.meta.url));

export interface Ready {
  readonly name: string;
  readonly gateway: string;
  readonly signaling: string;
  readonly web_signin?: string;
}

export class DemoDevice implements AsyncDisposable {
  readonly home: string;
  readonly ready: Ready;
  readonly #child: ChildProcess;

  private constructor(home: string, ready: Ready, child: ChildProcess) {
    this.home = home;
    this.ready = ready;
    this.#child = child;
  }

  /**
   * @param input goes to stdin, where a token is safe from other programs
   * @param environment beside that of the demo
   */
  static async start(
    home: string,
    args: readonly string[],
    input = '',
    environment: Readonly<Record<string, string>> = {},
  ): Promise<DemoDevice> {
    const child = spawn(bin, [...args, '--gateway-port', '0', '--json', '--home', home], {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: { ...process.env, ...environment },
      // Ctrl-C is for the demo, which ends its devices itself and in order.
      detached: true,
    });
    child.stdin.end(input);
    for await (const line of createInterface({ input: child.stdout })) {
      const event = JSON.parse(line) as { event: string } & Ready;
      if (event.event !== 'ready') continue;
      child.stdout.resume();
      return new DemoDevice(home, event, child);
    }
    throw new Error(`cocoon ${args.join(' ')} did not start`);
  }

  /** A command of this device, to its end: what it printed. */
  async run(...args: readonly string[]): Promise<string> {
    return this.runWith('', ...args);
  }

  /** @param input goes to stdin, where a token is safe from other programs */
  async runWith(input: string, ...args: readonly string[]): Promise<string> {
    const child = spawn(bin, [...args, '--home', this.home], { stdio: ['pipe', 'pipe', 'inherit'] });
    child.stdin.end(input);
    let text = '';
    child.stdout.on('data', (chunk: Buffer) => (text += chunk.toString()));
    const [code] = (await once(child, 'close')) as [number | null];
    if (code !== 0) throw new Error(`cocoon ${args.join(' ')} ended with ${code}`);
    return text;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const gone = once(this.#child, 'exit');
    this.#child.kill('SIGTERM');
    await gone;
  }
}
