/** Chat by a model in a folder of this device. Its process starts with the first chat (`inference-process`). */

import { basename, resolve } from 'node:path';
import type { Clock } from '@cocoon-mesh/protocol';
import { MeshError, limits, toMeshError } from '@cocoon-mesh/protocol';
import type { ChatBackend, ChatModel, ModelRequest } from './chat-backend.ts';
import { gatherCompletion, usageChunk } from './chat-gather.ts';
import type { ChatChunk, ChatCompletion, ChatDelta } from './chat-payload.ts';
import { maxAnswerTokens } from './chat-payload.ts';
import { InferenceProcess } from './inference-process.node.ts';
import { readLlmFolder } from './llm-folder.node.ts';
import type { Generation, LlmEnd, LlmPiece, MorePieces } from './llm-messages.ts';
import { abortError } from './llm-server.ts';
import { ChatTemplate } from './llm-template.ts';
import type { WrittenPiece } from './llm-tool-calls.ts';
import { ToolCallReader } from './llm-tool-calls.ts';
import { stampOf } from './model-folder.node.ts';
import { shortName } from './model-address.ts';
import { newChatId } from './openai-chat.ts';
import { runtimeProblem } from './onnx-runtime.node.ts';

/** Memory of a model that nobody asks. */
const idleMs = 10 * 60_000;
/** Some GiB from a slow disk. */
const loadTimeoutMs = 120_000;
/** Pieces that may be on their way to a reader that is slower than the model. */
const credit = 64;

const lookedAt = [
  '.',
  'onnx',
  'config.json',
  'generation_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'chat_template.jinja',
];

export interface LlmChatOptions {
  readonly folder: string;
  /** How it is called; null: as its folder. */
  readonly model: string | null;
  readonly clock: Clock;
}

export class LlmChat implements ChatBackend {
  readonly limit = 1;
  readonly name: string;
  readonly #folder: string;
  readonly #model: string;
  readonly #clock: Clock;
  readonly #process: InferenceProcess;
  #changed: () => void = () => undefined;
  /** What the files said when they last changed. */
  #looked: { readonly stamp: string; readonly tools: boolean | MeshError } | null = null;

  constructor({ folder, model, clock }: LlmChatOptions) {
    this.#folder = resolve(folder);
    this.#model = model ?? basename(this.#folder);
    this.name = `The model in ${this.#folder}`;
    this.#clock = clock;
    this.#process = new InferenceProcess({
      module: new URL('./llm-model.node.ts', import.meta.url).href,
      source: () => ({ folder: this.#folder }),
      clock,
      idleMs,
      loadTimeoutMs,
      onChange: () => this.#changed(),
    });
  }

  watch(changed: () => void): void {
    this.#changed = changed;
  }

