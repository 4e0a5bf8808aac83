/**
 * COCOON_HOME: where a device keeps everything, and which file is which. What stands in them is the matter of
 * whoever reads them.
 */

import { mkdir } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { MeshError } from '@cocoon-mesh/protocol/errors.ts';

export class Home {
  readonly path: string;

  constructor(path: string) {
    this.path = resolve(path);
  }

  get identityKey(): string {
    return join(this.path, 'identity.key');
  }

  get secret(): string {
    return join(this.path, 'secret');
  }

  /** The secret that this device held before: of a self-made owner that gave way to a real one, or an older one. */
  get replacedSecret(): string {
    return join(this.path, 'secret.replaced');
  }

  /** What a rotation of the secret has still to sign. */
  get rotation(): string {
    return join(this.path, 'rotation.json');
  }

  get owners(): string {
    return join(this.path, 'owners.json');
  }

  get config(): string {
    return join(this.path, 'config.toml');
  }

  /** Services that were added and removed at run time. */
  get services(): string {
    return join(this.path, 'services.json');
  }

  /** Of this device, unless another database is named. */
  get tasks(): string {
    return join(this.path, 'tasks.db');
  }

  /** What tasks write, and where they run: a folder each. */
  get taskFiles(): string {
    return join(this.path, 'tasks');
  }

  get knowledge(): string {
    return join(this.path, 'knowledge.db');
  }

  get gatewayToken(): string {
    return join(this.path, 'gateway.token');
  }

  get signalingDatabase(): string {
    return join(this.path, 'signaling.db');
  }

  /** The port that `cocoon up --port 0` got last. */
  get signalingPort(): string {
    return join(this.path, 'signaling.port');
  }

  get lock(): string {
    return join(this.path, 'lock');
  }

  /** `cocoon signaling` and `cocoon run` may share a home; two servers may not. */
  get signalingLock(): string {
    return join(this.path, 'signaling.lock');
  }

  get log(): string {
    return join(this.path, 'logs', 'cocoon.log');
  }

  get signalingLog(): string {
    return join(this.path, 'logs', 'signaling.log');
  }

  /** Of the device; `signalingAudit` is the server's. */
  get audit(): string {
    return join(this.path, 'audit.log');
  }

  get signalingAudit(): string {
    return join(this.path, 'signaling-audit.log');
  }

  /** Makes the folder, private to the user. @throws MeshError storage_failed */
  async create(): Promise<void> {
    try {
      await mkdir(this.path, { recursive: true, mode: 0o700 });
    } catch (cause) {
      throw new MeshError('storage_failed', `The home ${this.path} cannot be made`, { cause });
    }
  }
}

/** A flag beats the variable beats `~/.cocoon`. */
export function homeOf(flag: string | undefined, environment: NodeJS.ProcessEnv): Home {
  return new Home(flag || environment['COCOON_HOME'] || join(homedir(), '.cocoon'));
}
