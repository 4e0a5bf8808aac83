/**
 * Prints what the way of a chat costs. In one process: processor time for each streamed chunk, of a provider that reads
 * a server with OpenAI's API or Ollama, and of the gateway behind it. Through installed devices, from the gateway of
 * one to the model server of another: how much later a chunk comes than from the server itself (at most 2 ms), and how
 * long after a client has gone the server of the model knows of it (at most 50 ms). All of it on loopback; the servers
 * are a process of their own.
 *
 *   node bench/chat.ts [--chunks 20000] [--rounds 5] [--tokens 400] [--aborts 100]
 */

import type { ChildProcess } from 'node:child_process';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { BackendChatProvider } from '@cocoon-mesh/ai/chat-provider.ts';
import { chatProvider } from '@cocoon-mesh/ai/chat.node.ts';
import { readEvents } from '@cocoon-mesh/ai/sse.ts';
import type { Content } from '@cocoon-mesh/capabilities';
import { systemClock } from '@cocoon-mesh/protocol';
import { splitUrl } from '../cocoon/gateway/feature-routes.ts';
import { ModelMesh } from '../cocoon/gateway/model-mesh.contract.ts';
import { answerOpenAi } from '../cocoon/gateway/openai-routes.ts';
import { box, laptopAlone, running } from '../test/stories/model-mesh.ts';

const { values } = parseArgs({
  options: {
    chunks: { type: 'string', default: '20000' },
    rounds: { type: 'string', default: '5' },
    tokens: { type: 'string', default: '400' },
    aborts: { type: 'string', default: '100' },
    serve: { type: 'boolean', default: false },
  },
});
const chunks = Number(values.chunks);
const paceMs = 5;

if (values.serve) await serveModel();
else await measure();

/** Both protocols; `endless` in the chat: one token, then nothing, until the client is gone. */
async function serveModel(): Promise<void> {
  const token = (content: string, reason: string | null = null): string =>
    JSON.stringify({
      id: 'chatcmpl-1',
      object: 'chat.completion.chunk',
      created: 1,
      model: 'm',
      choices: [{ index: 0, delta: { content }, finish_reason: reason }],
    });
  const usage = JSON.stringify({
    choices: [],
    usage: { prompt_tokens: 1, completion_tokens: chunks, total_tokens: chunks + 1 },
  });
  const line = (content: string, done: boolean): string =>
    `${JSON.stringify({ model: 'm', created_at: '2026-01-01T00:00:00Z', message: { role: 'assistant', content }, done })}\n`;
  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    let body = '';
    for await (const text of request.setEncoding('utf8') as AsyncIterable<string>) body += text;
    const json = (value: unknown): void => void response.end(JSON.stringify(value));
    response.on('close', () => {
      if (!response.writableFinished) process.send?.({ gone: true });
    });
    switch (request.url) {
      case '/v1/models':
        return json({ data: [{ id: 'm' }] });
      case '/api/tags':
      case '/api/ps':
        return json({ models: [{ name: 'm' }] });
      case '/api/show':
        return json({ capabilities: ['completion'], model_info: { 'x.context_length': 8192 } });
    }
    const isOllama = request.url === '/api/chat';
    response.writeHead(200, { 'content-type': isOllama ? 'application/x-ndjson' : 'text/event-stream' });
    const said = isOllama ? line(' word', false) : `data: ${token(' word')}\n\n`;
    if (body.includes('endless')) return void response.write(said);
    if (body.includes('paced')) {
      // As a quick model does it; each says when it left.
      for (let i = 0; i < Number(values.tokens); i++) {
        await pause(paceMs);
        response.write(`data: ${token(` ${moment()}`)}\n\n`);
      }
      return void response.end(`data: ${token('', 'stop')}\n\ndata: [DONE]\n\n`);
    }
    for (let i = 0; i < chunks; i++) if (!response.write(said)) await once(response, 'drain');
    response.end(
      isOllama ? line('', true) : `data: ${token('', 'stop')}\n\ndata: ${usage}\n\ndata: [DONE]\n\n`,
    );
  };
  const server = createServer((request, response) => void answer(request, response));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  process.send?.({ port: (server.address() as AddressInfo).port });
  process.on('disconnect', () => process.exit());
}

