/** A temporary folder of files for the tests of the knowledge base. */

import { mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

export class TextTree implements Disposable {
  /** Holds `files` and the databases. */
  readonly folder = mkdtempSync(join(realpathSync(tmpdir()), 'cocoon-knowledge-'));
  readonly root = join(this.folder, 'files');
  readonly database = join(this.folder, 'knowledge.db');

  constructor(files: Readonly<Record<string, string | Uint8Array>> = {}) {
    mkdirSync(this.root);
    for (const [path, content] of Object.entries(files)) this.write(path, content);
  }

  path(path: string): string {
    return join(this.root, path);
  }

  write(path: string, content: string | Uint8Array): string {
    const full = this.path(path);
    mkdirSync(dirname(full), { recursive: true });
    writeFileSync(full, content);
    return full;
  }

  remove(path: string): void {
    rmSync(this.path(path), { recursive: true });
  }

  [Symbol.dispose](): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}
