/**
 * What `embeddings` 1.0.0 takes and gives: the embeddings of OpenAI, with the vectors beside the JSON as one part of
 * packed little-endian float32, one vector after the other. An answer always names the space of its vectors: those of
 * two spaces are never comparable.
 */

import type { Content } from '@cocoon-mesh/capabilities';
import { MeshError, limits } from '@cocoon-mesh/protocol';
import { unpackVector } from '@cocoon-mesh/vectors';
import * as z from 'zod/mini';

export const embeddingsProtocol = 'embeddings';
export const embeddingsVersion = '1.0.0';

/** As OpenAI's. */
export const maxInputs = 2048;
/** Leaves room for the JSON beside the vectors. */
const maxVectorBytes = limits.maxCapabilityMessageBytes - 64 * 1024;
const maxNameLength = 256;

const textField = z.string('has to be a text').check(z.minLength(1, 'must not be empty'));
const nameField = z.string('has to be a text').check(z.minLength(1), z.maxLength(maxNameLength));
const count = z.int().check(z.nonnegative());
const dimensionsField = z.int('has to be a whole number').check(z.positive());

export const embeddingsRequestSchema = z.object({
  /** Lists of token numbers, which OpenAI takes too, mean something to one model only. */
  input: z.union([textField, z.array(textField).check(z.minLength(1), z.maxLength(maxInputs))]),
  /** Null or absent: whatever the provider has. */
  model: z.optional(z.nullable(nameField)),
  /** Has to be what the model has: vectors of another length are another space. */
  dimensions: z.optional(z.nullable(dimensionsField)),
  /** Cuts off what the model does not take, instead of refusing it. */
  truncate: z.optional(z.nullable(z.boolean('has to be true or false'))),
  /** Of vectors within JSON (`embeddings-json.node.ts`); between devices they are packed in any case. */
  encoding_format: z.optional(z.nullable(z.enum(['float', 'base64'], 'has to be float or base64'))),
});
export type EmbeddingsRequest = z.infer<typeof embeddingsRequestSchema>;

export const embeddingsAnswerSchema = z.object({
  model: nameField,
  /** SHA-256 of what decides about the vectors, as hex. */
  space: z.string().check(z.regex(/^[0-9a-f]{64}$/)),
  /** False: it compares words, not meaning. */
  semantic: z.boolean(),
  dimensions: dimensionsField,
  count,
  /** Tokens; for the lexical space words. */
  usage: z.object({ prompt_tokens: count, total_tokens: count }),
});
export type EmbeddingsAnswer = z.infer<typeof embeddingsAnswerSchema>;

export interface PackedEmbeddings extends EmbeddingsAnswer {
  /** Little-endian float32, one vector behind the other. */
  readonly packed: Uint8Array;
}

/** What is embedded by what. */
export interface EmbeddingsSpace {
  readonly model: string;
  readonly space: string;
  readonly semantic: boolean;
  readonly dimensions: number;
}

export interface EmbeddingsTask {
  readonly texts: readonly string[];
  readonly truncate: boolean;
}

/** @throws MeshError bad_payload naming the field · capability_not_found: it is of another model */
export function readEmbeddingsRequest({ payload, parts }: Content, here: EmbeddingsSpace): EmbeddingsTask {
  if (parts.length > 0) throw new MeshError('bad_payload', 'A request for embeddings has no binary parts');
  const result = embeddingsRequestSchema.safeParse(payload);
  if (!result.success) throw new MeshError('bad_payload', fieldProblem(payload, result.error));
  const { input, model, dimensions, truncate } = result.data;
  if (typeof model === 'string' && model !== here.model)
    throw new MeshError('capability_not_found', `This device embeds with ${here.model}, not with ${model}`);
  if (typeof dimensions === 'number' && dimensions !== here.dimensions)
    throw new MeshError('bad_payload', `dimensions: ${here.model} has ${here.dimensions}, not ${dimensions}`);
  const texts = typeof input === 'string' ? [input] : input;
  const most = Math.min(maxInputs, Math.floor(maxVectorBytes / (here.dimensions * 4)));
  if (texts.length > most)
    throw new MeshError(
      'bad_payload',
      `input: has ${texts.length} texts, and an answer has room for ${most} vectors`,
    );
  const broken = texts.findIndex((text) => !text.isWellFormed());
  if (broken >= 0) throw new MeshError('bad_payload', `input[${broken}]: has half a character`);
  return { texts, truncate: truncate ?? false };
}

/** @param vectors packed, one after the other */
export function embeddingsContent(here: EmbeddingsSpace, vectors: Uint8Array, tokens: number): Content {
  const { model, space, semantic, dimensions } = here;
  return {
    payload: {
      model,
      space,
      semantic,
      dimensions,
      count: vectors.length / (dimensions * 4),
      usage: { prompt_tokens: tokens, total_tokens: tokens },
    },
    parts: [vectors],
  };
}

/** As it came, with its vectors packed. @param texts of the request. @throws MeshError bad_answer */
export function checkEmbeddingsAnswer({ payload, parts }: Content, texts: number): PackedEmbeddings {
  const result = embeddingsAnswerSchema.safeParse(payload);
  if (!result.success) throw badAnswer(result.error.issues[0]?.path.map(String).join('.') ?? '');
  const answer = result.data;
  const [packed] = parts;
  if (answer.count !== texts) throw badAnswer('count');
  if (!packed || parts.length !== 1 || packed.length !== answer.count * answer.dimensions * 4)
    throw badAnswer('the part with the vectors');
  return { ...answer, packed };
}

/** Of each text its own bytes. */
export function packedVectors({ packed, count: vectors, dimensions }: PackedEmbeddings): Uint8Array[] {
  const bytes = dimensions * 4;
  return Array.from({ length: vectors }, (_, i) => packed.subarray(i * bytes, (i + 1) * bytes));
}

/** What an asker gets. @param texts of the request. @throws MeshError bad_answer */
export function readEmbeddingsAnswer(
  content: Content,
  texts: number,
): EmbeddingsAnswer & { readonly vectors: readonly Float32Array[] } {
  const { packed, ...answer } = checkEmbeddingsAnswer(content, texts);
  return { ...answer, vectors: unpackedVectors({ packed, ...answer }) };
}

export function unpackedVectors(embeddings: PackedEmbeddings): Float32Array[] {
  return packedVectors(embeddings).map(unpackVector);
}

function badAnswer(field: string): MeshError {
  return new MeshError('bad_answer', `The embeddings are not as they have to be: ${field}`);
}

function fieldProblem(payload: unknown, error: z.core.$ZodError): string {
  const [issue] = error.issues;
  if (!issue || issue.path.length === 0) return 'A request for embeddings is an object with an `input`';
  if (issue.path[0] === 'input') return inputProblem((payload as { input?: unknown }).input);
  return `${issue.path.map(String).join('.')}: ${issue.message}`;
}

/** A union says only that none of its kinds fitted. */
function inputProblem(input: unknown): string {
  if (input === undefined) return 'input: is missing';
  if (input === '') return 'input: must not be empty';
  if (!Array.isArray(input)) return 'input: has to be a text or a list of texts';
  if (input.length === 0) return 'input: must not be empty';
  if (input.length > maxInputs) return `input: has ${input.length} texts, more than ${maxInputs}`;
  const wrong = input.findIndex((text) => typeof text !== 'string' || text === '');
  return `input[${wrong}]: ${input[wrong] === '' ? 'must not be empty' : 'has to be a text'}`;
}
