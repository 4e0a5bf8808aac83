/**
 * A plugin with an answer in one piece, an answer as a stream, and a query. `cocoon plugins add examples/shout` runs
 * it; `cocoon request text.shout '{"text":"hello"}'` asks for it, from any of your devices.
 */

import { PluginError, definePlugin, ranked } from 'cocoon/plugin';
import type { PluginContext, RequestContext } from 'cocoon/plugin';

interface Shouted {
  readonly text: string;
  readonly at: number;
}

/** The newest last, and not without end. */
const shouted: Shouted[] = [];
const maxKept = 100;

export default definePlugin({
  capabilities: {
    'text.shout': {
      // The payload follows the manifest's schema, or the request does not get here.
      handle({ text }: { text: string }, { settings, log, from }: RequestContext) {
        if (text.trim() === '') throw new PluginError('bad_payload', 'There is nothing to shout');
        const loud = `${text.toUpperCase()}${settings['mark'] as string}`;
        shouted.push({ text: loud, at: shouted.length });
        if (shouted.length > maxKept) shouted.shift();
        log.info('Shouted', { for: from.name });
        return { text: loud };
      },
    },
    'text.echo': {
      /** Whoever leaves the answer early ends this loop: no more is made than is read. */
      async *handle({ text, times }: { text: string; times: number }, { signal }: RequestContext) {
        for (let sent = 0; sent < times; sent++) {
          signal.throwIfAborted();
          yield text;
        }
        return { times };
      },
    },
  },
  queries: {
    /** `cocoon query custom --params '{"name":"shouted"}'`: of all devices, the newest first. */
    shouted: () => shouted.map(({ text, at }) => ranked(at, { text })).toReversed(),
  },
  start({ log, dataDir }: PluginContext) {
    log.info('Ready to shout', { data: dataDir });
  },
});
