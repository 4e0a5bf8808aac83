/** The suite's side of an end that lives elsewhere: introduced to an engine here, spoken to, and killed. */

import type { ChildProcess } from 'node:child_process';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { Carrier } from './carrier.ts';
import type { Engine, EngineName } from './engine.ts';
import type { Side } from './engine-pair.contract.ts';
import { openSide } from './engine-pair.contract.ts';
import type { FromPeer, ToPeer } from './engine-peer.contract.ts';

type Said<T extends FromPeer['type']> = Extract<FromPeer, { type: T }>;

export class RemoteEnd {
  readonly say: (message: ToPeer) => void;
  #heard: FromPeer[] = [];
  #wake = Promise.withResolvers<void>();
  #onCandidate: (line: string | null) => void = () => undefined;

  constructor(say: (message: ToPeer) => void) {
    this.say = say;
  }

  /** What carries the end's messages hands them in here. */
  took(message: FromPeer): void {
    if (message.type === 'candidate') return this.#onCandidate(message.line);
    this.#heard.push(message);
    this.#wake.resolve();
    this.#wake = Promise.withResolvers();
  }

  /** The next message of that type. @throws when the end reports a failure first */
  async heard<T extends FromPeer['type']>(type: T): Promise<Said<T>> {
    for (;;) {
      const found = this.#heard.findIndex((message) => message.type === type);
      const [message] = found < 0 ? [] : this.#heard.splice(found, 1);
      if (message) return message as Said<T>;
      const failed = this.#heard.find((message) => message.type === 'failed');
      if (failed) throw new Error(`the other end failed: ${failed.code} ${failed.message}`);
      await this.#wake.promise;
    }
  }

  /** Connects `engine` here with the end there; `role` is ours. */
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
}

export class EngineProcess extends RemoteEnd implements AsyncDisposable {
  readonly process: ChildProcess;

  constructor(name: EngineName) {
    const file = fileURLToPath(new URL('engines/engine-peer.contract.node.ts', import.meta.url));
    const child = fork(file, [name], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
    super((message) => child.send(message));
    this.process = child;
    child.on('message', (message: FromPeer) => this.took(message));
    child.once('exit', (code, signal) => {
      this.took({ type: 'failed', code: 'exit', message: `it left with ${code ?? signal}` });
    });
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
