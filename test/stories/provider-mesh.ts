/** A laptop and providers whose answers a story writes, on installed cocoons. */

import assert from 'node:assert/strict';
import { offers, untilOffers } from './capability-client.ts';
import { CocoonProcess, enroll } from './cocoon-process.ts';
import type { Offered } from './provider-desk.ts';
import { ProviderDesk } from './provider-desk.ts';

export class ProviderMesh implements AsyncDisposable {
  readonly desk: ProviderDesk;
  readonly laptop: CocoonProcess;
  readonly names: readonly string[];
  readonly #providers: ReadonlyMap<string, CocoonProcess>;
  readonly #parts: AsyncDisposableStack;

  private constructor(
    desk: ProviderDesk,
    laptop: CocoonProcess,
    providers: ReadonlyMap<string, CocoonProcess>,
    parts: AsyncDisposableStack,
  ) {
    this.desk = desk;
    this.laptop = laptop;
    this.names = [...providers.keys()];
    this.#providers = providers;
    this.#parts = parts;
  }

  /** @param offered by each device; `demo.work` is among it */
  static async start(offered: Readonly<Record<string, readonly Offered[]>>): Promise<ProviderMesh> {
    await using parts = new AsyncDisposableStack();
    const desk = parts.use(await ProviderDesk.start());
    const signaling = parts.use(await CocoonProcess.start({ command: 'signaling', args: ['--port', '0'] }));
    const laptop = parts.use(
      await CocoonProcess.start({
        command: 'run',
        args: ['--name', 'laptop', '--gateway-port', '0', '--signaling', signaling.signaling],
        engine: 'libdatachannel',
      }),
    );
    const providers = await Promise.all(
      Object.entries(offered).map(async ([name, capabilities]) => {
        const plugin = await desk.plugin(name, capabilities);
        const args = ['--plugin', plugin];
        const provider = parts.use(await enroll(laptop, { name, engine: 'libdatachannel', args }));
        return [name, provider] as const;
      }),
    );
    for (const [name] of providers) await untilOffers(laptop, name, offers('demo.work'));
    return new ProviderMesh(desk, laptop, new Map(providers), parts.move());
  }

  provider(name: string): CocoonProcess {
    const found = this.#providers.get(name);
    assert.ok(found);
    return found;
  }

  /** Every provider answers at once again. */
  oblige(): void {
    for (const name of this.names) this.desk.when(name);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#parts.disposeAsync();
  }
}
