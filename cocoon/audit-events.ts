/**
 * What of a device's life goes into its audit log, and in which words. Names and ids only; the log itself is
 * `@cocoon-mesh/audit`.
 */

import type { AuditFields } from '@cocoon-mesh/audit';
import type { Mesh, MeshEvents, ProvenPeer, TrustEvent } from '@cocoon-mesh/mesh';
import type { NeededRight, ProvenMembership, ProvenShare, Revocation, Rights } from '@cocoon-mesh/protocol';
import { dateText } from '@cocoon-mesh/protocol';

/** The names stand in logs for good: one is never given another meaning. */
export type AuditEvent =
  // This device signed
  | 'token.made'
  | 'membership.signed'
  | 'share.signed'
  // This device learned
  | 'token.redeemed'
  | 'token.second_redeemer'
  | 'membership.adopted'
  | 'share.learned'
  | 'owner.removed'
  | 'device.revoked'
  | 'token.revoked'
  | 'share.given_back'
  | 'revocation.unknown'
  | 'rotated'
  // Others came
  | 'introduction'
  | 'introduction.refused'
  | 'stream.denied'
  // Others asked this device to sign
  | 'owner.asked'
  | 'owner.refused';

export interface DeviceAudit {
  append(event: AuditEvent, fields?: AuditFields): void;
}

/** @returns ends it */
export function recordMeshEvents(mesh: Pick<Mesh, 'on'>, audit: DeviceAudit): () => void {
  const introduced: MeshEvents['introduction'] = ({ peerId, owner, dialled }, code) => {
    const about = { peer: peerId, owner, dialled };
    if (code === null) audit.append('introduction', about);
    else audit.append('introduction.refused', { ...about, code });
  };
  const stops = [
    mesh.on('trust', (event) => recordTrust(event, audit)),
    mesh.on('introduction', introduced),
    mesh.on('denied', (peer, right) => recordDenied(audit, peer, right)),
  ];
  return () => {
    for (const stop of stops) stop();
  };
}

/** A peer that may be here asked for something that it may not use. */
export function recordDenied(
  audit: DeviceAudit,
  { peerId, owner }: Pick<ProvenPeer, 'peerId' | 'owner'>,
  { protocol, verb, name }: NeededRight,
): void {
  audit.append('stream.denied', { peer: peerId, owner, protocol, verb, name, code: 'denied' });
}

/** @param asker who asked for it over a session; null: this device's own user */
export function recordToken(
  audit: DeviceAudit,
  grant: {
    readonly jti: string;
    readonly scope: string;
    readonly rights: Rights;
    readonly exp: number;
    readonly until?: number | undefined;
    readonly cocoon?: string | undefined;
  },
  asker: string | null,
): void {
  const { jti, scope, rights, exp, until, cocoon } = grant;
  audit.append('token.made', {
    jti,
    scope,
    cocoon,
    rights: rightTexts(rights),
    expires: dateText(exp),
    until: until === undefined ? undefined : dateText(until),
    asker: asker ?? undefined,
  });
}

export function membershipFields(membership: ProvenMembership): AuditFields {
  const { owner, peerId, epoch, serial, jti, provisional, rights, expires } = membership;
  return {
    member: peerId,
    owner,
    epoch,
    serial,
    jti,
    provisional,
    rights: rightTexts(rights),
    expires: expires === null ? null : dateText(expires),
  };
}

export function shareFields(share: ProvenShare): AuditFields {
  const { owner, cocoon, coOwner, epoch, serial, jti, provisional, rights, expires } = share;
  return {
    co_owner: coOwner,
    owner,
    cocoon,
    epoch,
    serial,
    jti,
    provisional,
    rights: rightTexts(rights),
    expires: expires === null ? null : dateText(expires),
  };
}

function recordTrust(event: TrustEvent, audit: DeviceAudit): void {
  switch (event.kind) {
    case 'claim': {
      const { kind: _, ...fields } = event;
      return audit.append('token.redeemed', fields);
    }
    case 'second_redeemer': {
      const { owner, jti, first, second } = event;
      return audit.append('token.second_redeemer', { owner, jti, first, second, code: 'token_used' });
    }
    case 'share':
      return audit.append('share.learned', shareFields(event.share));
    case 'revocation':
      return recordRevocation(event.owner, event.entry, audit);
    case 'rotation':
      return audit.append('rotated', { owner: event.owner, epoch: event.epoch });
    case 'membership':
      return audit.append('membership.adopted', membershipFields(event.membership));
  }
}

function recordRevocation(owner: string, { kind, subject, n, epoch }: Revocation, audit: DeviceAudit): void {
  const place = { owner, epoch, number: n };
  switch (kind) {
    case 'device':
      return audit.append('device.revoked', { device: subject, ...place });
    case 'owner':
      return audit.append('owner.removed', { removed: subject, ...place });
    case 'token':
      return audit.append('token.revoked', { jti: subject, ...place });
    case 'share':
      return audit.append('share.given_back', { cocoon: subject, ...place });
    default:
      return audit.append('revocation.unknown', { kind, subject, ...place });
  }
}

/** `http use grafana`: one text for each right. */
function rightTexts(rights: Rights): string[] {
  return rights.map(({ protocol, verbs, names }) => `${protocol} ${verbs.join('+')} ${names.join('+')}`);
}
