import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { secretToText, toMeshError } from '@cocoon-mesh/protocol';
import { sampleObjects } from '@cocoon-mesh/protocol/sample-objects.ts';
import { takeSignInLink } from './sign-in-link.ts';

const { token, coOwnToken, secret, recoveryCode } = await sampleObjects();

interface Taken {
  readonly jti: string | null;
  readonly code: string | null;
  /** What the address became; null when it was left alone. */
  readonly address: string | null;
}

async function take(hash: string, search = ''): Promise<Taken> {
  let address: string | null = null;
  const forget = (next: string): void => {
    address = next;
  };
  try {
    const taken = await takeSignInLink({ pathname: '/', search, hash }, forget);
    return { jti: taken?.grant.jti ?? null, code: null, address };
  } catch (thrown) {
    return { jti: null, code: toMeshError(thrown).code, address };
  }
}

describe('the address of the page', () => {
  test('gives the token of a sign-in link and forgets it', async () => {
    const { jti, address } = await take(`#token=${token}`, '?x=1');
    assert.equal(typeof jti, 'string');
    assert.equal(address, '/?x=1');
  });

  test('is left alone when it carries nothing', async () => {
    assert.deepEqual(await take('#top', '?x=1'), { jti: null, code: null, address: null });
  });

  test('is refused a secret or a recovery code wherever it stands, and forgets it', async () => {
    const text = await secretToText(secret);
    for (const hash of [
      `#secret=${text}`,
      '#secret=anything',
      `#${text}`,
      `#token=${text}`,
      `#token=${token}&secret=${text}`,
      `#token=${text.replace('-', '%2D')}`,
      `#token=${recoveryCode}`,
    ])
      assert.deepEqual(await take(hash), { jti: null, code: 'local_only', address: '/' }, hash);
    assert.deepEqual(await take('', `?secret=${text}`), { jti: null, code: 'local_only', address: '/' });
  });

  test('is refused a token that shares a cocoon, and one that is none, and forgets both', async () => {
    assert.deepEqual(await take(`#token=${coOwnToken}`), { jti: null, code: 'token_invalid', address: '/' });
    assert.deepEqual(await take('#token=nonsense'), { jti: null, code: 'token_malformed', address: '/' });
  });
});
