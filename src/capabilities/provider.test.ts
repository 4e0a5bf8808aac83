import { providerContract } from './provider.contract.ts';
import { MeshError } from '@cocoon-mesh/protocol';
import type { Provider } from './provider.ts';
import { content, scriptedProvider, untilAborted } from './scripted-provider.contract.ts';

const handle: Provider['handle'] = async ({ payload, signal }) => {
  if (payload === 'long') await untilAborted(signal);
  if (payload === 'bad') throw new MeshError('bad_payload', 'It is bad');
  return content(payload);
};

for (const streams of [false, true])
  providerContract(streams ? 'a provider that streams' : 'a provider that answers in one piece', async () => {
    const stop = new AbortController();
    const provider = scriptedProvider({
      handle: (call) => {
        stop.signal.throwIfAborted();
        return streams ? pieces(call) : handle(call);
      },
    });
    const close = async (): Promise<void> => stop.abort();
    const bad = content('bad');
    return { provider: { ...provider, close }, good: content('good'), long: content('long'), bad };
  });

const pieces: (call: Parameters<Provider['handle']>[0]) => ReturnType<Provider['handle']> = async function* (
  call,
) {
  const whole = await (handle(call) as Promise<ReturnType<typeof content>>);
  yield whole;
  yield whole;
};
