import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { MeshError } from '@cocoon-mesh/protocol';
import { generateSigningKey } from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { SignJWT, decodeJwt, decodeProtectedHeader } from 'jose';
import type { Kysely } from 'kysely';
import { AccessKeys } from './access-keys.ts';
import { AccessTokens } from './access-token.ts';
import { openDatabase } from './open-database.ts';
import { defaultLimits } from './server-limits.ts';
import type { Tables } from './tables.ts';

const { accessTokenSeconds, tokenSkewSeconds, accessKeySeconds, accessKeyRereadMs } = defaultLimits;

interface Issuer {
  readonly keys: AccessKeys;
  readonly tokens: AccessTokens;
}

async function newIssuer(db: Kysely<Tables>, clock: SteppedClock): Promise<Issuer> {
  const keys = await AccessKeys.open({
    db,
    clock,
    signSeconds: accessKeySeconds,
    overlapSeconds: accessTokenSeconds + tokenSkewSeconds,
    skewSeconds: tokenSkewSeconds,
    rereadMs: accessKeyRereadMs,
  });
  const tokens = new AccessTokens({
    keys,
    issuer: 'urn:test',
    lifetimeSeconds: accessTokenSeconds,
    skewSeconds: tokenSkewSeconds,
    clock,
  });
  return { keys, tokens };
}

async function withDatabase(
  body: (db: Kysely<Tables>, clock: SteppedClock, reopen: () => Promise<Kysely<Tables>>) => Promise<void>,
): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'cocoon-access-'));
  const opened: Kysely<Tables>[] = [];
  const open = async (): Promise<Kysely<Tables>> => {
    const db = await openDatabase(`sqlite:${join(folder, 'signaling.db')}`);
    opened.push(db);
    return db;
  };
  try {
    await body(await open(), new SteppedClock(), open);
  } finally {
    for (const db of opened) await db.destroy();
    rmSync(folder, { recursive: true });
  }
}

const peer = await generateSigningKey();

async function newToken({ tokens }: Issuer): Promise<string> {
  return (await tokens.signForClaims(peer.peerId)).token;
}

async function accepts({ tokens }: Issuer, token: string): Promise<boolean> {
  return tokens.verify(token).then(
    () => true,
    (error: MeshError) => {
      assert.equal(error.code, 'unauthorized');
      return false;
    },
  );
}

function kid(token: string): string {
  return decodeProtectedHeader(token).kid ?? '';
}

async function published({ tokens }: Issuer): Promise<string[]> {
  return (await tokens.jwks()).keys.map((key) => key.kid ?? '');
}

describe('an access token', () => {
  test('signed by our own key is refused when it is of another type, audience or issuer, lacks a claim, or is too large', async () => {
    await withDatabase(async (db, clock) => {
      const issuer = await newIssuer(db, clock);
      const token = await newToken(issuer);
      const { privateKey } = (await issuer.keys.current()).key;
      assert.deepEqual(await issuer.tokens.verify(token), { scope: 'claims', peerId: peer.peerId });
      const header = { ...decodeProtectedHeader(token), alg: 'EdDSA' };
      const claims = decodeJwt(token);
      const without = (name: string) =>
        Object.fromEntries(Object.entries(claims).filter(([each]) => each !== name));
      const now = claims.iat ?? 0;
      const wrong: Record<string, readonly [object, object]> = {
        'of type receipt': [{ ...header, typ: 'receipt' }, claims],
        'of type JWT': [{ ...header, typ: 'JWT' }, claims],
        'for another audience': [header, { ...claims, aud: 'urn:test' }],
        'of another issuer': [header, { ...claims, iss: 'urn:other' }],
        'of an unknown key': [{ ...header, kid: 'unknown' }, claims],
        'of no key': [{ ...header, kid: undefined }, claims],
        'of a scope that there is not': [header, { ...claims, scope: 'admin' }],
        'of a member without an epoch': [header, { ...claims, scope: 'member' }],
        'of no device': [header, { ...claims, cnf: {} }],
        'made in the future': [header, { ...claims, iat: now + 31 }],
        'made long ago': [header, { ...claims, iat: now - 931, exp: now + 900 }],
        'valid in the future': [header, { ...claims, nbf: now + 31 }],
        'that is over': [header, { ...claims, exp: now - 30 }],
        'with a date that is none': [header, { ...claims, exp: 'tomorrow' }],
        'with ballast': [header, { ...claims, ballast: 'x'.repeat(4096) }],
        ...Object.fromEntries(
          Object.keys(claims).map((name) => [`without ${name}`, [header, without(name)] as const]),
        ),
      };
      assert.ok(Object.keys(wrong).includes('without nbf'));
      for (const [what, [protectedHeader, payload]] of Object.entries(wrong)) {
        const jwt = await new SignJWT({ ...payload })
          .setProtectedHeader({ alg: 'EdDSA', ...protectedHeader })
          .sign(privateKey);
        assert.equal(await accepts(issuer, jwt), false, what);
      }
    });
  });

  test('is taken by a clock that is up to half a minute off, either way', async () => {
    await withDatabase(async (db, clock) => {
      const issuer = await newIssuer(db, clock);
      const behind = new SteppedClock(clock.now() - 30_000);
      const other = await newIssuer(db, behind);
      const token = await newToken(issuer);
      assert.equal(await accepts(other, token), true);
      clock.step((accessTokenSeconds + 29) * 1000);
      assert.equal(await accepts(issuer, token), true);
      clock.step(1000);
      assert.equal(await accepts(issuer, token), false);

      const further = new SteppedClock(clock.now() - 31_000);
      assert.equal(await accepts(await newIssuer(db, further), await newToken(issuer)), false);
    });
  });
});

