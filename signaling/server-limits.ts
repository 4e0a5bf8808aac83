/**
 * What one signaling server allows, each with its reason. Limits that both sides of the wire must know are in
 * `protocol/limits.ts`; these are the server's own, and tests start servers with smaller ones.
 */

import { limits } from '@cocoon-mesh/protocol';

const MiB = 1024 * 1024;

/** At most `count` in any `seconds`; more is refused until the window is over. */
export interface Rate {
  readonly count: number;
  readonly seconds: number;
}

/** An address can be an office behind one NAT; an identity is one device. */
export interface Rates {
  readonly address: Rate;
  readonly identity: Rate;
}

export type RateKind =
  'sign_in' | 'redemption' | 'reserve' | 'introduction' | 'lookup' | 'http' | 'message' | 'revocations';

export interface ServerLimits {
  readonly maxConnections: number;
  readonly maxConnectionsPerAddress: number;
  readonly maxDevicesPerOwner: number;
  /** Waiting to be read by one peer; the largest welcome is half of it. */
  readonly maxUnsentBytes: number;
  /** Changes of one device are told at most this often. */
  readonly devicePushMs: number;
  readonly accessTokenSeconds: number;
  /** Both ways, for `exp`, `nbf` and `iat` of tokens, ours and those of an OIDC issuer. */
  readonly tokenSkewSeconds: number;
  readonly accessKeySeconds: number;
  /** How often tokens of unknown keys may make the server look into the database for new ones. */
  readonly accessKeyRereadMs: number;
  /** One request to an OIDC issuer. */
  readonly oidcFetchMs: number;
  /** After a failure it is left alone. */
  readonly oidcRetryMs: number;
  /** How often tokens of unknown keys may make the server ask for new ones. */
  readonly oidcCooldownMs: number;
  /** Its keys are renewed in the background, */
  readonly oidcRefreshMs: number;
  /** and trusted no longer than this without having been renewed. */
  readonly oidcMaxStaleMs: number;
  readonly maxOidcAnswerBytes: number;
  /** `POST /auth/challenge` to `POST /auth/token`. */
  readonly challengeMs: number;
  readonly maxChallenges: number;
  readonly maxHttpHeadBytes: number;
  readonly maxHttpBodyBytes: number;
  readonly httpRequestMs: number;
  /** Of the five seconds a shutdown may take, what peers get to answer the closing handshake. */
  readonly goodbyeMs: number;
  /** What `goodbye` asks peers to wait; each adds its own jitter. */
  readonly goodbyeRetryMs: number;
  readonly rates: Readonly<Record<RateKind, Rates>>;
}

const perMinute = (count: number): Rate => ({ count, seconds: 60 });

export const defaultLimits: ServerLimits = {
  /** About 10 kB each when idle. */
  maxConnections: 10_000,
  maxConnectionsPerAddress: 512,
  /** As many as a welcome can list. */
  maxDevicesPerOwner: 1000,
  maxUnsentBytes: 16 * MiB,
  /** Devices appear within two seconds; load changes every five. */
  devicePushMs: 500,
  accessTokenSeconds: 15 * 60,
  /** Servers that set their clocks by the network differ by less; a token lives half a minute longer for it. */
  tokenSkewSeconds: 30,
  /** A key that leaked unnoticed is worth a day; then it verifies until its last token has ended. */
  accessKeySeconds: 24 * 3600,
  /** A token that another server signed with a key of this very moment may be refused for this long. */
  accessKeyRereadMs: 1_000,
  /** Half of what a sign-in may take. */
  oidcFetchMs: 5_000,
  /** A device that was refused comes back in its own time; all of them together must not hammer. */
  oidcRetryMs: 5_000,
  oidcCooldownMs: 30_000,
  oidcRefreshMs: 10 * 60_000,
  /** ID tokens live for an hour or so: an issuer that is down for a day has made none that still counts. */
  oidcMaxStaleMs: 24 * 3600_000,
  /** A description or a set of keys; the large providers have 2 to 10 KiB. */
  maxOidcAnswerBytes: 256 * 1024,
  challengeMs: 60_000,
  maxChallenges: 10_000,
  /** A token takes 4 KiB at most. */
  maxHttpHeadBytes: 16 * 1024,
  maxHttpBodyBytes: 64 * 1024,
  httpRequestMs: 10_000,
  goodbyeMs: 2_000,
  goodbyeRetryMs: 1_000,
  rates: {
    /**
     * Costs several signature checks. Of an address, what fails or comes from devices that are new here: after the
     * loss of a database all devices of an office are.
     */
    sign_in: { address: perMinute(1200), identity: perMinute(60) },
    /**
     * Of an address, what is wrong or by tokens of owners that are new here. An identity is a device, or a token
     * from an address beyond its share: people who paste a token try a few times.
     */
    redemption: { address: perMinute(120), identity: perMinute(20) },
    /**
     * By tokens of known owners from an address beyond its share, each about eight signature checks: 600 a minute
     * are a hundredth of a core. An identity is an owner, who enrolls a rack of machines at most.
     */
    reserve: { address: perMinute(600), identity: perMinute(60) },
    introduction: { address: perMinute(6000), identity: perMinute(300) },
    lookup: { address: perMinute(12_000), identity: perMinute(600) },
    http: { address: perMinute(1200), identity: perMinute(600) },
    /**
     * Of any kind, on a socket: fifty introductions with twenty candidates each fit. Of an address, what comes before
     * a sign-in is done, and requests of the HTTP routes for signing in and claiming: two or three for each attempt,
     * so that ten thousand wrong ones in a minute leave room for right ones.
     */
    message: { address: perMinute(60_000), identity: perMinute(6000) },
    /** Entries: each is a signature to check, and a device may bring the longest list there is, twice. */
    revocations: {
      address: perMinute(10 * limits.maxRevocations),
      identity: perMinute(2 * limits.maxRevocations),
    },
  },
};