  async models(): Promise<ChatModel[]> {
    const missing = runtimeProblem();
    if (missing !== null) throw new MeshError('model_unavailable', missing);
    if (this.#process.problem) throw this.#process.problem;
    return [{ name: this.#model, tools: await this.#callsTools(), loaded: this.#process.warm }];
  }

  async *stream(request: ModelRequest, signal: AbortSignal): AsyncGenerator<ChatChunk> {
    this.#assertAble(request);
    const key = newChatId('');
    const pieces = new Pieces();
    const left = new AbortController();
    const ended = this.#process
      .run(generationOf(request, key), {
        signal: AbortSignal.any([signal, left.signal]),
        onChunk: (piece) => pieces.push((piece as LlmPiece).text),
      })
      .finally(() => pieces.end());
    // Its error is thrown below, behind the pieces that came before it.
    ended.catch(() => undefined);
    const writer = new ChunkWriter(request.model, Math.floor(this.#clock.now() / 1000));
    const reader = new ToolCallReader();
    const reads = (request.tools ?? []).length > 0 && request.tool_choice !== 'none';
    try {
      let taken = 0;
      for await (const text of pieces) {
        const written: WrittenPiece[] = reads ? reader.push(text) : [{ kind: 'text', text }];
        for (const piece of written) yield writer.piece(piece);
        taken++;
        if (taken % (credit / 2) === 0 && !pieces.isEnded) this.#more(key);
      }
      const { reason, promptTokens, completionTokens } = (await ended) as LlmEnd;
      for (const piece of reader.rest()) yield writer.piece(piece);
      yield writer.end(reason);
      yield usageChunk(writer.head, {
        prompt_tokens: promptTokens,
        completion_tokens: completionTokens,
        total_tokens: promptTokens + completionTokens,
      });
    } catch (thrown) {
      throw signal.aborted ? abortError(signal) : thrown;
    } finally {
      left.abort(new MeshError('cancelled'));
    }
  }

  async complete(request: ModelRequest, signal: AbortSignal): Promise<ChatCompletion> {
    return gatherCompletion(this.stream(request, signal), limits.maxCapabilityJsonBytes / 4);
  }

  async close(): Promise<void> {
    this.#changed = () => undefined;
    await this.#process.close();
  }

  /** @throws MeshError model_unavailable */
  async #callsTools(): Promise<boolean> {
    const stamp = await stampOf(this.#folder, lookedAt);
    if (this.#looked?.stamp !== stamp) this.#looked = { stamp, tools: await this.#look() };
    const { tools } = this.#looked;
    if (tools instanceof MeshError) throw tools;
    return tools;
  }

  async #look(): Promise<boolean | MeshError> {
    try {
      const { template, specialTokens } = await readLlmFolder(this.#folder);
      return new ChatTemplate(template, specialTokens).callsTools;
    } catch (thrown) {
      return toMeshError(thrown, 'model_unavailable');
    }
  }

  #more(key: string): void {
    const request: MorePieces = { kind: 'more', key, credit: credit / 2 };
    // What goes wrong with the process is said by the generation itself.
    this.#process.run(request).catch(() => undefined);
  }

  /** @throws MeshError not_found | bad_payload */
  #assertAble({
    model,
    messages,
    n,
    tools,
    tool_choice: choice,
    response_format: format,
  }: ModelRequest): void {
    if (shortName(model) !== shortName(this.#model))
      throw new MeshError('not_found', `${this.name} is ${this.#model}, not ${model}`);
    const cannot = (field: string, what: string): MeshError =>
      new MeshError('bad_payload', `The field ${field} asks for what ${this.#model} cannot do here: ${what}`);
    if ((n ?? 1) !== 1) throw cannot('n', 'give several answers at once');
    if (format && format.type !== 'text') throw cannot('response_format', 'be held to a form');
    if (choice !== undefined && choice !== null && choice !== 'auto' && choice !== 'none')
      throw cannot('tool_choice', 'be made to call a tool');
    if (this.#looked?.tools === false && tools && tools.length > 0 && choice !== 'none')
      throw cannot('tools', 'call tools');
    for (const [i, { content }] of messages.entries())
      if (Array.isArray(content) && content.some(({ type }) => type !== 'text'))
        throw cannot(`messages.${i}.content`, 'take anything but text');
  }
}

function generationOf(request: ModelRequest, key: string): Generation {
  const { messages, tools, tool_choice: choice, temperature, top_p: topP, seed, stop } = request;
  const topK = request['top_k'];
  return {
    kind: 'generate',
    key,
    messages,
    tools: choice === 'none' ? [] : (tools ?? []),
    maxTokens: maxAnswerTokens(request),
    temperature: temperature ?? null,
    topP: topP ?? null,
    topK: typeof topK === 'number' ? topK : null,
    seed: seed ?? null,
    stop: typeof stop === 'string' ? [stop] : (stop ?? []),
    credit,
  };
}

class ChunkWriter {
  readonly head: Pick<ChatChunk, 'id' | 'object' | 'created' | 'model'>;
  #calls = 0;
  #isFirst = true;

  constructor(model: string, created: number) {
    this.head = { id: newChatId(), object: 'chat.completion.chunk', created, model };
  }

  piece(piece: WrittenPiece): ChatChunk {
    if (piece.kind === 'text') return this.#chunk({ content: piece.text }, null);
    const call = {
      index: this.#calls++,
      id: newChatId('call_'),
      type: 'function',
      function: { name: piece.name, arguments: piece.arguments },
    };
    return this.#chunk({ tool_calls: [call] }, null);
  }

  end(reason: string): ChatChunk {
    return this.#chunk({}, this.#calls > 0 ? 'tool_calls' : reason);
  }

  #chunk(delta: ChatDelta, reason: string | null): ChatChunk {
    const role = this.#isFirst ? { role: 'assistant' } : {};
    this.#isFirst = false;
    return { ...this.head, choices: [{ index: 0, delta: { ...role, ...delta }, finish_reason: reason }] };
  }
}

/** Pieces that have come and are not taken yet. */
class Pieces implements AsyncIterable<string> {
  #ready: string[] = [];
  #ended = false;
  #waiting: PromiseWithResolvers<void> | null = null;

  get isEnded(): boolean {
    return this.#ended;
  }

  push(text: string): void {
    this.#ready.push(text);
    this.#waiting?.resolve();
  }

  end(): void {
    this.#ended = true;
    this.#waiting?.resolve();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<string> {
    for (;;) {
      const ready = this.#ready;
      this.#ready = [];
      yield* ready;
      if (this.#ready.length > 0) continue;
      if (this.#ended) return;
      this.#waiting = Promise.withResolvers();
      await this.#waiting.promise;
      this.#waiting = null;
    }
  }
}
