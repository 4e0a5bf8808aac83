/**
 * How news of revocations and rotations travels: out of HELLOs, over `/cocoon/revocations/1`, from signaling, and
 * on to whoever is concerned, so that a cut needs no signaling and a silent signaling server hides nothing from
 * those who meet. What is true, `Trust` decides; what ends by it, whoever made this.
 */

import type { Clock, HelloRevocations, OwnerRecords, RevocationMessage } from '@cocoon-mesh/protocol';
import {
  MeshError,
  ResetCode,
  decode,
  encode,
  limits,
  revocationMessageSchema,
  streamProtocols,
  toMeshError,
} from '@cocoon-mesh/protocol';
import type { Link } from './links.ts';
import { readMessage } from './read-message.ts';
import type { Stream } from './stream.ts';
import type { Trust } from './trust.ts';

type Ask = RevocationMessage & { kind: 'ask' };
type Tell = RevocationMessage & { kind: 'tell' };

/** How far an owner's list goes. */
interface Head {
  readonly epoch: number;
  readonly n: number;
}

export interface RevocationNewsOptions {
  readonly trust: Pick<
    Trust,
    'owner' | 'recordsOf' | 'revocations' | 'learn' | 'missing' | 'tell' | 'helloRevocations'
  >;
  readonly clock: Clock;
  readonly links: () => readonly Link[];
  /** Ends what the news ends; called before anybody else is told. */
  readonly enforce: () => void;
  /** Hands a piece of my owner's list to signaling; false without it. */
  readonly upload: (owner: string, records: OwnerRecords, list: readonly string[]) => boolean;
  readonly log: (level: 'debug' | 'info' | 'warn', message: string, fields?: Record<string, unknown>) => void;
}

/** Far more pieces than the longest list has. */
const maxPieces = (2 * limits.maxRevocations) / limits.maxRevocationsPerMessage;

export class RevocationNews {
  readonly #options: RevocationNewsOptions;
  /** Streams of others under way, by peer. */
  readonly #answering = new Map<string, number>();
  /** How far signaling's copy of my owner's list goes. */
  #uploaded: Head = { epoch: 0, n: 0 };

  constructor(options: RevocationNewsOptions) {
    this.#options = options;
  }

  /**
   * Takes in what somebody says of an owner that is known; news is enforced and passed on at once.
   * @param teller PeerId, or null for signaling and for ourselves
   * @returns whether it was news
   */
  async learn(
    owner: string,
    records: OwnerRecords | undefined,
    list: readonly string[],
    teller: string | null,
  ): Promise<boolean> {
    const { trust, log } = this.#options;
    if (trust.recordsOf(owner) === null) return false;
    const before = this.head(owner);
    let isNews: boolean;
    try {
      isNews = await trust.learn(owner, records, list);
    } catch (thrown) {
      log('warn', 'Revocations that somebody told prove nothing', {
        owner,
        teller,
        why: toMeshError(thrown).message,
      });
      // What came before the entry that proves nothing was learned.
      isNews = !isSame(before, this.head(owner));
    }
    if (teller === null) this.#toldBySignaling(owner, list);
    if (isNews) this.spread(owner, before, teller, list);
    return isNews;
  }

