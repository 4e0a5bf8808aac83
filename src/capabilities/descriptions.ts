/**
 * What other devices tell over a session and not to signaling: how their services do and what their providers have.
 * Kept for ten seconds. Also what this device answers when it is asked.
 */

import type { Device, Mesh, ProvenPeer, Stream } from '@cocoon-mesh/mesh';
import { readMessage } from '@cocoon-mesh/mesh/read-message.ts';
import type { Clock, Description } from '@cocoon-mesh/protocol';
import {
  ResetCode,
  deadline,
  decode,
  describeProtocol,
  descriptionSchema,
  encode,
  maxDescriptionBytes,
} from '@cocoon-mesh/protocol';

export interface DescriptionsOptions {
  readonly mesh: Pick<Mesh, 'devices' | 'openStream' | 'handle'>;
  readonly clock: Clock;
  /** What this peer may know of this device. */
  readonly own: (peer: ProvenPeer) => Description;
  /** A device told something new. */
  readonly learnt?: (peerId: string, description: Description) => void;
}

/** DESIGN: asked over the session, cached 10 s. */
const freshMs = 10_000;
/** An answer that old says nothing any more. */
const staleMs = 60_000;
const askLimitMs = 2_000;

interface Entry {
  readonly askedMs: number;
  /** Null: it did not answer. */
  readonly description: Description | null;
}

export class Descriptions {
  readonly #options: DescriptionsOptions;
  readonly #known = new Map<string, Entry>();
  readonly #asking = new Map<string, Promise<void>>();
  /** What devices offered by the list when they were last looked at, and who has changed it since they were asked. */
  readonly #offered = new Map<string, readonly unknown[]>();
  readonly #outdated = new Set<string>();

  constructor(options: DescriptionsOptions) {
    this.#options = options;
    options.mesh.handle(describeProtocol, (stream, peer) => void this.#answer(stream, peer));
  }

  /** What is known of a device by now; null when nothing is. */
  of(peerId: string): Description | null {
    const entry = this.#known.get(peerId);
    return entry && this.#ageMs(entry) < staleMs ? entry.description : null;
  }

  isFresh(peerId: string): boolean {
    const entry = this.#known.get(peerId);
    return entry !== undefined && !this.#outdated.has(peerId) && this.#ageMs(entry) < freshMs;
  }

  /** The list of devices is new: who offers something else there has something else to tell. */
  listed(devices: Iterable<Pick<Device, 'peerId' | 'capabilities'>>): void {
    for (const { peerId, capabilities } of devices) {
      const before = this.#offered.get(peerId);
      if (before !== undefined && before !== capabilities) this.#outdated.add(peerId);
      this.#offered.set(peerId, capabilities);
    }
  }

  /**
   * Asks those whose answer is not fresh, and gives them a moment: the answer of a device that has just gone is not
   * worth a wait. Opens a session where there is none. Never rejects.
   */
  async refresh(peerIds: readonly string[], patienceMs: number): Promise<void> {
    const asked = peerIds.filter((peerId) => !this.isFresh(peerId)).map((peerId) => this.#refresh(peerId));
    if (asked.length === 0) return;
    const { promise: patience, resolve } = Promise.withResolvers<void>();
    const limit = this.#options.clock.after(patienceMs, resolve);
    await Promise.race([Promise.all(asked), patience]);
    limit.cancel();
  }

  #ageMs({ askedMs }: Entry): number {
    return this.#options.clock.monotonic() - askedMs;
  }

  #refresh(peerId: string): Promise<void> {
    const already = this.#asking.get(peerId);
    if (already) return already;
    const askedMs = this.#options.clock.monotonic();
    this.#outdated.delete(peerId);
    const asking = this.#ask(peerId)
      // An older version does not know the question.
      .catch(() => null)
      .then((description) => this.#keep(peerId, { askedMs, description }))
      .finally(() => this.#asking.delete(peerId));
    this.#asking.set(peerId, asking);
    return asking;
  }

  #keep(peerId: string, entry: Entry): void {
    // Devices come and go, browsers more than others.
    const listed = new Set(this.#options.mesh.devices().map((device) => device.peerId));
    for (const known of this.#known.keys()) if (!listed.has(known)) this.#known.delete(known);
    for (const offered of this.#offered.keys())
      if (!listed.has(offered)) {
        this.#offered.delete(offered);
        this.#outdated.delete(offered);
      }
    this.#known.set(peerId, entry);
    if (entry.description) this.#options.learnt?.(peerId, entry.description);
  }

  async #ask(peerId: string): Promise<Description> {
    const { mesh, clock } = this.#options;
    const limit = deadline(clock, askLimitMs);
    let stream: Stream | null = null;
    try {
      stream = await mesh.openStream(peerId, describeProtocol, new Uint8Array(), limit.signal);
      const opened = stream;
      limit.signal.throwIfAborted();
      limit.signal.addEventListener('abort', () => opened.reset(ResetCode.timeout));
      opened.end();
      return decode(descriptionSchema, await readMessage(opened, maxDescriptionBytes), maxDescriptionBytes);
    } catch (thrown) {
      stream?.reset(ResetCode.cancel);
      throw thrown;
    } finally {
      limit.cancel();
    }
  }

  async #answer(stream: Stream, peer: ProvenPeer): Promise<void> {
    const limit = this.#options.clock.after(askLimitMs, () => stream.reset(ResetCode.timeout));
    try {
      stream.write(encode(descriptionSchema, this.#options.own(peer)));
      stream.end();
      // The asker has nothing to say; its end is awaited so that the stream goes.
      while ((await stream.read()) !== null);
    } catch {
      // Over already, or of a shape that cannot be sent.
      stream.reset(ResetCode.internal);
    } finally {
      limit.cancel();
    }
  }
}
