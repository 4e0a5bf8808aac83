/**
 * A peer of a hostile signaling server: it shows what it likes, in its introduction and in HELLO, checks nothing of
 * what it is shown, and asks all the same. What came of each try is read where it was decided, in the audit of the
 * device.
 */

import { watch } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Session } from '@cocoon-mesh/mesh';
import type { Engine, Stream } from '@cocoon-mesh/mesh';
import { Introduction } from '@cocoon-mesh/mesh/introduction.ts';
import type { DeviceEntry, Hello, SigningKey } from '@cocoon-mesh/protocol';
import {
  MeshError,
  ResetCode,
  isErrorCode,
  limits,
  randomBytes,
  sessionVersions,
  systemClock,
  toBase64Url,
  verifyDeviceRecord,
} from '@cocoon-mesh/protocol';
import type { HostileSignaling } from '../doubles/hostile-signaling.ts';
import { jtiOf } from '../doubles/hostile-signaling.ts';
import { standingOf } from '../mesh/two-peers.ts';
import type { AuditLine } from './access-cells.ts';
import { Caller } from './caller.ts';
import type { CocoonProcess } from './cocoon-process.ts';

const patienceMs = 20_000;

/** What it says that it is. */
export type Shown = Pick<DeviceEntry, 'record' | 'membership' | 'share'>;

export interface LawlessOptions {
  readonly server: HostileSignaling;
  readonly engine: Engine;
  readonly key: SigningKey;
  /** The device that it tries. */
  readonly target: CocoonProcess;
  /** As the server introduces it. */
  readonly shown: Shown;
  /** In HELLO; default: the same. */
  readonly hello?: Shown;
  /** Default: one that the server makes for these two. */
  readonly ticket?: () => Promise<string>;
}

export class LawlessPeer extends Caller implements AsyncDisposable {
  readonly #options: LawlessOptions;
  #session: Session | null = null;
  /** What the device showed of itself. */
  #services: readonly string[] | null = null;

  constructor(options: LawlessOptions) {
    super();
    this.#options = options;
  }

  override get peerId(): string {
    return this.#options.key.peerId;
  }

  /** What the device itself has shown it: the server knows besides what devices have told it. */
  override servicesOf(): readonly string[] | null {
    return this.#services;
  }

  protected override readonly way = {
    openStream: async (_peer: string, protocol: string, header: Uint8Array): Promise<Stream> =>
      (await this.#live()).open(protocol, header),
    ping: async (_peer: string, signal: AbortSignal): Promise<number> => (await this.#live()).ping(signal),
  };

  async #live(): Promise<Session> {
    if (this.#session?.state === 'open') return this.#session;
    this.#session = await this.#dial();
    return this.#session;
  }

  /** @throws MeshError with the code that the device noted */
  async #dial(): Promise<Session> {
    const { server, engine, key, target, shown } = this.#options;
    const { peerId } = target;
    const ticket = await (this.#options.ticket?.() ?? server.mint(key.peerId, peerId));
    const jti = jtiOf(ticket);
    const introduction = new Introduction({
      key,
      engine,
      iceServers: [],
      clock: systemClock,
      peerId,
      role: 'dialler',
      ticket,
      sendSignal: (payload) => server.send(peerId, { type: 'signal', jti, payload }),
      hello: async () => this.#hello(),
      judge: async ({ record, membership }) => {
        const read = await verifyDeviceRecord(record, peerId);
        this.#services = read.services.map(({ name }) => name);
        return { record: read, standing: await standingOf(peerId, membership) };
      },
    });
    server.intercept(jti, (payload) => introduction.receive(payload));
    const verdicts = await Verdicts.of(target, key.peerId);
    const now = Math.floor(Date.now() / 1000);
    server.introduce(peerId, ticket, {
      peer_id: key.peerId,
      online: true,
      load: 0,
      last_seen: now,
      ...shown,
    });
    const running = introduction.run();
    running.catch(() => undefined);
    const refusal = await verdicts.next();
    if (refusal !== null) {
      introduction.cancel(refusal);
      const made = await running.catch(() => null);
      made?.carrier.abort('refused');
      await made?.connection.close();
      throw refusal;
    }
    const { carrier, connection, hello } = await running;
    const session = new Session({
      carrier,
      localPeer: key.peerId,
      remotePeer: peerId,
      clock: systemClock,
      acceptStream: (stream) => stream.reset(ResetCode.unsupported),
      peerLimits: { maxStreams: hello.max_streams },
    });
    void session.closed.then(() => connection.close());
    return session;
  }

  #hello(): Hello {
    const { engine, shown, hello = shown } = this.#options;
    return {
      versions: [...sessionVersions],
      carriers: ['webrtc'],
      engine: engine.name,
      instance: toBase64Url(randomBytes(16)),
      ...hello,
      revocations: [],
      max_streams: limits.maxStreams,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#session?.close(ResetCode.cancel, 'the end');
  }
}

interface Verdict {
  /** Null: let in. */
  readonly code: string | null;
}

/** What a device wrote down about a peer that came to it: of one peer no more than thirty refusals of a kind a minute. */
class Verdicts {
  readonly #file: string;
  readonly #peerId: string;
  #seen = 0;

  private constructor(file: string, peerId: string) {
    this.#file = file;
    this.#peerId = peerId;
  }

  /** From now on. */
  static async of(device: CocoonProcess, peerId: string): Promise<Verdicts> {
    const verdicts = new Verdicts(join(device.home, 'audit.log'), peerId);
    verdicts.#seen = (await verdicts.#all()).length;
    return verdicts;
  }

  /** Resolves with the first that comes. */
  async next(): Promise<MeshError | null> {
    const { promise, resolve, reject } = Promise.withResolvers<Verdict>();
    const look = (): void =>
      void this.#all().then((all) => {
        const first = all[this.#seen];
        if (first) resolve(first);
      }, reject);
    const watcher = watch(this.#file, look);
    const limit = setTimeout(() => reject(new Error('the device said nothing of it')), patienceMs);
    look();
    try {
      const { code } = await promise;
      return code === null ? null : new MeshError(isErrorCode(code) ? code : 'internal');
    } finally {
      clearTimeout(limit);
      watcher.close();
    }
  }

  async #all(): Promise<Verdict[]> {
    const text = await readFile(this.#file, 'utf8');
    // A line that is being written has no end yet.
    const lines = text.split('\n').slice(0, -1);
    return lines.flatMap((line) => {
      const { event, peer, code = null } = JSON.parse(line) as AuditLine;
      return event.startsWith('introduction') && peer === this.#peerId ? { code } : [];
    });
  }
}
