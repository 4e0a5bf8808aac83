/** A token is good at one signaling server only: what to do when that is not the one at which this cocoon is. */

import type { Grant } from '@cocoon-mesh/protocol';
import { MeshError, toMeshError } from '@cocoon-mesh/protocol';

/** What can stand in a command line that somebody copies: it is the word of whoever made the token. */
const plainUrl = /^wss?:\/\/[\w.:[\]-]{1,260}(?:\/[\w./-]{0,200})?$/;

/**
 * @param thrown why the token could not be redeemed
 * @param here how the signaling server of this cocoon is called, by itself and by others
 * @returns the same, or what says where the token can be redeemed
 */
export function refusedToken(
  thrown: unknown,
  grant: Pick<Grant, 'signaling'>,
  here: readonly string[],
): MeshError {
  const error = toMeshError(thrown);
  const isElsewhere = !here.some((url) => isSameUrl(grant.signaling, url));
  const options = { cause: thrown, ...(isElsewhere ? { hint: elsewhereHint(grant.signaling) } : {}) };
  if (error.code === 'signaling_unreachable' && isElsewhere)
    return new MeshError(
      error.code,
      `The signaling server ${here[0]} cannot be reached, and the setup token is for another one`,
      options,
    );
  if (error.code !== 'token_wrong_signaling') return error;
  if (isElsewhere)
    return new MeshError(
      error.code,
      `The setup token is for another signaling server than ${here[0]}, where this cocoon is`,
      options,
    );
  return new MeshError(
    error.code,
    `The signaling server ${here[0]} has lost its database since the setup token was made`,
    {
      cause: thrown,
      hint: 'Ask the owner of the cocoon for a new token: the old one cannot be used any more.',
    },
  );
}

function elsewhereHint(signaling: string): string {
  if (!plainUrl.test(signaling))
    return 'Ask the owner of the cocoon at which signaling server it is, or for a token made at yours.';
  return `Claim it with a cocoon at that server: \`cocoon run --signaling ${signaling}\`, or signaling_url in config.toml. Or ask the owner for a token made at yours.`;
}

function isSameUrl(one: string, other: string): boolean {
  return one === other || (URL.canParse(one) && URL.canParse(other) && hrefOf(one) === hrefOf(other));
}

function hrefOf(url: string): string {
  return new URL(url).href.replace(/\/$/, '');
}
