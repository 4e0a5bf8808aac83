/**
 * How code outside of this project asks for capabilities: plugins of the daemon that runs them, programs of a
 * gateway. Both ask alike. With schemas an asker gets types, and errors where an answer does not fit them.
 */

import type { AnswerSource, CapabilityAnswer, CapabilityRequest, Content } from '@cocoon-mesh/capabilities';
import type { Json } from '@cocoon-mesh/protocol';
import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import { limits } from '@cocoon-mesh/protocol/limits.ts';
import type { JsonOf } from './json-of.ts';
import type { JsonSchema, SchemaCheck } from './schema-check.ts';

/** What is wanted. Schemas are checked at this end too, whatever the provider's are. */
export interface WantedCapability {
  readonly protocol: string;
  /** Semver range. */
  readonly version: string;
  readonly payload?: JsonSchema;
  readonly answer?: JsonSchema;
  readonly chunk?: JsonSchema;
}

export type AskOptions = Omit<CapabilityRequest, 'protocol' | 'version' | 'payload' | 'parts'> & {
  /** What is not text. */
  readonly parts?: readonly Uint8Array[];
};

export interface CapabilityResult<Result> {
  /** Of a stream that ends with nothing: its chunks in a list. */
  readonly result: Result;
  readonly parts: readonly Uint8Array[];
  readonly source: AnswerSource;
}

type Field<Wanted, Name extends string> = Wanted extends { readonly [Key in Name]: infer Schema }
  ? JsonOf<Schema>
  : Json;
export type PayloadOf<Wanted> = Field<Wanted, 'payload'>;
export type AnswerOf<Wanted> = Field<Wanted, 'answer'>;

export interface Asking {
  /** @throws MeshError capability_not_found | overloaded | bad_payload | bad_answer | timeout | … */
  requestCapability<const Wanted extends WantedCapability>(
    wanted: Wanted,
    payload: PayloadOf<Wanted>,
    options?: AskOptions,
  ): Promise<CapabilityResult<AnswerOf<Wanted>>>;
  /** The answer as it comes. Leaving `chunks` early cancels it. Errors are those of the answer. */
  streamCapability<const Wanted extends WantedCapability>(
    wanted: Wanted,
    payload: PayloadOf<Wanted>,
    options?: AskOptions,
  ): CapabilityAnswer;
}

/** Loaded when there is a schema: it is the largest part of what a plugin's process needs. */
type CompileSchema = (schema: JsonSchema) => SchemaCheck;

/** @param ask to the daemon or its gateway */
export function asking(
  ask: (request: CapabilityRequest) => CapabilityAnswer,
  loadCompiler: () => Promise<CompileSchema>,
): Asking {
  return {
    async requestCapability(wanted, payload, options = {}) {
      const { protocol, version } = wanted;
      const check = await checkOf(wanted, loadCompiler);
      check('payload', payload, 'bad_payload');
      const answer = ask({
        ...options,
        protocol,
        version,
        payload,
        parts: options.parts ?? [],
      });
      // Who takes the chunks sees the error.
      answer.device.catch(() => undefined);
      const chunks: Json[] = [];
      const parts: Uint8Array[] = [];
      let bytes = 0;
      for await (const chunk of answer.chunks) {
        check('chunk', chunk.payload, 'bad_answer');
        bytes += sizeOf(chunk);
        if (bytes > maxCollectedBytes)
          throw new MeshError(
            'message_too_large',
            'The stream is too long for one answer; read it as a stream',
          );
        chunks.push(chunk.payload);
        parts.push(...chunk.parts);
      }
      const end = await answer.end;
      const streamed = chunks.length > 0 && end.payload === null;
      if (!streamed) check('answer', end.payload, 'bad_answer');
      const result = streamed ? chunks : end.payload;
      return {
        result: result as AnswerOf<typeof wanted>,
        parts: [...parts, ...end.parts],
        source: end.source,
      };
    },
    streamCapability(wanted, payload, options = {}) {
      const { protocol, version } = wanted;
      const answer = ask({
        ...options,
        protocol,
        version,
        payload,
        parts: options.parts ?? [],
      });
      return { ...answer, chunks: checkedChunks(answer.chunks, wanted, loadCompiler) };
    },
  };
}

/** What an asker holds of an answer that it wants as a whole. */
const maxCollectedBytes = limits.maxCapabilityMessageBytes;

function sizeOf({ payload, parts }: Content): number {
  return parts.reduce((sum, part) => sum + part.length, JSON.stringify(payload).length);
}

async function* checkedChunks(
  chunks: AsyncIterable<Content>,
  wanted: WantedCapability,
  loadCompiler: () => Promise<CompileSchema>,
): AsyncGenerator<Content, void, undefined> {
  const check = await checkOf(wanted, loadCompiler);
  for await (const chunk of chunks) {
    check('chunk', chunk.payload, 'bad_answer');
    yield chunk;
  }
}

type Check = (
  what: 'payload' | 'answer' | 'chunk',
  value: unknown,
  code: 'bad_payload' | 'bad_answer',
) => void;

async function checkOf(wanted: WantedCapability, loadCompiler: () => Promise<CompileSchema>): Promise<Check> {
  const { payload, answer, chunk, protocol } = wanted;
  if (payload === undefined && answer === undefined && chunk === undefined) return () => undefined;
  const compile = await loadCompiler();
  return (what, value, code) => {
    const schema = wanted[what];
    const problem = schema === undefined ? null : compile(schema).problem(value);
    if (problem !== null)
      throw new MeshError(code, `The ${what} of ${protocol} is not as wanted: ${problem}`);
  };
}
