/** Embeddings through the mesh for clients that know nothing of it. */

import type { RequestCapability } from '@cocoon-mesh/capabilities';
import type { Json } from '@cocoon-mesh/protocol';
import { MeshError, check } from '@cocoon-mesh/protocol';
import * as z from 'zod/mini';
import type { ModelDevice, ModelOffer } from './openai-models.ts';
import { modelFeature, modelNotFound, offersOf, resolveModel } from './openai-models.ts';

const embeddingsProtocol = 'embeddings';
/** A full batch of long texts on a slow device, whose model is loaded first. */
const embedTimeoutMs = 120_000;
const maxInputs = 2048;

const tokensField = z.array(z.int().check(z.nonnegative()));

export const embeddingsRequestSchema = z.looseObject({
  model: z.optional(z.nullable(z.string())),
  input: z.union([
    z.string(),
    z.array(z.string()).check(z.minLength(1), z.maxLength(maxInputs)),
    tokensField.check(z.minLength(1)),
    z.array(tokensField).check(z.minLength(1), z.maxLength(maxInputs)),
  ]),
  encoding_format: z.optional(z.nullable(z.enum(['float', 'base64']))),
  dimensions: z.optional(z.nullable(z.int().check(z.positive()))),
});
type EmbeddingsRequest = z.infer<typeof embeddingsRequestSchema>;

const answerSchema = z.object({
  dimensions: z.int().check(z.positive()),
  count: z.int().check(z.nonnegative()),
  space: z.optional(z.string()),
  model: z.optional(z.string()),
  usage: z.optional(z.looseObject({ prompt_tokens: z.number(), total_tokens: z.number() })),
});

export interface Embedded {
  /** Little-endian float32, one vector behind the other. */
  readonly packed: Buffer;
  readonly dimensions: number;
  readonly count: number;
  readonly space: string | null;
  readonly model: string;
  readonly usage: { readonly prompt_tokens: number; readonly total_tokens: number };
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
    // There are none, but a provider that sends some would wait for ever to have them read.
    for await (const _chunk of answer.chunks);
    const { payload, parts, source } = await answer.end;
    const said = check(answerSchema, payload);
    const [vectors] = parts;
    if (parts.length !== 1 || vectors?.length !== said.count * said.dimensions * 4)
      throw new MeshError('bad_answer', `The vectors of ${source.device} are not as long as it says`);
    return {
      packed: Buffer.from(vectors.buffer, vectors.byteOffset, vectors.length),
      dimensions: said.dimensions,
      count: said.count,
      space: said.space ?? null,
      model: said.model ?? choice.model ?? '',
      usage: said.usage ?? { prompt_tokens: 0, total_tokens: 0 },
      device: source.device,
      deviceId: source.deviceId,
      attempts: source.attempts,
    };
  } catch (thrown) {
    if (!(thrown instanceof MeshError)) throw thrown;
    if (thrown.code === 'capability_not_found')
      throw modelNotFound(choice, embeddingsProtocol, await offers());
    if (thrown.code === 'bad_message') throw new MeshError('bad_answer', thrown.message, { cause: thrown });
    throw thrown;
  }
}

export function vectorsOf({ packed, dimensions, count }: Embedded): Buffer[] {
  const bytes = dimensions * 4;
  return Array.from({ length: count }, (_, i) => packed.subarray(i * bytes, (i + 1) * bytes));
}

function withoutAbsent(fields: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(fields).filter(([, value]) => value !== undefined && value !== null),
  );
}
