/**
 * How the services of other devices do, asked over sessions that are there anyway: looking at the list of devices
 * opens none. Also what this device answers when it is asked.
 */

import type { Device, Mesh, ProvenPeer, Stream } from '@cocoon-mesh/mesh';
import type { Clock, Description } from '@cocoon-mesh/protocol';
import {
  MeshError,
  ResetCode,
  allows,
  concat,
  deadline,
  decode,
  describeProtocol,
  descriptionSchema,
  encode,
  maxDescriptionBytes,
} from '@cocoon-mesh/protocol';
import type { Services } from './services.ts';

type Described = Description['services'];

/** DESIGN: asked over the session, cached 10 s. */
const freshMs = 10_000;
/** An answer that old says nothing any more. */
const staleMs = 60_000;
const askLimitMs = 2_000;
const patienceMs = 500;

interface Entry {
  readonly askedMs: number;
  readonly services: Described;
}

export class Descriptions {
  readonly #mesh: Mesh;
  readonly #services: Services;
  readonly #clock: Clock;
  readonly #known = new Map<string, Entry>();
  readonly #asking = new Map<string, Promise<void>>();

  constructor(mesh: Mesh, services: Services, clock: Clock) {
    this.#mesh = mesh;
    this.#services = services;
    this.#clock = clock;
    mesh.handle(describeProtocol, (stream, peer) => this.#answer(stream, peer));
  }

  /** What is known of a device's services by now; empty when nothing is. */
  of(device: Device): Described {
    const entry = this.#known.get(device.peerId);
    const isCurrent = entry && device.online && this.#clock.monotonic() - entry.askedMs < staleMs;
    return isCurrent ? entry.services : [];
  }

  /**
   * Asks every device with a session whose answer is not fresh, and gives them a moment: the answer of a device
   * that has just gone is not worth a wait. Never rejects.
   */
  async refresh(): Promise<void> {
    const asked = this.#mesh
      .devices()
      .filter(
        ({ self, kind, path, services }) =>
          !self && kind === 'cocoon' && path !== null && services.length > 0,
      )
      .map(({ peerId }) => this.#refresh(peerId));
    if (asked.length === 0) return;
    const { promise: patience, resolve } = Promise.withResolvers<void>();
    const limit = this.#clock.after(patienceMs, resolve);
    await Promise.race([Promise.all(asked), patience]);
    limit.cancel();
  }

  async #refresh(peerId: string): Promise<void> {
    const askedMs = this.#clock.monotonic();
    const entry = this.#known.get(peerId);
    if (entry && askedMs - entry.askedMs < freshMs) return;
    const asking =
      this.#asking.get(peerId) ??
      this.#ask(peerId)
        // An older version does not know the question.
        .catch(() => [])
        .then((services) => void this.#known.set(peerId, { askedMs, services }))
        .finally(() => this.#asking.delete(peerId));
    this.#asking.set(peerId, asking);
    await asking;
  }

  async #ask(peerId: string): Promise<Described> {
    const limit = deadline(this.#clock, askLimitMs);
    let stream: Stream | null = null;
    try {
      stream = await this.#mesh.openStream(peerId, describeProtocol, new Uint8Array(), limit.signal);
      const opened = stream;
      limit.signal.throwIfAborted();
      limit.signal.addEventListener('abort', () => opened.reset(ResetCode.timeout));
      opened.end();
      return decode(descriptionSchema, await readAll(opened), maxDescriptionBytes).services;
    } catch (thrown) {
      stream?.reset(ResetCode.cancel);
      throw thrown;
    } finally {
      limit.cancel();
    }
  }

  #answer(stream: Stream, peer: ProvenPeer): void {
    const { rights } = peer;
    const services = this.#services
      .list()
      .filter(({ name }) => allows(rights, 'http', 'use', name) || allows(rights, 'tcp', 'use', name))
      .map(({ name, type, port, healthy }) => ({ name, type, port, healthy }));
    try {
      stream.write(encode(descriptionSchema, { services }));
      stream.end();
    } catch {
      stream.reset(ResetCode.internal);
    }
    void drain(stream, this.#clock);
  }
}

/** @throws MeshError message_too_large, and as `Stream.read` */
async function readAll(stream: Stream): Promise<Uint8Array> {
  let all: Uint8Array = new Uint8Array();
  for (let bytes = await stream.read(); bytes !== null; bytes = await stream.read()) {
    all = concat(all, bytes);
    if (all.length > maxDescriptionBytes) throw new MeshError('message_too_large');
  }
  return all;
}

/** The asker has nothing to say; its end is awaited so that the stream goes. */
async function drain(stream: Stream, clock: Clock): Promise<void> {
  const limit = clock.after(askLimitMs, () => stream.reset(ResetCode.timeout));
  try {
    while ((await stream.read()) !== null);
  } catch {
    // It is over, which is all that was wanted.
  } finally {
    limit.cancel();
  }
}
