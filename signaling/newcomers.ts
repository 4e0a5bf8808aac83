/**
 * Sign-ins and redemptions of one address. Whoever floods the server with wrong ones from behind an address must
 * not shut out the others who share it (an office, a mobile network), and must not keep the server busy.
 *
 * Counted is what is wrong, and what comes of devices and owners that this server does not know. When an address
 * has used up its share, only those are listened to that can be recognized cheaply: devices that were here before,
 * and holders of setup tokens that are good as far as is known here. Those have a share for each device, each token
 * and each owner, which nobody else can use up.
 */

import type { Clock, Redemption } from '@cocoon-mesh/protocol';
import {
  MeshError,
  SignatureLabel,
  assertGrantValidAt,
  fromBase64Url,
  grantSchema,
  hashObject,
  peekGrant,
  utf8,
  verifyLabelled,
  verifyObject,
} from '@cocoon-mesh/protocol';
import type { RateLimits } from './rate-limits.ts';
import type { Challenge } from './sign-in.ts';
import type { Store } from './store.ts';

type Kind = 'sign_in' | 'redemption';

interface NewcomersOptions {
  readonly rates: RateLimits;
  readonly store: Pick<Store, 'owner' | 'claim' | 'knowsDevice'>;
  readonly clock: Clock;
}

interface KnownToken {
  readonly jti: string;
  readonly owner: string;
  /** It is used, by whoever the redemption names. */
  readonly isRepeated: boolean;
}

/** What went wrong was not on the side of whoever asked. */
const ourFaults: ReadonlySet<string> = new Set([
  'rate_limited',
  'internal',
  'storage_failed',
  'overloaded',
  'oidc_unavailable',
  'timeout',
]);

export class Newcomers {
  readonly #options: NewcomersOptions;
  /** What was let in, and whether it was counted then. */
  readonly #admitted = new WeakMap<Challenge | Redemption, { kind: Kind; counted: boolean }>();

  constructor(options: NewcomersOptions) {
    this.#options = options;
  }

  /** Before the answer to a challenge is judged. @throws RateLimited */
  async admitDevice(challenge: Challenge, address: string): Promise<void> {
    const { rates, store } = this.#options;
    const isKnown = await store.knowsDevice(challenge.peerId);
    // A known one that is none after all costs one signature to find out, and counts then.
    if (!isKnown) await rates.countAddress('sign_in', address);
    this.#admitted.set(challenge, { kind: 'sign_in', counted: !isKnown });
  }

  /** Before a redemption is judged; asked again about the same one, it counts once. @throws RateLimited */
  async admitRedemption(redemption: Redemption, address: string): Promise<void> {
    if (this.#admitted.has(redemption)) return;
    const { rates } = this.#options;
    const known = await this.#recognize(redemption);
    if (!known) await rates.countAddress('redemption', address);
    else if (await rates.isUsedUp('redemption', address)) await this.#useReserve(known, address);
    this.#admitted.set(redemption, { kind: 'redemption', counted: known === null });
  }

  /** Does the work of judging what was let in, and counts it when it turns out wrong. @throws as `work` */
  async judge<T>(what: Challenge | Redemption, address: string, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (thrown) {
      await this.#failed(what, address, thrown);
      throw thrown;
    }
  }

  async #failed(what: Challenge | Redemption, address: string, thrown: unknown): Promise<void> {
    const admitted = this.#admitted.get(what);
    if (!admitted || admitted.counted) return;
    if (!(thrown instanceof MeshError) || ourFaults.has(thrown.code)) return;
    admitted.counted = true;
    await this.#options.rates.penalize(admitted.kind, address);
  }

  /** Of the token first, which the fewest have. */
  async #useReserve({ jti, owner, isRepeated }: KnownToken, address: string): Promise<void> {
    const { rates } = this.#options;
    await rates.countIdentity('redemption', jti);
    // All peers of a member have seen how it came in, and can show that: it takes nothing from those to come.
    if (isRepeated) return;
    await rates.countIdentity('reserve', owner);
    await rates.countAddress('reserve', address);
  }

  /**
   * A token that is in time and unused, of a known owner, in the hand of whoever has its key: so nobody else can use
   * up its share or its owner's. The dearest come last; what else there is to know is judged afterwards.
   */
  async #recognize(redemption: Redemption): Promise<KnownToken | null> {
    const { store, clock } = this.#options;
    try {
      const { iss } = peekGrant(redemption.grant);
      const owner = await store.owner(iss);
      if (!owner) return null;
      const key = fromBase64Url(owner.publicKey);
      const grant = await verifyObject('grant', grantSchema, redemption.grant, key);
      const claim = await store.claim(grant.jti);
      if (claim && claim.redeemer !== redemption.redeemer) return null;
      // A repeated redemption may come late.
      if (!claim) assertGrantValidAt(grant, Math.floor(clock.now() / 1000));
      await verifyLabelled(
        fromBase64Url(grant.one_time_key),
        fromBase64Url(redemption.one_time_signature),
        SignatureLabel.redeemOneTime,
        utf8(redemption.redeemer),
        await hashObject(redemption.grant),
      );
      return { jti: grant.jti, owner: iss, isRepeated: claim !== null };
    } catch (thrown) {
      if (thrown instanceof MeshError && !ourFaults.has(thrown.code)) return null;
      throw thrown;
    }
  }
}
