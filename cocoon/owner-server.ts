/**
 * `/cocoon/owner/1`, the answering end: what a peer may ask of the device that holds the secret. There is nothing
 * here about the secret itself, plugins or configuration, for those are asked for on the device only.
 */

import type { Mesh, ProvenPeer, Stream } from '@cocoon-mesh/mesh';
import { readMessage } from '@cocoon-mesh/mesh/read-message.ts';
import type { Clock, OwnerAnswer, OwnerRequest, RevocationTell } from '@cocoon-mesh/protocol';
import {
  MeshError,
  ResetCode,
  allows,
  decode,
  encode,
  limits,
  ownerAnswerSchema,
  ownerRequestSchema,
  peekRevocation,
  streamProtocols,
  toMeshError,
} from '@cocoon-mesh/protocol';
import type { DeviceAudit } from './audit-events.ts';
import type { OwnerDesk } from './owner-desk.ts';

export interface OwnerServerOptions {
  readonly mesh: Pick<Mesh, 'handle' | 'owner' | 'ownerRecords'>;
  readonly desk: OwnerDesk;
  readonly clock: Clock;
  readonly audit: DeviceAudit;
}

/** A device asks once; more often only when something is wrong with it. */
const renewEveryMs = 60_000;
/** People revoke and invite by hand; each request is a signature, a line of audit and news for everybody. */
const requestsPerMinute = 30;

export class OwnerServer {
  readonly #options: OwnerServerOptions;
  /** When a device was renewed last, on the monotonic clock; devices of my owner only, so it stays small. */
  readonly #renewed = new Map<string, number>();
  /** Requests of each device in its present minute. */
  readonly #asked = new Map<string, { readonly sinceMs: number; count: number }>();

  constructor(options: OwnerServerOptions) {
    this.#options = options;
    options.mesh.handle(streamProtocols.owner, (stream, peer) => void this.#serve(stream, peer));
  }

  async #serve(stream: Stream, peer: ProvenPeer): Promise<void> {
    const limit = this.#options.clock.after(limits.ownerRequestTimeoutMs, () =>
      stream.reset(ResetCode.timeout),
    );
    try {
      const answer = await this.#answer(stream, peer);
      stream.write(encode(ownerAnswerSchema, answer));
      stream.end();
    } catch {
      stream.reset(ResetCode.internal);
    } finally {
      limit.cancel();
    }
  }

  async #answer(stream: Stream, peer: ProvenPeer): Promise<OwnerAnswer> {
    const { audit } = this.#options;
    let request: OwnerRequest | null = null;
    try {
      const bytes = await readMessage(stream, limits.maxOwnerMessageBytes);
      request = decode(ownerRequestSchema, bytes, limits.maxOwnerMessageBytes);
      assertMay(peer, request);
      this.#count(peer.peerId);
      const answer = await this.#do(request, peer);
      audit.append('owner.asked', { peer: peer.peerId, owner: peer.owner, asked: request.op });
      return answer;
    } catch (thrown) {
      const { code, message, hint } = toMeshError(thrown);
      const asked = request?.op ?? null;
      audit.append('owner.refused', { peer: peer.peerId, owner: peer.owner, asked, code });
      return { error: { code, message: message.slice(0, 512), hint: hint.slice(0, 512) } };
    }
  }

  async #do(request: OwnerRequest, { peerId }: ProvenPeer): Promise<OwnerAnswer> {
    const { desk } = this.#options;
    switch (request.op) {
      case 'token':
        return { token: await desk.makeToken(request.token, peerId) };
      case 'remove_owner':
        return { revocations: this.#proofOf(await desk.removeOwner(request.owner, peerId)) };
      case 'revoke':
        return { revocations: this.#proofOf(await desk.revokeDevice(request.device, peerId)) };
      case 'revoke_token':
        return { revocations: this.#proofOf(await desk.revokeToken(request.jti, peerId)) };
      case 'renew':
        return { membership: await this.#renew(peerId) };
    }
  }

  /** @throws MeshError rate_limited */
  #count(peerId: string): void {
    const nowMs = this.#options.clock.monotonic();
    const known = this.#asked.get(peerId);
    const asked = known && nowMs - known.sinceMs < 60_000 ? known : { sinceMs: nowMs, count: 0 };
    this.#asked.set(peerId, asked);
    if (++asked.count > requestsPerMinute) throw new MeshError('rate_limited');
  }

  /** The asker believes nothing else. */
  #proofOf(entry: string): RevocationTell {
    const { owner, ownerRecords } = this.#options.mesh;
    const after = peekRevocation(entry).n - 1;
    return { kind: 'tell', owner: owner ?? '', records: [...(ownerRecords ?? [])], after, list: [entry] };
  }

  async #renew(peerId: string) {
    const { clock, desk } = this.#options;
    const last = this.#renewed.get(peerId);
    if (last !== undefined && clock.monotonic() - last < renewEveryMs) throw new MeshError('rate_limited');
    const membership = await desk.renew(peerId);
    this.#renewed.set(peerId, clock.monotonic());
    return membership;
  }
}

/** @throws MeshError denied */
function assertMay({ relation, rights }: ProvenPeer, { op }: OwnerRequest): void {
  const isAllowed = relation === 'own' && (op === 'renew' || allows(rights, 'owner', 'admin', null));
  if (!isAllowed) throw new MeshError('denied');
}
