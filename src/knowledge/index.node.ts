/** The public names of the knowledge base. */

export type { AddProgress, AddReport, SkippedFile } from './indexer.node.ts';
export type { AddOptions, KnowledgeOptions, SearchOptions } from './knowledge-base.node.ts';
export { KnowledgeBase, maxQuestionLength, maxSearchRows } from './knowledge-base.node.ts';
export type { KnowledgeStats } from './knowledge-service.node.ts';
export type { ChunkRow, SourceRow, Space, StoredVector } from './knowledge-store.node.ts';
export type { SkipReason } from './read-text.node.ts';
export type { KnowledgeRow } from '@cocoon-mesh/protocol/knowledge-row.ts';
