/**
 * `COCOON_OIDC_TOKEN`: the ID token for a signaling server that asks for one, or `@FILE`. Such tokens end soon, so
 * the file, which some other program renews, is read at each sign-in.
 */

import { readFile } from 'node:fs/promises';
import { limits } from '@cocoon-mesh/protocol';
import { systemCode } from './key-file.ts';
import type { Log } from './logs.ts';

/** Null is what a device without a token shows; the server then says what it wants. */
export function oidcTokenSource(setting: string | null, log: Log): () => Promise<string | null> {
  return async () => {
    if (setting === null) return null;
    try {
      const token = await tokenOf(setting);
      if (token.length <= limits.maxOidcTokenBytes) return token === '' ? null : token;
      log('warn', 'COCOON_OIDC_TOKEN is too long to be an ID token');
    } catch (thrown) {
      log('warn', 'The file of COCOON_OIDC_TOKEN cannot be read', { code: systemCode(thrown) });
    }
    return null;
  };
}

async function tokenOf(setting: string): Promise<string> {
  const text = setting.startsWith('@') ? await readFile(setting.slice(1), 'utf8') : setting;
  return text.trim();
}
