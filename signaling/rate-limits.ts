/**
 * Counts what addresses and identities ask for, in memory. An identity is counted only once it is proven:
 * otherwise a stranger could use up somebody else's share.
 */

import { isIPv6 } from 'node:net';
import { MeshError } from '@cocoon-mesh/protocol';
import { RateLimiterMemory, RateLimiterRes } from 'rate-limiter-flexible';
import type { Rate, RateKind, Rates } from './server-limits.ts';

export class RateLimited extends MeshError {
  override readonly retryAfterMs: number;

  constructor(retryAfterMs: number) {
    super('rate_limited');
    this.retryAfterMs = retryAfterMs;
  }
}

interface Limiters {
  readonly address: RateLimiterMemory;
  readonly identity: RateLimiterMemory;
}

export class RateLimits {
  readonly #limiters: ReadonlyMap<RateKind, Limiters>;
  readonly #refused: (kind: RateKind) => void;

  constructor(rates: Readonly<Record<RateKind, Rates>>, refused: (kind: RateKind) => void) {
    this.#refused = refused;
    this.#limiters = new Map(
      Object.entries(rates).map(([kind, { address, identity }]) => [
        kind as RateKind,
        { address: limiter(address), identity: limiter(identity) },
      ]),
    );
  }

  /** @throws RateLimited */
  async countAddress(kind: RateKind, address: string): Promise<void> {
    await this.#count(kind, 'address', addressGroup(address));
  }

  /** @throws RateLimited */
  async countIdentity(kind: RateKind, peerId: string, many = 1): Promise<void> {
    await this.#count(kind, 'identity', peerId, many);
  }

  /** Has an address asked for all that it may? */
  async isUsedUp(kind: RateKind, address: string): Promise<boolean> {
    const limiter = this.#limiters.get(kind)?.address;
    if (!limiter) return false;
    const used = await limiter.get(addressGroup(address));
    return (used?.consumedPoints ?? 0) >= limiter.points;
  }

  /** Counts what cannot be refused any more. */
  async penalize(kind: RateKind, address: string): Promise<void> {
    await this.#limiters.get(kind)?.address.penalty(addressGroup(address));
  }

  async #count(kind: RateKind, by: keyof Limiters, key: string, many = 1): Promise<void> {
    try {
      await this.#limiters.get(kind)?.[by].consume(key, many);
    } catch (thrown) {
      if (!(thrown instanceof RateLimiterRes)) throw thrown;
      this.#refused(kind);
      throw new RateLimited(thrown.msBeforeNext);
    }
  }
}

/** Whoever has one IPv6 address has its whole /64: they count as one. */
export function addressGroup(address: string): string {
  if (!isIPv6(address)) return address;
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address);
  if (mapped?.[1] !== undefined) return mapped[1];
  const [head = '', tail] = (address.split('%')[0] ?? '').split('::');
  const left = head === '' ? [] : head.split(':');
  const right = tail === undefined || tail === '' ? [] : tail.split(':');
  const zeros = Array.from({ length: Math.max(0, 8 - left.length - right.length) }, () => '0');
  return `${[...left, ...zeros, ...right].slice(0, 4).join(':')}::/64`;
}

function limiter({ count, seconds }: Rate): RateLimiterMemory {
  return new RateLimiterMemory({ points: count, duration: seconds });
}
