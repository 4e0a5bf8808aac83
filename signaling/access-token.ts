/**
 * The JWT of the HTTP routes (RFC 7519, EdDSA by jose). It lets its holder ask this server and nobody else:
 * devices never take it for a right. What it says was true when it was made; revocation is asked anew each time.
 */

import type { Clock } from '@cocoon-mesh/protocol';
import {
  MeshError,
  fromBase64Url,
  peerIdOf,
  publicKeyOf,
  randomBytes,
  toBase64Url,
} from '@cocoon-mesh/protocol';
import type { JSONWebKeySet } from 'jose';
import { SignJWT, jwtVerify } from 'jose';
import type { AccessKeys } from './access-keys.ts';
import { publicJwk } from './access-keys.ts';
import type { StoredMembership } from './store.ts';

/** The schema of `welcome` has the same limit. */
const maxTokenBytes = 4096;

export type Access =
  /** A device of an owner. */
  | {
      readonly scope: 'member';
      readonly peerId: string;
      readonly owner: string;
      readonly epoch: number;
      /** Token behind the membership. */
      readonly jti: string | null;
    }
  /** A device key and nothing more: good for `POST /claims`. */
  | { readonly scope: 'claims'; readonly peerId: string };

interface AccessTokensOptions {
  readonly keys: AccessKeys;
  /** Names this server, whatever address it is reached by. */
  readonly issuer: string;
  readonly lifetimeSeconds: number;
  readonly skewSeconds: number;
  readonly clock: Clock;
}

export class AccessTokens {
  readonly #options: AccessTokensOptions;

  constructor(options: AccessTokensOptions) {
    this.#options = options;
  }

  /** Every key of which tokens may be about. */
  async jwks(): Promise<JSONWebKeySet> {
    const keys = await this.#options.keys.verifying();
    return { keys: keys.map(({ id, jwk }) => ({ ...jwk, kid: id, alg: 'EdDSA', use: 'sig' })) };
  }

  /** Ends with the membership when that is sooner. */
  async signForMember(membership: StoredMembership): Promise<{ token: string; expiresIn: number }> {
    const { owner, peerId, epoch, jti, expires } = membership;
    const claims = { scope: 'member', epoch, ...(jti === null ? {} : { membership_jti: jti }) };
    return this.#sign(owner, peerId, claims, expires);
  }

  async signForClaims(peerId: string): Promise<{ token: string; expiresIn: number }> {
    return this.#sign(peerId, peerId, { scope: 'claims' }, null);
  }

  /** @throws MeshError unauthorized, whatever is wrong with it */
  async verify(token: string): Promise<Access> {
    if (token.length > maxTokenBytes) throw new MeshError('unauthorized');
    const { keys, issuer, lifetimeSeconds, skewSeconds, clock } = this.#options;
    try {
      const { payload } = await jwtVerify(
        token,
        async ({ kid = '' }) => {
          const key = await keys.find(kid);
          if (!key) throw new MeshError('unauthorized', 'The key of the token is unknown');
          return key.publicKey;
        },
        {
          algorithms: ['EdDSA'],
          typ: 'access',
          issuer,
          audience: this.#audience,
          currentDate: new Date(clock.now()),
          clockTolerance: skewSeconds,
          // Else `iat` may lie in the future.
          maxTokenAge: lifetimeSeconds,
          requiredClaims: ['sub', 'exp', 'iat', 'nbf', 'jti', 'cnf', 'scope'],
        },
      );
      return accessOf(payload);
    } catch (cause) {
      throw new MeshError('unauthorized', undefined, { cause });
    }
  }

  get #audience(): string {
    return `${this.#options.issuer}/http`;
  }

  async #sign(
    subject: string,
    peerId: string,
    claims: Record<string, unknown>,
    notAfter: number | null,
  ): Promise<{ token: string; expiresIn: number }> {
    const { keys, issuer, lifetimeSeconds, clock } = this.#options;
    const { id, key } = await keys.current();
    const now = Math.floor(clock.now() / 1000);
    const expires = Math.min(now + lifetimeSeconds, notAfter ?? Infinity);
    const token = await new SignJWT({ ...claims, cnf: { jwk: publicJwk(publicKeyOf(peerId)) } })
      .setProtectedHeader({ alg: 'EdDSA', typ: 'access', kid: id })
      .setSubject(subject)
      .setIssuer(issuer)
      .setAudience(this.#audience)
      .setJti(toBase64Url(randomBytes(16)))
      .setIssuedAt(now)
      .setNotBefore(now)
      .setExpirationTime(expires)
      .sign(key.privateKey);
    return { token, expiresIn: expires - now };
  }
}

/** The signature is ours, so the payload is what `#sign` put in. @throws whatever comes of it when it is not */
function accessOf(payload: Record<string, unknown>): Access {
  const claims = payload as {
    readonly sub: string;
    readonly scope: string;
    readonly epoch: number;
    readonly membership_jti?: string;
    readonly cnf: { readonly jwk: { readonly x: string } };
  };
  const peerId = peerIdOf(fromBase64Url(claims.cnf.jwk.x));
  if (claims.scope === 'claims') return { scope: 'claims', peerId };
  const { scope, sub: owner, epoch, membership_jti: jti = null } = claims;
  if (scope !== 'member' || !Number.isInteger(epoch)) throw new MeshError('unauthorized');
  return { scope, peerId, owner, epoch, jti };
}
