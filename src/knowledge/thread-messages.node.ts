/** What the knowledge base and its thread say to each other. */

import type { ErrorDescription } from '@cocoon-mesh/protocol/errors.ts';
import type { AddProgress } from './indexer.node.ts';
import type { CallContext, KnowledgeService } from './knowledge-service.node.ts';

export const threadCalls = [
  'add',
  'refresh',
  'remove',
  'watch',
  'sources',
  'stats',
  'search',
  'useSpace',
  'chunksWithout',
  'putVectors',
] as const;
export type ThreadCall = (typeof threadCalls)[number];

export type RequestOf<Name extends ThreadCall> = KnowledgeService[Name] extends () => Promise<unknown>
  ? null
  : Parameters<KnowledgeService[Name]>[0];
export type AnswerOf<Name extends ThreadCall> = Awaited<ReturnType<KnowledgeService[Name]>>;
export type AnyCall = (request: unknown, context: CallContext) => Promise<unknown>;

export interface ThreadSettings {
  readonly path: string;
  readonly maxBytes: number | null;
}

export type ToThread =
  | { readonly kind: 'call'; readonly id: number; readonly name: ThreadCall; readonly request: unknown }
  | { readonly kind: 'cancel'; readonly id: number }
  | { readonly kind: 'close' };

export type FromThread =
  | { readonly kind: 'opened' }
  /** It ends by itself afterwards. */
  | { readonly kind: 'not_opened'; readonly error: ErrorDescription }
  | { readonly kind: 'answer'; readonly id: number; readonly value: unknown; readonly watches: number }
  | {
      readonly kind: 'error';
      readonly id: number;
      readonly error: ErrorDescription;
      readonly watches: number;
    }
  | { readonly kind: 'progress'; readonly id: number; readonly progress: AddProgress }
  | { readonly kind: 'problem'; readonly error: ErrorDescription };
