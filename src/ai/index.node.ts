/** The public names of what models give: embeddings and chat, by whatever runs the models. Loads nothing heavy. */

export type { ChatProviderOptions } from './chat.node.ts';
export { chatProvider } from './chat.node.ts';
export { checkEmbeddings } from './embeddings-check.node.ts';
export type { EmbeddingsAnswer, EmbeddingsRequest, EmbeddingsSpace } from './embeddings-payload.ts';
export {
  embeddingsAnswerSchema,
  embeddingsRequestSchema,
  readEmbeddingsAnswer,
} from './embeddings-payload.ts';
export type { EmbeddingsOptions } from './embeddings.node.ts';
export { embeddingsProvider } from './embeddings.node.ts';
export { checkOnnxRuntime } from './onnx-check.node.ts';
export { runtimeProblem } from './onnx-runtime.node.ts';
