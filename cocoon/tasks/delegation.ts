/**
 * Where else a task could run: asked of every device of the owner's that has tasks, at once and briefly. Which one
 * is taken is the user's choice; nothing is moved by itself.
 */

import type { Device, Mesh } from '@cocoon-mesh/mesh';
import type { Clock } from '@cocoon-mesh/protocol';
import { MeshError, deadline } from '@cocoon-mesh/protocol';
import type { TaskService } from './task-service.ts';

const askLimitMs = 3_000;

export class Delegation {
  readonly #mesh: Pick<Mesh, 'devices'>;
  readonly #service: Pick<TaskService, 'missing'>;
  readonly #clock: Clock;

  constructor(mesh: Pick<Mesh, 'devices'>, service: Pick<TaskService, 'missing'>, clock: Clock) {
    this.#mesh = mesh;
    this.#service = service;
    this.#clock = clock;
  }

  /** Devices that say that they meet all of it, in the order of the list. Never rejects for one that does not answer. */
  async hosts(requires: readonly string[], signal: AbortSignal): Promise<readonly Device[]> {
    const limit = deadline(this.#clock, askLimitMs);
    const patience = AbortSignal.any([limit.signal, signal]);
    try {
      const asked = this.#mesh.devices().filter(mayHaveTasks);
      const able = await Promise.all(
        asked.map(async (device) => {
          try {
            return (await this.#service.missing(device, requires, patience)).length === 0;
          } catch {
            return false;
          }
        }),
      );
      return asked.filter((_, i) => able[i]);
    } finally {
      limit.cancel();
    }
  }

  /** The refusal of a device, with the devices that would not refuse. */
  async elsewhere(
    refusal: MeshError,
    refused: Device,
    requires: readonly string[],
    signal: AbortSignal,
  ): Promise<MeshError> {
    const hosts = (await this.hosts(requires, signal)).filter(({ peerId }) => peerId !== refused.peerId);
    const [first] = hosts;
    const hint = first
      ? `It can run on ${hosts.map(({ name }) => name).join(', ')}: add it with --device ${first.name}.`
      : 'None of your devices that are online has all of it.';
    return new MeshError('cannot_run', refusal.message, { hint, cause: refusal });
  }
}

function mayHaveTasks({ kind, online, foreign, problem, capabilities }: Device): boolean {
  const offered = capabilities.some(({ protocol }) => protocol === 'tasks');
  return kind === 'cocoon' && online && !foreign && problem === null && offered;
}