  /**
   * Enforces news and tells everybody concerned.
   * @param since how far the list went before
   * @param loose what was told; it goes on as it came where the list has a gap before it
   */
  spread(owner: string, since: Head, teller: string | null, loose: readonly string[] = []): void {
    const { enforce, links } = this.#options;
    enforce();
    const pieces = isSame(since, this.head(owner))
      ? this.#loosePiece(owner, loose)
      : this.#pieces(owner, since);
    for (const link of links())
      if (link.peerId !== teller && this.#concerns(owner, link)) void this.#tell(link, pieces);
    this.upload();
  }

  /**
   * From a HELLO, before it is judged: an owner that has rotated or revoked must not be served a minute longer.
   * @param records of the owners whose proofs the HELLO shows, by owner id
   */
  async heard(
    peerId: string,
    heads: readonly HelloRevocations[],
    records: ReadonlyMap<string, OwnerRecords>,
  ): Promise<void> {
    for (const { owner, entries } of heads) await this.learn(owner, records.get(owner), entries, peerId);
  }

  /** A link is up: what its HELLO named and did not hold is asked for. */
  ask(link: Link): void {
    for (const question of this.#options.trust.missing(link.hello.revocations))
      void this.#catchUp(link, question);
  }

  /** How far the list of an owner goes that is known. */
  head(owner: string): Head {
    const { trust } = this.#options;
    return { epoch: (trust.recordsOf(owner)?.length ?? 0) - 1, n: trust.revocations(owner).length };
  }

  /** What signaling has of my owner's list, from its welcome. */
  signalingHas(list: readonly string[]): void {
    const { trust } = this.#options;
    const { owner } = trust;
    if (owner === null) return;
    const mine = trust.revocations(owner);
    const last = list.at(-1);
    // A list that is no beginning of mine is of an older epoch.
    const isBeginning = last === undefined || mine[list.length - 1] === last;
    this.#uploaded = { epoch: this.head(owner).epoch, n: isBeginning ? list.length : 0 };
  }

  /** Sends signaling what it lacks, in pieces that fit into a message, each going on where the one before ends. */
  upload(): void {
    const { trust, upload } = this.#options;
    const { owner } = trust;
    const records = owner === null ? null : trust.recordsOf(owner);
    if (owner === null || records === null) return;
    const { epoch, n } = this.head(owner);
    let from = this.#uploaded.epoch === epoch ? this.#uploaded.n : 0;
    for (const piece of piecesOf(trust.revocations(owner).slice(from))) {
      if (!upload(owner, records, piece)) return;
      from += piece.length;
      this.#uploaded = { epoch, n: Math.min(from, n) };
    }
  }

  /** A stream of `/cocoon/revocations/1`. */
  async answer(stream: Stream, link: Link): Promise<void> {
    const { peerId } = link;
    const running = this.#answering.get(peerId) ?? 0;
    if (running >= limits.maxRevocationStreams) return stream.reset(ResetCode.tooManyStreams);
    this.#answering.set(peerId, running + 1);
    const limit = this.#limit(stream);
    try {
      const bytes = await readMessage(stream, limits.maxRevocationMessageBytes);
      const message = decode(revocationMessageSchema, bytes, limits.maxRevocationMessageBytes);
      if (message.kind === 'ask') this.#answerAsk(stream, link, message);
      else {
        stream.end();
        await this.#told(link, message);
      }
    } catch (thrown) {
      stream.reset(toMeshError(thrown).code === 'denied' ? ResetCode.denied : ResetCode.badHeader);
    } finally {
      limit.cancel();
      const left = (this.#answering.get(peerId) ?? 1) - 1;
      if (left > 0) this.#answering.set(peerId, left);
      else this.#answering.delete(peerId);
    }
  }

  #answerAsk(stream: Stream, link: Link, { owner, epoch, after }: Ask): void {
    // Whose lists are known tells with whom this device is shared.
    const answer = this.#concerns(owner, link) ? this.#options.trust.tell(owner, epoch, after) : null;
    if (!answer) throw new MeshError('denied');
    stream.write(encode(revocationMessageSchema, answer));
    stream.end();
  }

  async #told(link: Link, { owner, records, after, list }: Tell): Promise<void> {
    await this.learn(owner, records, list, link.peerId);
    if (this.#options.trust.recordsOf(owner) === null) return;
    const known = this.head(owner);
    const told = { epoch: records.length - 1, n: after + list.length };
    // Something between what was known and what was told is missing.
    if (isAhead(told, known))
      await this.#catchUp(link, { kind: 'ask', owner, epoch: known.epoch, after: known.n });
  }

  async #catchUp(link: Link, first: Ask): Promise<void> {
    let question = first;
    const { owner } = first;
    try {
      for (let pieces = 0; pieces < maxPieces; pieces++) {
        const answer = await this.#exchange(link, question);
        if (answer?.owner !== owner) return;
        if (!(await this.learn(owner, answer.records, answer.list, link.peerId))) return;
        const { epoch, n } = this.head(owner);
        question = { kind: 'ask', owner, epoch, after: n };
      }
    } catch (thrown) {
      this.#options.log('debug', 'A peer did not tell its revocations', {
        peer: link.peerId,
        code: toMeshError(thrown).code,
      });
    }
  }

  async #tell(link: Link, pieces: readonly Tell[]): Promise<void> {
    try {
      for (const piece of pieces) await this.#exchange(link, piece);
    } catch (thrown) {
      this.#options.log('debug', 'A peer could not be told of revocations', {
        peer: link.peerId,
        code: toMeshError(thrown).code,
      });
    }
  }

  /** One message, and what comes back, if anything does. */
  async #exchange(link: Link, message: RevocationMessage): Promise<Tell | null> {
    const stream = link.session.open(streamProtocols.revocations);
    const limit = this.#limit(stream);
    try {
      stream.write(encode(revocationMessageSchema, message));
      stream.end();
      const bytes = await readMessage(stream, limits.maxRevocationMessageBytes);
      if (bytes.length === 0) return null;
      const answer = decode(revocationMessageSchema, bytes, limits.maxRevocationMessageBytes);
      return answer.kind === 'tell' ? answer : null;
    } catch (thrown) {
      stream.reset(ResetCode.cancel);
      throw thrown;
    } finally {
      limit.cancel();
    }
  }

  #limit(stream: Stream): { cancel(): void } {
    return this.#options.clock.after(limits.revocationExchangeTimeoutMs, () =>
      stream.reset(ResetCode.timeout),
    );
  }

  /** Peers of my owner need to know all that I know; those of another owner, of mine and of their own. */
  #concerns(owner: string, { standing }: Link): boolean {
    return (
      standing.relation === 'own' ||
      owner === standing.membership.owner ||
      owner === this.#options.trust.owner
    );
  }

  /** At least one, for a rotation has news without an entry. */
  #pieces(owner: string, since: Head): readonly Tell[] {
    const { epoch, n } = this.head(owner);
    const pieces: Tell[] = [];
    for (let after = since.epoch === epoch ? since.n : 0; ;) {
      const piece = this.#options.trust.tell(owner, epoch, after);
      if (!piece) return pieces;
      pieces.push(piece);
      after += piece.list.length;
      if (after >= n || piece.list.length === 0) return pieces;
    }
  }

  /** What it tells it has: it is not sent back. */
  #toldBySignaling(owner: string, list: readonly string[]): void {
    const last = list.at(-1);
    if (owner !== this.#options.trust.owner || last === undefined) return;
    const { epoch } = this.head(owner);
    const known = this.#uploaded.epoch === epoch ? this.#uploaded.n : 0;
    const n = this.#options.trust.revocations(owner).lastIndexOf(last) + 1;
    this.#uploaded = { epoch, n: Math.max(known, n) };
  }

  /** The receiver asks for what it lacks between its list and this. */
  #loosePiece(owner: string, entries: readonly string[]): readonly Tell[] {
    const records = this.#options.trust.recordsOf(owner);
    const list = entries.slice(-limits.maxRevocationsPerMessage);
    return records ? [{ kind: 'tell', owner, records: [...records], after: this.head(owner).n, list }] : [];
  }
}

/** Entries have about 500 bytes and at most eight thousand. */
function piecesOf(list: readonly string[]): string[][] {
  const pieces: string[][] = [];
  let bytes = maxPieceBytes;
  for (const entry of list) {
    bytes += entry.length;
    if (bytes > maxPieceBytes) {
      pieces.push([]);
      bytes = entry.length;
    }
    pieces.at(-1)?.push(entry);
  }
  return pieces;
}

const maxPieceBytes = limits.maxSignalingMessageBytes / 2;

function isAhead(one: Head, other: Head): boolean {
  return one.epoch === other.epoch ? one.n > other.n : one.epoch > other.epoch;
}

function isSame(one: Head, other: Head): boolean {
  return one.epoch === other.epoch && one.n === other.n;
}
