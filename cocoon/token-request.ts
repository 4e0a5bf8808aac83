/** A setup token as a command asks for it, and as this device's owner signs it. */

import type { OwnerKeys, Rights } from '@cocoon-mesh/protocol';
import { MeshError, adminRights, createSetupToken, memberRights, narrowRights } from '@cocoon-mesh/protocol';

export interface TokenRequest {
  readonly scope: string;
  readonly expires_s: number;
  /** Seconds since 1970. */
  readonly until?: number;
  readonly admin: boolean;
  readonly services: readonly string[];
  readonly capabilities: readonly string[];
  readonly cocoon?: string;
}

export interface TokenAnswer {
  readonly token: string;
  readonly scope: string;
  readonly expires_at: string;
  /** Where the token is redeemed. */
  readonly signaling: string;
}

/** A token of a year is a password that nobody changes. */
const maxExpiresSeconds = 30 * 86_400;

/** @throws MeshError usage | unsupported */
export async function signToken(
  keys: OwnerKeys,
  request: TokenRequest,
  place: { readonly signaling: string; readonly receiptKey: Uint8Array; readonly now: number },
): Promise<TokenAnswer> {
  if (request.scope === 'co-own')
    throw new MeshError(
      'unsupported',
      'Sharing a cocoon with another owner (--scope co-own) is not there yet',
      {
        hint: 'This version makes tokens for devices of your own: --scope enroll.',
      },
    );
  if (request.scope !== 'enroll') throw new MeshError('usage', 'A scope is enroll or co-own');
  if (
    !Number.isSafeInteger(request.expires_s) ||
    request.expires_s < 1 ||
    request.expires_s > maxExpiresSeconds
  )
    throw new MeshError('usage', 'A token lives at most 30 days', {
      hint: 'Use --until for the end of the right itself.',
    });
  const expires = place.now + request.expires_s;
  const { token } = await createSetupToken(keys, {
    scope: 'enroll',
    rights: rightsOf(request),
    now: place.now,
    expires,
    ...(request.until === undefined ? {} : { until: request.until }),
    signaling: place.signaling,
    receiptKey: place.receiptKey,
  });
  return {
    token,
    scope: request.scope,
    expires_at: new Date(expires * 1000).toISOString(),
    signaling: place.signaling,
  };
}

function rightsOf({ services, capabilities, admin }: TokenRequest): Rights {
  const narrowed = services.length > 0 || capabilities.length > 0;
  if (narrowed && admin)
    throw new MeshError('usage', '--admin cannot be narrowed to services or capabilities', {
      hint: 'Make one token without --admin, or one without --service and --capability.',
    });
  const rights = narrowed ? narrowRights(services, capabilities) : memberRights;
  return admin ? [...rights, ...adminRights] : rights;
}
