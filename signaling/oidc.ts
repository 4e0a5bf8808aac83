/**
 * An extra gate for teams: whoever signs in also shows an ID token of the issuer that the server trusts. It opens
 * nothing by itself: without a membership or a setup token its holder is nobody here.
 *
 * What the issuer says about itself is asked at the first sign-in and renewed in the background, so that an issuer
 * that is down stops nobody whose token is signed by a key that is known. Without any known key all are refused.
 */

import type { Clock } from '@cocoon-mesh/protocol';
import { MeshError, deadline } from '@cocoon-mesh/protocol';
import type { JWTPayload, JWTVerifyGetKey } from 'jose';
import { createRemoteJWKSet, customFetch, errors, jwtVerify } from 'jose';
import type { SignalingLog } from './log.ts';
import type { ServerLimits } from './server-limits.ts';

/** No password in the place of a key, and nothing that a key of another kind could be taken for. */
const algorithms = ['RS256', 'PS256', 'ES256', 'EdDSA'];

export interface OidcOptions {
  /** An https:// URL, exactly as the issuer writes it. */
  readonly issuer: string;
  /** For whom its tokens must be made. Default: the public address of the server, as https:// and without a path. */
  readonly audience?: string;
}

interface OidcGateOptions {
  readonly issuer: string;
  readonly audience: string;
  readonly clock: Clock;
  readonly log: SignalingLog;
  readonly limits: ServerLimits;
}

interface KeySet {
  readonly url: string;
  readonly find: JWTVerifyGetKey & { reload(): Promise<void> };
  readonly renewedAt: number;
}

export class OidcGate {
  readonly #options: OidcGateOptions;
  readonly #closed = new AbortController();
  #keys: KeySet | null = null;
  #renewing: Promise<KeySet> | null = null;
  #failure: { readonly at: number; readonly error: MeshError } | null = null;

  constructor(options: OidcGateOptions) {
    this.#options = options;
  }

  /** @throws MeshError oidc_required | oidc_unavailable */
  async assertPasses(token: string | undefined): Promise<void> {
    if (token === undefined || token === '') throw new MeshError('oidc_required');
    const { find } = await this.#knownKeys();
    const { issuer, audience, clock, limits } = this.#options;
    try {
      const { payload, protectedHeader } = await jwtVerify(token, find, {
        algorithms,
        issuer,
        audience,
        currentDate: new Date(clock.now()),
        clockTolerance: limits.tokenSkewSeconds,
        requiredClaims: ['sub', 'exp', 'iat'],
      });
      const { typ } = protectedHeader;
      if (typ !== undefined && typ.toLowerCase() !== 'jwt') throw refused('it is a token of another kind');
      assertMadeFor(payload, audience, clock.now() / 1000 + limits.tokenSkewSeconds);
    } catch (thrown) {
      throw gateError(thrown, audience);
    }
  }

  close(): void {
    this.#closed.abort();
  }