describe('the key of access tokens', () => {
  test('is replaced after a day, and the old one is known until its last token has ended', async () => {
    await withDatabase(async (db, clock) => {
      const issuer = await newIssuer(db, clock);
      const first = await newToken(issuer);
      assert.deepEqual(await published(issuer), [kid(first)]);
      clock.step(accessKeySeconds * 1000 - 1000);
      const last = await newToken(issuer);
      assert.equal(kid(last), kid(first));
      clock.step(1000);
      const next = await newToken(issuer);
      assert.notEqual(kid(next), kid(last));
      assert.deepEqual(await published(issuer), [kid(next), kid(last)]);
      assert.equal(await accepts(issuer, last), true);
      clock.step((accessTokenSeconds + tokenSkewSeconds - 2) * 1000);
      assert.equal(await accepts(issuer, last), true);
      clock.step(2000);
      assert.equal(await accepts(issuer, last), false);
      assert.deepEqual(await published(issuer), [kid(next)]);
    });
  });

  test('stays the same over a restart, and none is kept for ever', async () => {
    await withDatabase(async (db, clock, reopen) => {
      const issuer = await newIssuer(db, clock);
      const token = await newToken(issuer);
      const again = await newIssuer(await reopen(), clock);
      assert.equal(await accepts(again, token), true);
      assert.equal(kid(await newToken(again)), kid(token));
      for (let day = 0; day < 5; day++) {
        clock.step(accessKeySeconds * 1000);
        await newToken(again);
      }
      assert.equal((await db.selectFrom('access_key').selectAll().execute()).length, 2);
    });
  });

  test('is one for all servers of a database, which learn of each other’s newest', async () => {
    await withDatabase(async (db, clock, reopen) => {
      const left = await newIssuer(db, clock);
      const right = await newIssuer(await reopen(), clock);
      clock.step(accessKeySeconds * 1000);
      const [one, other] = await Promise.all([newToken(left), newToken(right)]);
      assert.equal(kid(one), kid(other));
      clock.step(accessKeySeconds * 1000);
      const news = await newToken(left);
      assert.equal(await accepts(right, news), true);
      assert.equal(kid(await newToken(right)), kid(news));
      assert.deepEqual(await published(right), await published(left));
    });
  });

  test('that nobody knows makes the server ask the database once in a while, not for each token', async () => {
    await withDatabase(async (db, clock) => {
      let queries = 0;
      const counted = db.withPlugin({
        transformQuery: ({ node }) => {
          queries++;
          return node;
        },
        transformResult: async ({ result }) => result,
      });
      const issuer = await newIssuer(counted, clock);
      const token = await newToken(issuer);
      const { privateKey } = (await issuer.keys.current()).key;
      const strange = await new SignJWT(decodeJwt(token))
        .setProtectedHeader({ alg: 'EdDSA', typ: 'access', kid: 'strange' })
        .sign(privateKey);
      clock.step(accessKeyRereadMs);
      queries = 0;
      for (let i = 0; i < 50; i++) assert.equal(await accepts(issuer, strange), false);
      assert.equal(await accepts(issuer, token), true);
      assert.equal(queries, 1);
      clock.step(accessKeyRereadMs);
      assert.equal(await accepts(issuer, strange), false);
      assert.equal(queries, 2);
    });
  });

  test('made while a clock was wrong is not used for years', async () => {
    await withDatabase(async (db, clock) => {
      const wrong = new SteppedClock(clock.now() + 365 * 24 * 3600_000);
      const token = await newToken(await newIssuer(db, wrong));
      const issuer = await newIssuer(db, clock);
      assert.notEqual(kid(await newToken(issuer)), kid(token));
      const now = await newToken(issuer);
      assert.equal(await accepts(issuer, now), true);
      assert.equal(await accepts(issuer, token), false);
      assert.deepEqual(await published(issuer), [kid(now)]);
    });
  });
});
