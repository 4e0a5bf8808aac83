/**
 * Tells when something below the folders of a source may have changed: soon after the last change of many, and now
 * and then anyway, for what cannot be watched (too many folders, file systems of the network).
 */

import type { FSWatcher } from 'node:fs';
import { watch } from 'node:fs';
import type { Clock, Timer } from '@cocoon-mesh/protocol/clock.ts';
import { every } from '@cocoon-mesh/protocol/clock.ts';

export const watchTimes = {
  /** An editor writes a file in several steps, a checkout thousands of them. */
  restMs: 500,
  /** Somebody who never stops writing is read nevertheless. */
  longestWaitMs: 5_000,
  /** When everything is watched: what the system lost count of. */
  rescanMs: 10 * 60_000,
  /** When it is not. */
  unwatchedRescanMs: 60_000,
} as const;

/** Linux has 8,192 of them on small machines, for all programs together. */
const maxWatchedFolders = 4_096;

/** As `node:fs` does. */
export type WatchFolder = (folder: string, onChange: () => void, onFailure: () => void) => { close(): void };

export class FolderWatch {
  readonly #clock: Clock;
  readonly #watchFolder: WatchFolder;
  readonly #onChange: () => void;
  readonly #watched = new Map<string, { close(): void }>();
  #rest: Timer | null = null;
  #longest: Timer | null = null;
  #rescans: Timer;
  #isComplete = true;

  constructor(clock: Clock, onChange: () => void, watchFolder: WatchFolder = watchWithNode) {
    this.#clock = clock;
    this.#onChange = onChange;
    this.#watchFolder = watchFolder;
    this.#rescans = every(clock, watchTimes.rescanMs, onChange);
  }

  /** After each scan. What was changed between a scan and its watch is found by the one that is asked for here. */
  setFolders(folders: readonly string[]): void {
    const wanted = new Set(folders.slice(0, maxWatchedFolders));
    for (const [folder, watcher] of this.#watched) {
      if (wanted.has(folder)) continue;
      watcher.close();
      this.#watched.delete(folder);
    }
    const fresh = [...wanted].filter((folder) => !this.#watched.has(folder));
    const failed = fresh.filter((folder) => !this.#watch(folder));
    this.#setComplete(failed.length === 0 && wanted.size === folders.length);
    if (fresh.length > failed.length) this.#changed();
  }

  close(): void {
    for (const watcher of this.#watched.values()) watcher.close();
    this.#watched.clear();
    this.#rescans.cancel();
    this.#rest?.cancel();
    this.#longest?.cancel();
  }

  #watch(folder: string): boolean {
    try {
      const watcher = this.#watchFolder(
        folder,
        () => this.#changed(),
        () => {
          this.#watched.delete(folder);
          this.#setComplete(false);
          this.#changed();
        },
      );
      this.#watched.set(folder, watcher);
      return true;
    } catch {
      return false;
    }
  }

  #changed(): void {
    this.#rest?.cancel();
    this.#rest = this.#clock.after(watchTimes.restMs, () => this.#tell());
    this.#longest ??= this.#clock.after(watchTimes.longestWaitMs, () => this.#tell());
  }

  #tell(): void {
    this.#rest?.cancel();
    this.#longest?.cancel();
    this.#rest = null;
    this.#longest = null;
    this.#onChange();
  }

  #setComplete(isComplete: boolean): void {
    if (this.#isComplete === isComplete) return;
    this.#isComplete = isComplete;
    this.#rescans.cancel();
    this.#rescans = every(
      this.#clock,
      isComplete ? watchTimes.rescanMs : watchTimes.unwatchedRescanMs,
      this.#onChange,
    );
  }
}

function watchWithNode(folder: string, onChange: () => void, onFailure: () => void): FSWatcher {
  const watcher = watch(folder, { persistent: false }, onChange);
  return watcher.on('error', () => {
    watcher.close();
    onFailure();
  });
}
