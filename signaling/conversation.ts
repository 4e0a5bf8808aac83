/**
 * What one peer and the server say to each other on a socket: sign-in first, then requests. Each message is dealt
 * with before the next one is read.
 */

import type { ClientMessage, ServerMessage, Timer } from '@cocoon-mesh/protocol';
import { MeshError, limits, verifyDeviceRecord } from '@cocoon-mesh/protocol';
import type { Connection, ConnectionEvents } from './connection.ts';
import type { Desk } from './desk.ts';
import { matching } from './lookup.ts';
import type { Admitted } from './ownership.ts';
import { assertOwnRecord } from './ownership.ts';
import type { OnlinePeer } from './presence.ts';
import type { StoredShare } from './share-store.ts';
import type { Challenge } from './sign-in.ts';
import { newChallenge, verifyChallenge } from './sign-in.ts';

type Message<Type extends ClientMessage['type']> = ClientMessage & { readonly type: Type };

type State =
  | { readonly state: 'silent' }
  | { readonly state: 'challenged'; readonly challenge: Challenge }
  | { readonly state: 'signed-in'; readonly peer: OnlinePeer }
  | { readonly state: 'over' };

export class Conversation implements ConnectionEvents {
  readonly #desk: Desk;
  readonly #connection: Connection;
  readonly #deadline: Timer;
  /** The URL the peer dialled, or why it cannot be known; told when it signs in. */
  readonly #url: string | MeshError;
  #state: State = { state: 'silent' };

