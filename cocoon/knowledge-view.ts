/** What `cocoon kb` prints. The names are the surface. */

/** How far the model of this device goes with its passages. */
export interface VectorsView {
  /** Null: none, so that passages are found by their words only. */
  readonly model: string | null;
  /** Why it does not serve, in a sentence; words are compared meanwhile. */
  readonly problem: string | null;
  /** Passages, just now. */
  readonly embedded: number;
}

/** After `kb add`: files, counted. */
export interface IndexedView {
  readonly added: number;
  readonly changed: number;
  readonly unchanged: number;
  /** They were there before and are gone. */
  readonly removed: number;
  /** As they were added. */
  readonly sources: readonly string[];
  readonly skipped: number;
  /** Some of those that somebody may want to know of. */
  readonly examples: readonly { readonly path: string; readonly reason: string }[];
  readonly vectors: VectorsView;
}

/** What `kb add` is told: on the way, of the path it is at, and at the end. */
export interface IndexTold {
  readonly progress: {
    readonly files: number;
    readonly indexed: number;
    /** Passages, by the model of the device; once all files were read. */
    readonly embedded?: number;
  };
  readonly answer: IndexedView;
}

export interface SourceView {
  readonly path: string;
  readonly files: number;
  readonly watched: boolean;
  readonly added_at: string;
  readonly scanned_at: string | null;
}