  /** @throws MeshError oidc_unavailable */
  async #knownKeys(): Promise<KeySet> {
    const { clock, limits } = this.#options;
    const keys = this.#keys;
    if (!keys) return this.#renew();
    const age = clock.monotonic() - keys.renewedAt;
    if (age >= limits.oidcMaxStaleMs) return this.#renew();
    if (age >= limits.oidcRefreshMs) this.#renew().catch(() => undefined);
    return keys;
  }

  async #renew(): Promise<KeySet> {
    this.#renewing ??= this.#discover().finally(() => (this.#renewing = null));
    return this.#renewing;
  }

  async #discover(): Promise<KeySet> {
    const { clock, issuer, limits } = this.#options;
    const patience = deadline(clock, limits.oidcFetchMs);
    try {
      const response = await this.#fetch(discoveryUrl(issuer), patience.signal);
      const url = keySetUrl(await response.json(), issuer);
      const find = this.#keys?.url === url ? this.#keys.find : this.#remoteKeys(url);
      await find.reload();
      this.#keys = { url, find, renewedAt: clock.monotonic() };
      return this.#keys;
    } catch (thrown) {
      throw thrown instanceof MeshError ? thrown : this.#failed(thrown);
    } finally {
      patience.cancel();
    }
  }

  #remoteKeys(url: string): KeySet['find'] {
    const { limits } = this.#options;
    return createRemoteJWKSet(new URL(url), {
      timeoutDuration: limits.oidcFetchMs,
      // A token of an unknown key may be of a new one; made-up ones must not become as many requests.
      cooldownDuration: limits.oidcCooldownMs,
      // We renew them ourselves, for jose would forget the old ones before it has new ones.
      cacheMaxAge: Infinity,
      [customFetch]: (from, { signal }) => this.#fetch(from, signal),
    });
  }

  /** @throws MeshError oidc_unavailable, at once when the issuer has failed just now */
  async #fetch(url: string, signal: AbortSignal): Promise<Response> {
    const { clock, limits } = this.#options;
    if (this.#failure && clock.monotonic() - this.#failure.at < limits.oidcRetryMs) throw this.#failure.error;
    try {
      const response = await fetch(url, {
        signal: AbortSignal.any([signal, this.#closed.signal]),
        headers: { accept: 'application/json' },
        redirect: 'error',
      });
      if (response.status !== 200) throw new Error(`it answered ${response.status}`);
      const body = await readAtMost(response, limits.maxOidcAnswerBytes);
      this.#failure = null;
      return new Response(body);
    } catch (thrown) {
      throw this.#failed(thrown);
    }
  }

  #failed(cause: unknown): MeshError {
    const { clock, log, issuer } = this.#options;
    const error = unavailable(cause);
    this.#failure = { at: clock.monotonic(), error };
    // Strangers are told that it failed, not how.
    if (!this.#closed.signal.aborted)
      log.warn({ issuer, error: reasonOf(cause) }, 'The OIDC issuer could not be asked');
    return error;
  }
}

/** @throws MeshError usage */
export function checkedOidc(
  { issuer, audience }: OidcOptions,
  publicUrl: string | null,
): { issuer: string; audience: string } {
  const url = URL.canParse(issuer) ? new URL(issuer) : null;
  if (!url || !isSafe(url) || url.username || url.password || url.search || url.hash)
    throw new MeshError(
      'usage',
      'SIGNALING_OIDC_ISSUER is an https:// URL without user, query or fragment; http:// is for this machine only',
    );
  // A token made for whoever asks would let any other program's users in.
  const wanted = audience ?? (publicUrl === null ? '' : new URL(publicUrl.replace(/^ws/, 'http')).origin);
  if (wanted === '')
    throw new MeshError(
      'usage',
      'SIGNALING_OIDC_ISSUER needs SIGNALING_OIDC_AUDIENCE or SIGNALING_PUBLIC_URL',
    );
  return { issuer, audience: wanted };
}

function discoveryUrl(issuer: string): string {
  return `${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`;
}

/** Who can change what is fetched decides who comes in. */
function isSafe(url: URL): boolean {
  const host = url.hostname;
  const isLoopback = host === 'localhost' || host === '[::1]' || /^127\.\d+\.\d+\.\d+$/.test(host);
  return url.protocol === 'https:' || (url.protocol === 'http:' && isLoopback);
}

/** @throws Error saying what is wrong with the document */
function keySetUrl(document: unknown, issuer: string): string {
  const { issuer: named, jwks_uri: keys } = (document ?? {}) as Record<string, unknown>;
  if (named !== issuer) throw new Error('it calls itself by another name than SIGNALING_OIDC_ISSUER');
  if (typeof keys !== 'string' || !URL.canParse(keys) || !isSafe(new URL(keys)))
    throw new Error('it names no safe place of its keys');
  return keys;
}

async function readAtMost(response: Response, maxBytes: number): Promise<Uint8Array<ArrayBuffer>> {
  const pieces: Uint8Array[] = [];
  let length = 0;
  for await (const piece of response.body ?? []) {
    length += piece.length;
    if (length > maxBytes) throw new Error('its answer is too large');
    pieces.push(piece);
  }
  return new Uint8Array(Buffer.concat(pieces));
}

/** OpenID Connect Core 3.1.3.7: with several audiences, the one it was made for. */
function assertMadeFor({ aud, azp, iat = 0 }: JWTPayload, audience: string, latest: number): void {
  if (iat > latest) throw refused('it was made in the future');
  const isShared = Array.isArray(aud) && aud.length > 1;
  if ((isShared || azp !== undefined) && azp !== audience) throw refused('it was made for another program');
}

function gateError(thrown: unknown, audience: string): MeshError {
  if (thrown instanceof MeshError) return thrown;
  if (
    thrown instanceof errors.JWKSTimeout ||
    thrown instanceof errors.JWKSInvalid ||
    !(thrown instanceof errors.JOSEError) ||
    thrown.code === 'ERR_JOSE_GENERIC'
  )
    return unavailable(thrown);
  if (thrown instanceof errors.JWTExpired) return refused('it has expired', thrown);
  if (thrown instanceof errors.JWTClaimValidationFailed) {
    const what = thrown.claim === 'aud' ? `its audience is not ${audience}` : `its ${thrown.claim} is wrong`;
    return refused(what, thrown);
  }
  return refused('it is not signed by the identity provider', thrown);
}

function refused(reason: string, cause?: unknown): MeshError {
  return new MeshError('oidc_required', `The ID token was refused: ${reason}`, { cause });
}

function unavailable(cause: unknown): MeshError {
  return new MeshError('oidc_unavailable', undefined, { cause });
}

/** `fetch` hides what happened one level down. */
function reasonOf(thrown: unknown): string {
  const { cause = thrown } = thrown instanceof Error ? thrown : {};
  return cause instanceof Error ? cause.message : String(cause);
}