  constructor(desk: Desk, connection: Connection, url: string | MeshError) {
    this.#desk = desk;
    this.#connection = connection;
    this.#url = url;
    this.#deadline = desk.parts.clock.after(limits.signInTimeoutMs, () =>
      connection.fail(new MeshError('timeout', 'The sign-in took too long')),
    );
  }

  async message(message: ClientMessage, bytes: number): Promise<void> {
    const state = this.#state;
    switch (state.state) {
      case 'silent':
        if (message.type !== 'sign_in')
          throw new MeshError('protocol_violation', 'The first message is sign_in');
        return this.#signIn(message);
      case 'challenged':
        if (message.type !== 'sign_in_proof')
          throw new MeshError('protocol_violation', 'A challenge is answered with sign_in_proof');
        return this.#prove(state.challenge, message);
      case 'signed-in':
        await this.#desk.parts.rates.countIdentity('message', state.peer.peerId);
        return this.#request(state.peer, message, bytes);
      case 'over':
    }
  }

  async closed(): Promise<void> {
    this.#deadline.cancel();
    const state = this.#state;
    this.#state = { state: 'over' };
    if (state.state === 'signed-in') await this.#desk.gone(state.peer);
  }

  // Signing in

  async #signIn({ peer_id: peerId, nonce }: Message<'sign_in'>): Promise<void> {
    const { clock, rates } = this.#desk.parts;
    await rates.countAddress('message', this.#connection.address);
    if (this.#url instanceof MeshError) throw this.#url;
    const challenge = newChallenge(peerId, nonce, clock);
    this.#state = { state: 'challenged', challenge };
    this.#connection.send({ type: 'challenge', nonce: challenge.serverNonce, time: challenge.time });
  }

  async #prove(challenge: Challenge, proof: Message<'sign_in_proof'>): Promise<void> {
    const { metrics, log, audit, newcomers } = this.#desk.parts;
    const { address } = this.#connection;
    try {
      const { admitted, receipt } = await newcomers.judge(proof.redemption ?? challenge, address, () =>
        this.#verify(challenge, proof),
      );
      this.#deadline.cancel();
      await this.#enter(admitted, receipt);
      metrics.signIns.inc({ result: 'ok' });
    } catch (thrown) {
      const code = thrown instanceof MeshError ? thrown.code : 'internal';
      metrics.signIns.inc({ result: code });
      log.info({ peer: challenge.peerId, address, code }, 'A sign-in was refused');
      audit.append('sign_in.refused', { peer: challenge.peerId, address, code });
      throw thrown;
    }
  }

  async #verify(
    challenge: Challenge,
    { signature, record, membership, redemption, oidc_token: idToken }: Message<'sign_in_proof'>,
  ): Promise<{ admitted: Admitted; receipt: string | null }> {
    const { ownership, rates, newcomers, oidc } = this.#desk.parts;
    const { peerId } = challenge;
    const { address } = this.#connection;
    if (this.#url instanceof MeshError) throw this.#url;
    if ((membership === undefined) === (redemption === undefined))
      throw new MeshError('bad_message', 'A sign-in shows either a membership or a redemption');
    await rates.countAddress('message', address);
    if (redemption) await newcomers.admitRedemption(redemption, address);
    else await newcomers.admitDevice(challenge, address);
    await verifyChallenge(challenge, this.#url, signature);
    await rates.countIdentity('sign_in', peerId);
    await oidc?.assertPasses(idToken);
    if (membership) return { admitted: await ownership.admit(peerId, record, membership), receipt: null };
    if (!redemption) throw new MeshError('bad_message');
    // Before the token is used up, everything else that could be refused.
    assertOwnRecord(await verifyDeviceRecord(record, peerId));
    const redeemer = { peerId, owner: null };
    const receipt = await this.#desk.redeem(redeemer, redemption, address);
    const claim = { kind: 'claim', redemption, receipt } as const;
    return { admitted: await ownership.admit(peerId, record, claim), receipt };
  }

  async #enter({ device, record, newer, rotated }: Admitted, receipt: string | null): Promise<void> {
    const { membership, record: recordJws, seq } = device;
    const { owner, peerId } = membership;
    const connection = this.#connection;
    const shares = new Map<string, StoredShare>();
    const peer: OnlinePeer = {
      peerId,
      owner,
      connection,
      membership,
      record,
      recordJws,
      seq,
      load: 0,
      shares,
    };
    await this.#desk.welcome(peer, { receipt, newer });
    this.#state = { state: 'signed-in', peer };
    await this.#desk.entered(peer, rotated);
  }

  // Requests

  async #request(peer: OnlinePeer, message: ClientMessage, bytes: number): Promise<void> {
    const { introductions, presence, rates } = this.#desk.parts;
    switch (message.type) {
      case 'sign_in':
      case 'sign_in_proof':
        throw new MeshError('protocol_violation', 'The peer is signed in already');
      case 'record':
        return this.#record(peer, message);
      case 'membership':
        return this.#membership(peer, message);
      case 'claim':
        return this.#answer(message.id, () => this.#claim(peer, message));
      case 'issue':
        return this.#desk.sharing.issue(peer, message.peer_id, message.membership);
      case 'share':
        return this.#desk.sharing.bring(peer, message.share);
      case 'load':
        if (peer.load === message.load) return;
        peer.load = message.load;
        return presence.changed(peer);
      case 'lookup':
        return this.#answer(message.id, () => this.#lookup(peer, message));
      case 'introduce':
        return this.#answer(message.id, () => this.#introduce(peer, message));
      case 'signal':
        return introductions.signal(peer, message.jti, message.payload, bytes);
      case 'revocations':
        await rates.countIdentity('revocations', peer.peerId, Math.max(1, message.list.length));
        // Lists of other owners are none of its business, and it learns nothing about them.
        if (message.owner === peer.owner) await this.#desk.revocations(peer, message.list);
        return;
      case 'ping':
        this.#send({ type: 'pong', id: message.id });
    }
  }

  /** What goes wrong in a request is its answer and does not end the connection. */
  async #answer(id: number, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (thrown) {
      if (!(thrown instanceof MeshError)) throw thrown;
      this.#connection.sendError(thrown, id);
    }
  }

  async #lookup(peer: OnlinePeer, { id, protocol, version }: Message<'lookup'>): Promise<void> {
    const { presence, rates, metrics } = this.#desk.parts;
    await rates.countIdentity('lookup', peer.peerId);
    await rates.countAddress('lookup', this.#connection.address);
    metrics.lookups.inc();
    const matches = matching(presence.ofOwner(peer.owner), protocol, version).map((match) => ({
      peer_id: match.peer.peerId,
      capability: { protocol, version: match.version },
      load: match.peer.load,
    }));
    this.#send({ type: 'lookup_result', id, matches });
  }

  async #introduce(peer: OnlinePeer, { id, peer_id: answerer }: Message<'introduce'>): Promise<void> {
    const { introductions, rates } = this.#desk.parts;
    await rates.countIdentity('introduction', peer.peerId);
    await rates.countAddress('introduction', this.#connection.address);
    await introductions.introduce(peer, answerer, id);
  }

  async #claim(peer: OnlinePeer, { id, redemption }: Message<'claim'>): Promise<void> {
    const receipt = await this.#desk.redeem(peer, redemption, this.#connection.address);
    this.#send({ type: 'claimed', id, receipt });
  }

  async #record(peer: OnlinePeer, message: Message<'record'>): Promise<void> {
    const { store, ownership, presence } = this.#desk.parts;
    if (message.record === peer.recordJws) return;
    const record = await verifyDeviceRecord(message.record, peer.peerId);
    if (record.audience !== undefined)
      return this.#desk.sharing.record(peer, record.audience, { seq: record.seq, record: message.record });
    if (record.seq <= peer.seq) return;
    await store.saveRecord(peer.peerId, { seq: record.seq, record: message.record }, ownership.nowSeconds);
    peer.record = record;
    peer.recordJws = message.record;
    peer.seq = record.seq;
    presence.changed(peer);
  }

  async #membership(peer: OnlinePeer, message: Message<'membership'>): Promise<void> {
    const { ownership, presence, rates } = this.#desk.parts;
    await rates.countIdentity('sign_in', peer.peerId);
    const { epoch } = peer.membership;
    const { device, newer } = await ownership.admit(
      peer.peerId,
      peer.recordJws,
      message.membership,
      peer.owner,
    );
    peer.membership = device.membership;
    if (newer) this.#send({ type: 'membership', membership: newer });
    presence.changed(peer);
    if (peer.membership.epoch > epoch) await this.#desk.rotated(peer);
  }

  #send(message: ServerMessage): void {
    this.#connection.send(message);
  }
}
