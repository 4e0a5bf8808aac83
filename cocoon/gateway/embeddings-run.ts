/** Embeddings through the mesh for clients that know nothing of it. */

import type { PackedEmbeddings } from '@cocoon-mesh/ai/embeddings-payload.ts';
import { checkEmbeddingsAnswer } from '@cocoon-mesh/ai/embeddings-payload.ts';
import type { RequestCapability } from '@cocoon-mesh/capabilities';
import type { Json } from '@cocoon-mesh/protocol';
import { MeshError } from '@cocoon-mesh/protocol';
import * as z from 'zod/mini';
import type { ModelDevice, ModelOffer } from './openai-models.ts';
import { modelFeature, modelNotFound, offersOf, resolveModel } from './openai-models.ts';

const embeddingsProtocol = 'embeddings';
/** A full batch of long texts on a slow device, whose model is loaded first. */
const embedTimeoutMs = 120_000;

const tokensField = z.array(z.int().check(z.nonnegative()));

/** How many inputs there may be, whoever embeds them says. */
export const embeddingsRequestSchema = z.looseObject({
  model: z.optional(z.nullable(z.string())),
  input: z.union([z.string(), z.array(z.string()), tokensField, z.array(tokensField)]),
  encoding_format: z.optional(z.nullable(z.enum(['float', 'base64']))),
  dimensions: z.optional(z.nullable(z.int().check(z.positive()))),
});
type EmbeddingsRequest = z.infer<typeof embeddingsRequestSchema>;

export interface Embedded {
  readonly embeddings: PackedEmbeddings;
  readonly device: string;
  readonly deviceId: string;
  readonly attempts: number;
}

export interface EmbeddingsAsker {
  readonly requestCapability: RequestCapability;
  readonly modelDevices: () => readonly ModelDevice[] | Promise<readonly ModelDevice[]>;
}

/** @throws MeshError bad_answer (the vectors are not what they are said to be), and those of the request */
export async function embed(
  { requestCapability, modelDevices }: EmbeddingsAsker,
  request: EmbeddingsRequest,
  signal: AbortSignal,
): Promise<Embedded> {
  const offers = async (): Promise<ModelOffer[]> => offersOf(await modelDevices());
  const choice = await resolveModel(request.model ?? null, offers);
  const { model: _model, encoding_format: _format, ...rest } = request;
  const answer = requestCapability({
    protocol: embeddingsProtocol,
    version: '^1.0.0',
    payload: {
      ...(withoutAbsent(rest) as Record<string, Json>),
      ...(choice.model === null ? {} : { model: choice.model }),
    },
    parts: [],
    features: choice.model === null ? [] : [modelFeature + choice.model],
    ...(choice.device === null ? {} : { onlyDevice: choice.device }),
    timeoutMs: embedTimeoutMs,
    signal,
  });
  try {
    for await (const _chunk of answer.chunks)
      throw new MeshError('bad_answer', 'Embeddings come in one piece, and this is a stream');
    const { source, ...content } = await answer.end;
    const { device, deviceId, attempts } = source;
    return { embeddings: checkEmbeddingsAnswer(content, inputsOf(request)), device, deviceId, attempts };
  } catch (thrown) {
    if (thrown instanceof MeshError && thrown.code === 'capability_not_found')
      throw modelNotFound(choice, embeddingsProtocol, await offers());
    throw thrown;
  }
}

/** Of a payload that a provider has taken: a vector is due for each. */
export function inputsOf(payload: unknown): number {
  const input = typeof payload === 'object' && payload !== null && 'input' in payload ? payload.input : '';
  return Array.isArray(input) && typeof input[0] !== 'number' ? input.length : 1;
}

function withoutAbsent(fields: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(fields).filter(([, value]) => value !== undefined && value !== null),
  );
}
