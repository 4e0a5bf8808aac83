/** What a search in the knowledge base of a device finds: a passage, and where it stands. */

import * as z from 'zod/mini';

export const knowledgeRowSchema = z.object({
  file: z.string(),
  /** Headings above, joined with ` > `; '' for none. */
  heading: z.string(),
  line: z.int().check(z.positive()),
  snippet: z.string(),
  /** By rank: comparable within one answer only. */
  score: z.number(),
  /** Whose vectors were compared, beside the lexical ones, which always are. */
  space: z.string(),
});
export type KnowledgeRow = z.infer<typeof knowledgeRowSchema>;
