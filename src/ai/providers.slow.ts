import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Provider } from '@cocoon-mesh/capabilities';
import type { ProviderUnderTest } from '@cocoon-mesh/capabilities/provider.contract.ts';
import { providerContract } from '@cocoon-mesh/capabilities/provider.contract.ts';
import type { Json } from '@cocoon-mesh/protocol';
import { systemClock } from '@cocoon-mesh/protocol';
import { chatProvider } from './chat.node.ts';
import { BackendChatProvider } from './chat-provider.ts';
import { until } from './embeddings-calls.contract.ts';
import { embeddingsProvider } from './embeddings.node.ts';
import { writeLlmFolder } from './llm-folder.contract.ts';
import { ScriptedModelServer, answerJson, delta, events, usage } from './model-server.contract.ts';
import { writeTextModel } from './text-models.contract.ts';

type Case = Omit<ProviderUnderTest, 'release'>;

/** Of a server of models that answers both, and never where it is told to wait. */
async function withServer(open: (url: string) => Promise<Case>): Promise<ProviderUnderTest> {
  const isLong = (body: object): boolean => JSON.stringify(body).includes('wait');
  const server = await ScriptedModelServer.start({
    'GET /v1/models': ({ response }) =>
      answerJson(response, 200, { object: 'list', data: [{ id: 'small' }] }),
    'POST /v1/embeddings': ({ body, response }) => {
      if (isLong(body)) return;
      const input = [body['input']].flat();
      const data = input.map((_, index) => ({ index, embedding: [1, 0, 0.5] }));
      answerJson(response, 200, {
        object: 'list',
        data,
        model: 'small',
        usage: { prompt_tokens: 1, total_tokens: 1 },
      });
    },
    'POST /v1/chat/completions': ({ body, response }) => {
      if (isLong(body)) return;
      const send = events(response);
      send(delta({ role: 'assistant', content: 'Hello' }));
      send(delta({ content: ' mesh' }, 'stop'));
      send({ ...delta({}), choices: [], usage });
      send('[DONE]');
      response.end();
    },
  });
  try {
    return { ...(await open(server.url)), release: () => server.stop() };
  } catch (thrown) {
    await server.stop();
    throw thrown;
  }
}

/** Of a folder with a model in it. */
async function withFolder(
  write: (folder: string) => unknown,
  open: (folder: string) => Promise<Case>,
): Promise<ProviderUnderTest> {
  const folder = await mkdtemp(join(tmpdir(), 'cocoon-provider-'));
  await write(folder);
  return { ...(await open(folder)), release: () => rm(folder, { recursive: true, force: true }) };
}

async function embeddings(setting: string | null, long: Json): Promise<Case> {
  const provider = embeddingsProvider({ setting, apiKey: null, device: 'here', clock: systemClock });
  await until(provider, ({ problem }) => problem === null);
  return caseOf(provider, { input: ['one', 'two'] }, long, { input: [1, 'x', null] });
}

async function chat(address: string, stream: boolean, long: object): Promise<Case> {
  const provider = chatProvider({ provider: address, model: null, apiKey: null, clock: systemClock });
  if (!(provider instanceof BackendChatProvider)) throw new Error('There is no chat');
  await provider.refresh();
  const messages = [{ role: 'user', content: 'hi' }];
  return caseOf(
    provider,
    { messages, max_tokens: 4, stream },
    { messages, stream, ...long },
    { messages: 'hi' },
  );
}

function caseOf(provider: Provider, good: Json, long: Json, bad: Json): Case {
  const content = (payload: Json) => ({ payload, parts: [] });
  return { provider, good: content(good), long: content(long), bad: content(bad) };
}

const waiting = { messages: [{ role: 'user', content: 'wait' }] };

providerContract('lexical embeddings', async () => ({
  ...(await embeddings(null, {
    input: Array.from({ length: 2_000 }, () => 'many words of a text '.repeat(20)),
  })),
}));
providerContract('embeddings of a folder', () =>
  withFolder(writeTextModel, (folder) =>
    embeddings(folder, { input: Array<string>(200).fill('a few words') }),
  ),
);
providerContract('embeddings of a server', () =>
  withServer((url) => embeddings(`${url}/v1#small`, { input: ['wait'] })),
);
providerContract('chat of a folder', () =>
  withFolder(writeLlmFolder, (folder) => chat(folder, false, { max_tokens: 200 })),
);
providerContract('chat of a server', () => withServer((url) => chat(`${url}/v1/`, true, waiting)));
