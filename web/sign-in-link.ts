/**
 * What the address of the page carries: the one-time token of a sign-in link, in its fragment, which no server sees.
 * A browser takes nothing else. The address forgets it at once, and all the more a secret that does not belong there.
 */

import type { SetupToken } from '@cocoon-mesh/protocol';
import { MeshError, readSetupToken } from '@cocoon-mesh/protocol';

export interface PageAddress {
  readonly pathname: string;
  readonly search: string;
  readonly hash: string;
}

/** As they begin, whatever their version. */
const secretText = /cocoon-(secret|recovery)-/i;

/**
 * @param forget puts another address in the place of this one
 * @returns null when the address is no sign-in link
 * @throws MeshError local_only for a secret, token_malformed | token_invalid | unknown_constraint
 */
export async function takeSignInLink(
  { pathname, search, hash }: PageAddress,
  forget: (address: string) => void,
): Promise<SetupToken | null> {
  if (hasSecret(search) || hasSecret(hash)) {
    forget(pathname);
    throw new MeshError('local_only', 'A browser never takes the secret of an owner, only a sign-in link', {
      hint: 'Run `cocoon open` on one of your devices for one. The secret may stay in the history of this browser: delete it there, or run `cocoon secret rotate` if others can see it.',
    });
  }
  const text = new URLSearchParams(hash.slice(1)).get('token');
  if (text === null) return null;
  forget(pathname + search);
  const token = await readSetupToken(text);
  if (token.grant.scope === 'co-own')
    throw new MeshError(
      'token_invalid',
      'This token shares a cocoon with another owner and signs nobody in',
      {
        hint: 'Run `cocoon claim` with it on a device that holds your secret: all of your devices reach the cocoon then, your browsers, too.',
      },
    );
  return token;
}

function hasSecret(part: string): boolean {
  const fields = new URLSearchParams(part.slice(1));
  return secretText.test(part) || secretText.test(fields.toString()) || fields.has('secret');
}
