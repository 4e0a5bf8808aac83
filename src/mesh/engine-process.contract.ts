/** The parent's side of `engines/engine-peer.node.ts`: an engine in a process that can be killed. */

import type { ChildProcess, ForkOptions } from 'node:child_process';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { Carrier } from './carrier.ts';
import type { Engine, EngineName } from './engine.ts';
import type { Side } from './engine-pair.contract.ts';
import { openSide } from './engine-pair.contract.ts';

export type ToPeer =
  | { readonly type: 'offer' }
  | { readonly type: 'accept-offer' | 'accept-answer'; readonly sdp: string }
  | { readonly type: 'candidate'; readonly line: string | null }
  | { readonly type: 'echo'; readonly which: 'all' | 'small' }
  | { readonly type: 'count' }
  | { readonly type: 'close'; readonly reason: string };

export type FromPeer =
  | { readonly type: 'ready'; readonly sealed: boolean }
  | { readonly type: 'description'; readonly sdp: string }
  | { readonly type: 'candidate'; readonly line: string | null }
  | { readonly type: 'opened' }
  | { readonly type: 'counted'; readonly bytes: number }
  | { readonly type: 'closed'; readonly reason: string; readonly bytes: number }
  | { readonly type: 'failed'; readonly code: string; readonly message: string };

type Said<T extends FromPeer['type']> = Extract<FromPeer, { type: T }>;

export class EngineProcess implements AsyncDisposable {
  readonly process: ChildProcess;
  #heard: FromPeer[] = [];
  #wake = Promise.withResolvers<void>();
  #onCandidate: (line: string | null) => void = () => undefined;

  constructor(name: EngineName, options: ForkOptions = {}) {
    const file = fileURLToPath(new URL('engines/engine-peer.node.ts', import.meta.url));
    this.process = fork(file, [name], { ...options, stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
    this.process.on('message', (message: FromPeer) => {
      if (message.type === 'candidate') return this.#onCandidate(message.line);
      this.#heard.push(message);
      this.#wake.resolve();
      this.#wake = Promise.withResolvers();
    });
    this.process.once('exit', (code, signal) => {
      this.#heard.push({ type: 'failed', code: 'exit', message: `it left with ${code ?? signal}` });
      this.#wake.resolve();
    });
  }

  say(message: ToPeer): void {
    this.process.send(message);
  }

  /** The next message of that type. @throws when the peer reports a failure first */
  async heard<T extends FromPeer['type']>(type: T): Promise<Said<T>> {
    for (;;) {
      const found = this.#heard.findIndex((message) => message.type === type);
      const [message] = found < 0 ? [] : this.#heard.splice(found, 1);
      if (message) return message as Said<T>;
      const failed = this.#heard.find((message) => message.type === 'failed');
      if (failed) throw new Error(`the engine process failed: ${failed.code} ${failed.message}`);
      await this.#wake.promise;
    }
  }

  /** Connects `engine` here with the process there; `role` is ours. */
  async link(engine: Engine, role: 'offerer' | 'answerer'): Promise<{ side: Side; carrier: Carrier }> {
    await this.heard('ready');
    const side = openSide(engine, (line) => this.say({ type: 'candidate', line }));
    this.#onCandidate = (line) => side.connection.addCandidate(line);
    if (role === 'offerer') {
      this.say({ type: 'accept-offer', sdp: await side.connection.createOffer() });
      await side.connection.acceptAnswer((await this.heard('description')).sdp);
    } else {
      this.say({ type: 'offer' });
      const answer = await side.connection.acceptOffer((await this.heard('description')).sdp);
      this.say({ type: 'accept-answer', sdp: answer });
    }
    const carrier = await side.connection.opened(AbortSignal.timeout(20_000));
    return { side, carrier };
  }

  async kill(): Promise<void> {
    if (this.process.exitCode !== null || this.process.signalCode !== null) return;
    const gone = once(this.process, 'exit');
    this.process.kill('SIGKILL');
    await gone;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.kill();
  }
}
