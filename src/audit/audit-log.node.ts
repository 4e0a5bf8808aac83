/**
 * An append-only log of who was let in, refused and thrown out. Each line is tied to the one before by its hash, so
 * that none can be changed, added or taken out of the middle later without it showing (`verify-audit.node.ts`).
 * What it cannot show is that its end was cut off: a copy elsewhere can.
 */

import { closeSync, fdatasync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { basename } from 'node:path';
import { promisify } from 'node:util';
import type { Clock, Timer } from '@cocoon-mesh/protocol/clock.ts';
import { prepareAuditFile } from './audit-file.node.ts';
import type { AuditEnd, AuditFields } from './audit-line.node.ts';
import { auditLine } from './audit-line.node.ts';
import { RepeatLimit } from './repeat-limit.node.ts';

/** A burst of lines is one wait for the disk; what a loss of power can take is a fifth of a second. */
const syncEveryMs = 200;

const syncData = promisify(fdatasync);

export class AuditLog {
  readonly #path: string;
  readonly #clock: Clock;
  readonly #warn: (message: string) => void;
  readonly #repeats: RepeatLimit;
  #file: number;
  #end: AuditEnd;
  /** Of whole lines. */
  #bytes: number;
  /** A part of a line may stand behind them: the disk was full in its middle. */
  #torn = false;
  /** Lines that could not be written since the last one that could. */
  #lost = 0;
  /** That the disk does not take them was told. */
  #unsynced = false;
  #syncTimer: Timer | null = null;
  #syncing: Promise<void> = Promise.resolve();
  #closing: Promise<void> | null = null;

  private constructor(
    path: string,
    clock: Clock,
    warn: (message: string) => void,
    place: { readonly end: AuditEnd; readonly bytes: number },
  ) {
    this.#path = path;
    this.#clock = clock;
    this.#warn = warn;
    this.#end = place.end;
    this.#bytes = place.bytes;
    this.#file = openSync(path, 'a', 0o600);
    this.#repeats = new RepeatLimit(clock, ({ event, code, count }) =>
      this.#write('suppressed', { of: event, code, count }),
    );
  }

  /**
   * Nobody else may write into the file meanwhile.
   * @param warn told what its user should know: that the log was tampered with, or cannot be written
   * @throws MeshError storage_failed
   */
  static async open(
    path: string,
    clock: Clock,
    warn: (message: string) => void = () => undefined,
  ): Promise<AuditLog> {
    const place = await prepareAuditFile(path);
    const log = new AuditLog(path, clock, warn, place);
    if (place.movedTo !== null) {
      warn(`The audit log was changed by somebody; it is kept as ${place.movedTo}, and a new one begins`);
      log.#write('replaced', { file: basename(place.movedTo) });
    } else if (place.cutBytes > 0) {
      log.#write('recovered', { bytes: place.cutBytes });
    } else if (place.end.n === 0) {
      // So that the log of a device that is older than its log shows that another one was there.
      log.#write('begun', {});
    }
    return log;
  }

  /**
   * Writes a line before it returns. Never throws: a full disk ends no device. Lines with a `code` are refusals;
   * of one event, code and peer a minute's first thirty are written and the rest counted.
   */
  append(event: string, fields: AuditFields = {}): void {
    if (this.#closing) return;
    const { code, peer } = fields;
    const who = typeof peer === 'string' ? peer : '';
    if (typeof code === 'string' && !this.#repeats.admits(event, code, who)) return;
    this.#write(event, fields);
  }

  /** Everything is on the disk then. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#repeats.close();
    this.#syncTimer?.cancel();
    await this.#syncing;
    await this.#sync();
    closeSync(this.#file);
    this.#file = -1;
  }

  #write(event: string, fields: AuditFields): void {
    try {
      if (this.#lost > 0) {
        this.#put('lost', { count: this.#lost });
        this.#lost = 0;
      }
      this.#put(event, fields);
      this.#syncTimer ??= this.#clock.after(syncEveryMs, () => {
        this.#syncTimer = null;
        this.#syncing = this.#sync();
      });
    } catch (thrown) {
      this.#lost++;
      if (this.#lost === 1) this.#warn(`The audit log ${this.#path} cannot be written: ${String(thrown)}`);
    }
  }

  /** A line that fails leaves no part behind that the next one could be glued to. */
  #put(event: string, fields: AuditFields): void {
    const { line, end } = auditLine(this.#end, this.#clock.now(), event, fields);
    const bytes = Buffer.from(`${line}\n`);
    if (this.#torn) ftruncateSync(this.#file, this.#bytes);
    this.#torn = true;
    for (let done = 0; done < bytes.length;) done += writeSync(this.#file, bytes, done);
    this.#torn = false;
    this.#bytes += bytes.length;
    this.#end = end;
  }

  async #sync(): Promise<void> {
    try {
      await syncData(this.#file);
      this.#unsynced = false;
    } catch (thrown) {
      if (!this.#unsynced)
        this.#warn(`The audit log ${this.#path} could not be brought to the disk: ${String(thrown)}`);
      this.#unsynced = true;
    }
  }
}
