/**
 * Who is let in, and what it may do: peers that signaling brings, what two peers show each other in HELLO, every
 * stream that is opened. `Trust` and `Directory` judge the proofs; here they are put to those who come.
 */

import type { DeviceEntry, Hello, MembershipProof, NeededRight, OwnerRecords } from '@cocoon-mesh/protocol';
import {
  MeshError,
  ResetCode,
  allows,
  limits,
  neededRight,
  sessionVersions,
  shareRecords,
  verifyOwnerRecords,
} from '@cocoon-mesh/protocol';
import type { Directory } from './directory.ts';
import type { EngineName } from './engine.ts';
import type { Judgement, Link } from './links.ts';
import type { ProvenPeer } from './mesh.ts';
import type { RevocationNews } from './revocation-news.ts';
import type { SelfRecords } from './self-records.ts';
import type { Stream } from './stream.ts';
import type { Standing, Trust } from './trust.ts';

export interface AdmissionOptions {
  readonly self: string;
  readonly instance: string;
  readonly engine: EngineName;
  readonly trust: Trust;
  readonly directory: Directory;
  readonly news: RevocationNews;
  readonly records: SelfRecords;
  /** This device holds its owner's secret. */
  readonly signs: () => boolean;
  /** What this device allows beyond rights. */
  readonly policy: (peer: ProvenPeer, right: NeededRight) => boolean;
  readonly denied: (peer: ProvenPeer, right: NeededRight) => void;
  readonly log: (level: 'debug' | 'info' | 'warn', message: string, fields?: Record<string, unknown>) => void;
}

export class Admission {
  readonly #options: AdmissionOptions;

  constructor(options: AdmissionOptions) {
    this.#options = options;
  }

  /**
   * Somebody dials us; this is what signaling shows of it, before a connection is made.
   * @throws MeshError denied, and as `Directory.verify`
   */
  async vouch({ peer_id: peerId, record, membership, share }: DeviceEntry): Promise<Standing> {
    const { standing } = await this.#options.directory.verify(peerId, record, membership, share);
    // A share goes one way: whoever was given the cocoon dials it.
    if (standing.relation === 'shared') throw new MeshError('denied', 'The device belongs to another owner');
    return standing;
  }

  /**
   * What to say to a peer: to one of another owner no more than that owner may know.
   * @param vouched who it is when it dials us, null when we dial
   * @throws MeshError membership_invalid before there is a membership, device_not_found
   */
  async hello(peerId: string, vouched: Standing | null): Promise<Hello> {
    const { trust, directory, records, instance, engine, signs } = this.#options;
    if (!trust.membership || trust.owner === null)
      throw new MeshError('membership_invalid', 'This device is not enrolled yet');
    const standing = vouched ?? directory.get(peerId)?.standing;
    if (!standing) throw new MeshError('device_not_found', `No device ${peerId} is known`);
    const { owner } = standing.membership;
    const isOwn = standing.relation === 'own';
    // The cocoon may not have heard yet that it is shared with us.
    const share = standing.relation === 'shared' ? trust.shareProof(peerId, trust.owner) : null;
    return {
      versions: [...sessionVersions],
      carriers: ['webrtc'],
      engine,
      instance,
      membership: trust.membership,
      record: isOwn ? await records.own() : await records.forOwner(owner),
      ...(share ? { share } : {}),
      ...(isOwn && signs() ? { signs: true } : {}),
      revocations: trust.helloRevocations(isOwn ? null : owner),
      max_streams: limits.maxStreams,
    };
  }

  /** Is this peer, with what its HELLO says, welcome? @throws MeshError denied | revoked | … */
  async judge(peerId: string, hello: Hello): Promise<Judgement> {
    const { trust, directory, news } = this.#options;
    // What ends somebody's right is learned before the right is looked at.
    const known = hello.revocations.filter(({ owner }) => trust.recordsOf(owner) !== null);
    const records = await recordsIn(hello);
    await news.heard(peerId, known, records);
    const proven = await directory.verify(peerId, hello.record, hello.membership, hello.share);
    // Of an owner that only its share has made known.
    const unknown = hello.revocations.filter((head) => !known.includes(head));
    await news.heard(peerId, unknown, records);
    const objection = trust.objection(proven.standing);
    if (objection) throw objection;
    const { relation } = proven.standing;
    if (relation === 'own' || relation === 'shared') {
      this.#warnOfTakenName(proven);
      directory.met(proven);
    }
    return proven;
  }

  /** The newest that is known of a peer, judged anew. @throws MeshError as `Trust.judge` */
  async judgeAgain({ peerId, hello, standing }: Link): Promise<Standing> {
    const { trust, directory, self } = this.#options;
    if (standing.relation === 'own') return directory.get(peerId)?.standing ?? standing;
    const [cocoon, coOwner] =
      standing.relation === 'shared' ? [peerId, trust.owner] : [self, standing.membership.owner];
    const share = coOwner === null ? null : trust.shareProof(cocoon, coOwner);
    return trust.judge(peerId, hello.membership, share ?? hello.share);
  }

  /** Why a stream is not taken; null when its handler may have it. */
  refusal(stream: Stream, peer: ProvenPeer): ResetCode | null {
    let needed: NeededRight | null;
    try {
      needed = neededRight(stream.protocol, stream.header);
    } catch {
      return ResetCode.badHeader;
    }
    if (!needed) return null;
    const { protocol, verb, name } = needed;
    if (allows(peer.rights, protocol, verb, name) && this.#options.policy(peer, needed)) return null;
    this.#options.denied(peer, needed);
    return ResetCode.denied;
  }

  #warnOfTakenName(proven: Judgement): void {
    const { directory, log } = this.#options;
    const name = directory.nameOf(proven);
    const { peer_id: peer } = proven.record;
    const pinned = directory.pinnedElsewhere(name, peer);
    if (pinned !== null)
      log('warn', 'A device uses a name that is pinned to another', { name, peer, pinned });
  }
}

/** Whoever is shown to have granted or accepted something, with the newest that is shown of its keys. */
async function recordsIn({ membership, share }: Hello): Promise<ReadonlyMap<string, OwnerRecords>> {
  const found = new Map<string, OwnerRecords>();
  const shown: (OwnerRecords | undefined)[] = [recordsOf(membership)];
  if (share) shown.push([...shareRecords(share)], share.redemption.redeemer_records);
  for (const records of shown) {
    if (!records) continue;
    try {
      const { id, epoch } = await verifyOwnerRecords(records);
      if (epoch >= (found.get(id)?.length ?? 0)) found.set(id, records);
    } catch {
      // The proof that they are part of is judged later, with its reason.
    }
  }
  return found;
}

function recordsOf(proof: MembershipProof): OwnerRecords {
  return proof.kind === 'membership' ? proof.records : proof.redemption.records;
}
