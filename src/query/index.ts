/** Questions to many devices at once, and their answers as one. Runs in Node and in the browser. */

export type { Answerer, Asker } from './answer-parts.ts';
export { reciprocalRank, fuseRanks } from './fuse.ts';
export type { Fused } from './fuse.ts';
export { meshTargets } from './mesh-targets.ts';
export type { MeshTargetsOptions } from './mesh-targets.ts';
export { QueryServer } from './query-server.ts';
export type { QueryServerOptions } from './query-server.ts';
export { defaultQueryLimit, runQuery } from './run-query.ts';
export type { QueryAnswer, QueryOptions, ShownPart, ShownRow } from './run-query.ts';
export { addStats } from './stats.ts';
export type { Ask, QueryTarget } from './target.ts';
