/** What a daemon and the process of a local model say to each other, as values of V8. */

import type { ErrorDescription } from '@cocoon-mesh/protocol/errors.ts';

/** Of the process of the model, for `value-pipe`; those before it are the usual ones. */
export const pipeFd = 3;

export type ToInference =
  /** Comes first, once. `source` is what the model's module wants to know: a folder, settings. */
  | { readonly kind: 'load'; readonly source: unknown }
  | { readonly kind: 'run'; readonly id: number; readonly request: unknown }
  | { readonly kind: 'cancel'; readonly id: number };

export type FromInference =
  | { readonly kind: 'loaded'; readonly description: unknown }
  /** The process ends by itself afterwards. */
  | { readonly kind: 'not_loaded'; readonly error: ErrorDescription }
  | { readonly kind: 'chunk'; readonly id: number; readonly value: unknown }
  | { readonly kind: 'answer'; readonly id: number; readonly value: unknown }
  | { readonly kind: 'error'; readonly id: number; readonly error: ErrorDescription };

export interface RunContext {
  readonly signal: AbortSignal;
  /** Sends a part of the answer before its end. */
  readonly chunk: (value: unknown) => void;
}

/** A model in its process. */
export interface LocalModel<Request = unknown, Answer = unknown, Description = unknown> {
  /** What the daemon must know of it. */
  readonly description: Description;
  /** Called as requests come, also while others run: whose turn it is is the model's matter. */
  run(request: Request, context: RunContext): Promise<Answer>;
}

/** What the module of a model exports. @throws MeshError model_unavailable with the reason */
export interface ModelModule<Source = unknown> {
  readonly openModel: (source: Source) => Promise<LocalModel>;
}