async function measure(): Promise<void> {
  const child = fork(
    import.meta.filename,
    ['--serve', '--chunks', String(chunks), '--tokens', values.tokens],
    { execArgv: [] },
  );
  const [{ port }] = (await once(child, 'message')) as [{ port: number }];
  const model = `http://127.0.0.1:${port}`;
  const shared = { model: 'm', apiKey: null, ollamaHost: model, clock: systemClock };
  const openAi = await opened({ provider: model, ...shared });
  const ollama = await opened({ provider: 'ollama', ...shared });

  const mesh = new ModelMesh();
  mesh.add('gpu', openAi);
  const routes = {
    requestCapability: mesh.request,
    modelDevices: () => mesh.modelDevices,
    clock: systemClock,
  };
  const server = createServer(
    (request, response) => void answerOpenAi(request, response, splitUrl(request.url ?? ''), routes),
  );
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const gateway = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

  const ways: Readonly<Record<string, () => Promise<void>>> = {
    'bytes alone': () => drain(`${model}/v1/chat/completions`),
    'provider, OpenAI': () => read(openAi),
    'provider, Ollama': () => read(ollama),
    'provider and gateway': () => drain(`${gateway}/v1/chat/completions`),
  };
  const costs = new Map<string, number[]>(Object.keys(ways).map((name) => [name, []]));
  // Interleaved, and the first round warms up.
  for (let round = 0; round <= Number(values.rounds); round++)
    for (const [name, run] of Object.entries(ways)) {
      const before = process.cpuUsage();
      await run();
      const { user, system } = process.cpuUsage(before);
      if (round > 0) costs.get(name)?.push((user + system) / chunks);
    }
  console.table(
    Object.fromEntries(
      [...costs].map(([name, each]) => [name, { 'µs of processor / chunk': at(each, 0.5).toFixed(2) }]),
    ),
  );

  server.close();
  server.closeAllConnections();
  await Promise.all([openAi.close(), ollama.close()]);
  await throughDevices(child, model);
  child.disconnect();
}

async function throughDevices(child: ChildProcess, model: string): Promise<void> {
  const { signaling, laptop } = await laptopAlone();
  const gpu = await box(laptop, 'gpu', { COCOON_LLM_PROVIDER: model }, ['llm.chat']);
  try {
    const headers = { authorization: `Bearer ${await laptop.gatewayToken()}` };
    const late = { itself: [] as number[], devices: [] as number[] };
    for (let round = 0; round <= Number(values.rounds); round++) {
      const itself = await latenesses(model, {});
      const devices = await latenesses(laptop.gateway, headers);
      if (round === 0) continue;
      late.itself.push(...itself);
      late.devices.push(...devices);
    }
    const row = (numbers: readonly number[]) => ({
      'p50 ms': at(numbers, 0.5).toFixed(2),
      'p99 ms': at(numbers, 0.99).toFixed(2),
    });
    console.table({
      'a chunk from the model server itself': row(late.itself),
      'a chunk through two devices': row(late.devices),
    });

    const aborts: number[] = [];
    for (let i = 0; i < Number(values.aborts); i++) {
      const cancel = new AbortController();
      const response = await fetch(`${laptop.gateway}/v1/chat/completions`, {
        ...chat('endless', headers),
        signal: cancel.signal,
      });
      await response.body?.getReader().read();
      const gone = once(child, 'message');
      const started = performance.now();
      cancel.abort();
      await gone;
      // With the message of the other process, which is part of it here.
      aborts.push(performance.now() - started);
    }
    await running(gpu, 0);
    console.table({ 'abort at the client to the model server': row(aborts) });
  } finally {
    for (const cocoon of [gpu, laptop, signaling]) await cocoon[Symbol.asyncDispose]();
  }
}

/** How long each chunk was on its way. */
async function latenesses(url: string, headers: Record<string, string>): Promise<number[]> {
  const response = await fetch(`${url}/v1/chat/completions`, chat('paced', headers));
  if (!response.ok) throw new Error(await response.text());
  const late: number[] = [];
  for await (const data of readEvents(response.body as unknown as AsyncIterable<Uint8Array>, 1_000_000)) {
    const came = moment();
    const [, sent] = /"content":" ([\d.]+)"/.exec(data) ?? [];
    if (sent !== undefined) late.push(came - Number(sent));
  }
  if (late.length < Number(values.tokens)) throw new Error(`only ${late.length} chunks came`);
  return late;
}

/** The same for every process of this machine. */
function moment(): number {
  return performance.timeOrigin + performance.now();
}

async function opened(options: Parameters<typeof chatProvider>[0]): Promise<BackendChatProvider> {
  const provider = chatProvider(options);
  if (!(provider instanceof BackendChatProvider)) throw new Error('no provider');
  await provider.refresh();
  if (provider.state.problem !== null) throw new Error(provider.state.problem);
  return provider;
}

function chat(content: string, headers: Record<string, string> = {}): RequestInit {
  return {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify({ model: 'm', stream: true, messages: [{ role: 'user', content }] }),
  };
}

async function drain(url: string): Promise<void> {
  const response = await fetch(url, chat('Hi'));
  let bytes = 0;
  for await (const piece of response.body as unknown as AsyncIterable<Uint8Array>) bytes += piece.length;
  if (bytes < chunks * 100) throw new Error(`only ${bytes} bytes came`);
}

async function read(provider: BackendChatProvider): Promise<void> {
  const answer = provider.handle({
    payload: { model: 'm', stream: true, messages: [{ role: 'user', content: 'Hi' }] },
    parts: [],
    signal: new AbortController().signal,
    session: null,
    features: [],
    from: { id: 'x', name: 'bench' },
  }) as AsyncIterable<Content>;
  let count = 0;
  for await (const _chunk of answer) count++;
  if (count < chunks) throw new Error(`only ${count} chunks came`);
}

function at(numbers: readonly number[], part: number): number {
  return numbers.toSorted((a, b) => a - b)[Math.floor(part * (numbers.length - 1))] ?? NaN;
}
