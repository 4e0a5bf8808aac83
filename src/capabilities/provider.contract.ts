/** What every provider must hold, whoever it belongs to: built in, of a plugin, or in front of another program. */

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { CapabilityAnswerMessage } from '@cocoon-mesh/protocol';
import { errorCodes, isErrorCode, systemClock } from '@cocoon-mesh/protocol';
import { LocalCapabilities } from './local-capabilities.ts';
import type { Content, Provider } from './provider.ts';

export interface ProviderUnderTest {
  readonly provider: Provider;
  /** One that is answered. */
  readonly good: Content;
  /** One that takes so long that it can be cancelled. */
  readonly long: Content;
  /** One that it refuses; null: it takes everything. */
  readonly bad: Content | null;
  readonly features?: readonly string[];
  /** Of whatever the provider stands on. Called after it was closed. */
  release?(): Promise<void>;
}

const limitMs = 20_000;
const from = { id: 'peer-asker', name: 'asker' };

/** Registers the tests. */
export function providerContract(name: string, open: () => Promise<ProviderUnderTest>): void {
  describe(`${name}, as every provider,`, () => {
    let tested: ProviderUnderTest;
    const local = new LocalCapabilities({ clock: systemClock, log: () => undefined });

    before(async () => {
      tested = await open();
      local.add(tested.provider);
    });

    after(async () => {
      await tested.provider.close();
      await tested.release?.();
    });

    function ask(
      asked: Content,
      signal: AbortSignal,
    ): AsyncGenerator<CapabilityAnswerMessage, void, undefined> {
      const { provider, features = [] } = tested;
      const { protocol, version } = provider;
      const call = { ...asked, session: null, features, from, timeoutMs: limitMs };
      return local.answer({ protocol, version, features }, call, signal);
    }

    /** `end`, or the code of the error. */
    async function outcome(asked: Content, signal = never): Promise<string> {
      let last = 'nothing';
      for await (const message of ask(asked, signal))
        last = message.kind === 'error' ? message.code : message.kind;
      return last;
    }

    async function free(): Promise<void> {
      if (local.load === 0) return;
      await new Promise<void>((resolve) => {
        const forget = local.onChange(() => {
          if (local.load !== 0) return;
          forget();
          resolve();
        });
      });
    }

    test('serves, and says what it is', () => {
      assert.equal(tested.provider.state.problem, null);
      const { protocol, version } = tested.provider;
      assert.deepEqual(local.advertised(), [{ protocol, version }]);
    });

    test('answers with what can be sent', async () => {
      assert.equal(await outcome(tested.good), 'end');
    });

    test('answers several at once', async () => {
      const count = Math.min(4, tested.provider.limit + tested.provider.maxQueued);
      const outcomes = await Promise.all(Array.from({ length: count }, () => outcome(tested.good)));
      assert.deepEqual(new Set(outcomes), new Set(['end']));
      await free();
    });

    test('refuses what it does not take as the fault of the request, and serves the next one', async (t) => {
      if (!tested.bad) return t.skip('It takes everything');
      const code = await outcome(tested.bad);
      assert.ok(isErrorCode(code), code);
      assert.equal(errorCodes[code].status, 400, code);
      assert.equal(await outcome(tested.good), 'end');
    });

    test('ends soon after it was cancelled, and serves the next one', { timeout: limitMs }, async () => {
      const cancel = new AbortController();
      const ended = outcome(tested.long, cancel.signal);
      await new Promise((resolve) => setImmediate(resolve));
      cancel.abort();
      assert.equal(await ended, 'cancelled');
      await free();
      assert.equal(await outcome(tested.good), 'end');
    });

    test('ends when its answer is left after the first piece', { timeout: limitMs }, async () => {
      const answer = ask(tested.good, never);
      await answer.next();
      await answer.return(undefined);
      await free();
    });

    test('does not begin what was cancelled before', async () => {
      assert.equal(await outcome(tested.good, AbortSignal.abort()), 'cancelled');
      await free();
    });

    test('tells nobody who has forgotten it, and is closed once, however often', async () => {
      const forget = tested.provider.onChange(() => assert.fail('was told'));
      forget();
      forget();
      await tested.provider.close();
      await tested.provider.close();
      const code = await outcome(tested.good);
      assert.notEqual(code, 'end');
    });
  });
}

const never = new AbortController().signal;
