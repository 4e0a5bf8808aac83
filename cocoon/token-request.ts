/** A setup token as a command asks for it, and as this device's owner signs it. */

import type { OwnerKeys, Rights, TokenAnswer, TokenRequest } from '@cocoon-mesh/protocol';
import {
  MeshError,
  adminRights,
  check,
  coOwnerRights,
  createSetupToken,
  dateText,
  memberRights,
  narrowRights,
  tokenRequestSchema,
} from '@cocoon-mesh/protocol';

/** What is remembered of a token: a rotation lets its grant live by the hash. */
export interface MadeToken {
  readonly jti: string;
  /** SHA-256 of the grant, base64url. */
  readonly grantHash: string;
  /** Seconds since 1970. */
  readonly expires: number;
  /** PeerId of the device that asked for it; null: this device's own user. */
  readonly asker: string | null;
}

/** What the lists of a request are made of. */
const nouns: Readonly<Record<string, string>> = { services: 'service', capabilities: 'capability' };

/** A token of a year is a password that nobody changes. */
const maxExpiresSeconds = 30 * 86_400;

/** What came from a command or a peer, as a request. @throws MeshError usage */
export function tokenRequestOf(value: unknown): TokenRequest {
  try {
    return check(tokenRequestSchema, value);
  } catch (cause) {
    const why = cause instanceof MeshError ? cause.message : '';
    throw (
      wordOf(value) ?? new MeshError('usage', `The token that is asked for cannot be made: ${why}`, { cause })
    );
  }
}

/** What is wrong with what a person wrote, in the words of the command; null when it is something else. */
function wordOf(value: unknown): MeshError | null {
  const [issue] = tokenRequestSchema.safeParse(value).error?.issues ?? [];
  const [field = '', index] = issue?.path ?? [];
  if (field === 'scope')
    return new MeshError('usage', `There is no scope ${JSON.stringify(at(value, field))}`, {
      hint: 'enroll is for a device of your own, co-own shares a cocoon with another owner.',
    });
  const what = nouns[String(field)];
  if (what === undefined || index === undefined) return null;
  const written = JSON.stringify(at(at(value, field), index));
  return new MeshError('usage', `${written} is not the name of a ${what}`, {
    hint: `Write one name after each --${what}, as \`cocoon devices\` shows it, and no port.`,
  });
}

function at(value: unknown, key: PropertyKey): unknown {
  return typeof value === 'object' && value !== null && Object.hasOwn(value, key)
    ? (value as Record<PropertyKey, unknown>)[key]
    : undefined;
}

/**
 * @param place.now seconds since 1970, on the clock of the signaling server that will judge it
 * @throws MeshError usage
 */
export async function signToken(
  keys: OwnerKeys,
  request: TokenRequest,
  place: { readonly signaling: string; readonly receiptKey: Uint8Array; readonly now: number },
): Promise<{ answer: TokenAnswer; made: Omit<MadeToken, 'asker'> }> {
  if (request.expires_s > maxExpiresSeconds)
    throw new MeshError('usage', 'A token lives at most 30 days', {
      hint: 'Use --until for the end of the right itself.',
    });
  const expires = place.now + request.expires_s;
  const { token, jti, grantHash } = await createSetupToken(keys, {
    scope: request.scope,
    rights: rightsOf(request),
    now: place.now,
    expires,
    ...(request.until === undefined ? {} : { until: request.until }),
    signaling: place.signaling,
    receiptKey: place.receiptKey,
    ...(request.cocoon === undefined ? {} : { cocoon: request.cocoon }),
  });
  const answer = {
    token,
    scope: request.scope,
    jti,
    expires_at: dateText(expires),
    signaling: place.signaling,
  };
  return { answer, made: { jti, grantHash, expires } };
}

/** What a token gives. @throws MeshError usage */
export function rightsOf(request: TokenRequest): Rights {
  return request.scope === 'enroll' ? enrollRights(request) : shareRights(request);
}

function enrollRights(request: TokenRequest): Rights {
  const { services, capabilities, admin, cocoon } = request;
  if (cocoon !== undefined)
    throw new MeshError('usage', '--cocoon goes with --scope co-own', {
      hint: 'A device of your own may use all of your cocoons.',
    });
  if (!isNarrow(request)) return admin ? [...memberRights, ...adminRights] : memberRights;
  if (admin)
    throw new MeshError('usage', '--admin cannot be narrowed to services or capabilities', {
      hint: 'Make one token without --admin, or one without --service and --capability.',
    });
  return narrowRights(services, capabilities);
}

function shareRights(request: TokenRequest): Rights {
  const { services, capabilities, admin, cocoon } = request;
  if (cocoon === undefined)
    throw new MeshError('usage', 'With --scope co-own say which cocoon is shared', {
      hint: 'Example: cocoon generate-token --scope co-own --cocoon server',
    });
  if (admin)
    throw new MeshError('usage', 'Another owner cannot be given --admin', {
      hint: 'Only devices of your own ask for tokens and revocations in your name.',
    });
  return isNarrow(request) ? narrowRights(services, capabilities) : coOwnerRights;
}

function isNarrow({ services, capabilities }: TokenRequest): boolean {
  return services.length > 0 || capabilities.length > 0;
}
