/**
 * The JWT of the HTTP routes (RFC 7519, EdDSA by jose). It lets its holder ask this server and nobody else:
 * devices never take it for a right. What it says was true when it was made; revocation is asked anew each time.
 */

import type { Clock, SigningKey } from '@cocoon-mesh/protocol';
import {
  MeshError,
  fromBase64Url,
  importPublicKey,
  peerIdOf,
  publicKeyOf,
  randomBytes,
  toBase64Url,
} from '@cocoon-mesh/protocol';
import type { CryptoKey, JSONWebKeySet } from 'jose';
import { SignJWT, calculateJwkThumbprint, jwtVerify } from 'jose';
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
  readonly key: SigningKey;
  /** Names this server, whatever address it is reached by. */
  readonly issuer: string;
  readonly lifetimeSeconds: number;
  readonly clock: Clock;
}

export class AccessTokens {
  readonly jwks: JSONWebKeySet;
  readonly #options: AccessTokensOptions;
  readonly #keyId: string;
  readonly #publicKey: CryptoKey;

  private constructor(options: AccessTokensOptions, keyId: string, publicKey: CryptoKey) {
    this.#options = options;
    this.#keyId = keyId;
    this.#publicKey = publicKey;
    this.jwks = { keys: [{ ...publicJwk(options.key.publicKey), kid: keyId, alg: 'EdDSA', use: 'sig' }] };
  }

  static async create(options: AccessTokensOptions): Promise<AccessTokens> {
    const keyId = await calculateJwkThumbprint(publicJwk(options.key.publicKey));
    return new AccessTokens(options, keyId, await importPublicKey(options.key.publicKey));
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
    try {
      const { payload } = await jwtVerify(
        token,
        (header) => {
          if (header.kid !== this.#keyId)
            throw new MeshError('unauthorized', 'The key of the token is unknown');
          return this.#publicKey;
        },
        {
          algorithms: ['EdDSA'],
          typ: 'access',
          issuer: this.#options.issuer,
          audience: this.#audience,
          currentDate: new Date(this.#options.clock.now()),
          requiredClaims: ['sub', 'exp', 'iat', 'jti', 'cnf'],
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
    const { key, issuer, lifetimeSeconds, clock } = this.#options;
    const now = Math.floor(clock.now() / 1000);
    const expires = Math.min(now + lifetimeSeconds, notAfter ?? Infinity);
    const token = await new SignJWT({ ...claims, cnf: { jwk: publicJwk(publicKeyOf(peerId)) } })
      .setProtectedHeader({ alg: 'EdDSA', typ: 'access', kid: this.#keyId })
      .setSubject(subject)
      .setIssuer(issuer)
      .setAudience(this.#audience)
      .setJti(toBase64Url(randomBytes(16)))
      .setIssuedAt(now)
      .setExpirationTime(expires)
      .sign(key.privateKey);
    return { token, expiresIn: expires - now };
  }
}

/** The signature is ours, so the payload is what `#sign` put in. */
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
  const { sub: owner, epoch, membership_jti: jti = null } = claims;
  return { scope: 'member', peerId, owner, epoch, jti };
}

/** RFC 8037. */
function publicJwk(publicKey: Uint8Array): { kty: string; crv: string; x: string } {
  return { kty: 'OKP', crv: 'Ed25519', x: toBase64Url(publicKey) };
}
