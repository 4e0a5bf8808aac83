/**
 * Signaling's offer to connect two peers: short-lived, for one session. It opens a connection attempt and
 * nothing more; whether the peer belongs here, the membership in HELLO decides.
 */

import * as z from 'zod/mini';
import { nonceField, ownerIdField, peerIdField, signedFields, timeField } from './fields.ts';
import { MeshError } from './errors.ts';
import type { SigningKey } from './identity.ts';
import { limits } from './limits.ts';
import { peekObject, signObject, verifyObject } from './signed-object.ts';

const ticketSchema = z.strictObject({
  ...signedFields,
  jti: nonceField,
  /** The owner that both share. */
  owner: ownerIdField,
  /** The signed-in device that asked; it makes the SDP offer and dials. */
  offerer: peerIdField,
  answerer: peerIdField,
  nonce: nonceField,
  /** What the introduction is for. Only `session` is known. */
  scopes: z.array(z.enum(['session'])).check(z.minLength(1), z.maxLength(8)),
  iat: timeField,
  exp: timeField,
});
export type Ticket = z.infer<typeof ticketSchema>;

export async function signTicket(key: SigningKey, ticket: Omit<Ticket, 'v' | 'crit'>): Promise<string> {
  return signObject('ticket', ticketSchema, { v: 1, crit: [], ...ticket }, key);
}

/**
 * @param expected who may stand in it
 * @param now seconds since 1970 on signaling's clock (the offset is learned at sign-in)
 * @throws MeshError ticket_invalid | unknown_constraint
 */
export async function verifyTicket(
  ticketJws: string,
  publicKey: Uint8Array,
  expected: { offerer: string; answerer: string },
  now: number,
): Promise<Ticket> {
  let ticket: Ticket;
  try {
    ticket = await verifyObject('ticket', ticketSchema, ticketJws, publicKey);
  } catch (cause) {
    if (cause instanceof MeshError && cause.code === 'unknown_constraint') throw cause;
    throw new MeshError('ticket_invalid', undefined, { cause });
  }
  if (ticket.offerer !== expected.offerer || ticket.answerer !== expected.answerer)
    throw new MeshError('ticket_invalid', 'The introduction is for other peers');
  if (ticket.exp <= now || ticket.iat > now + ticketSkewSeconds)
    throw new MeshError('ticket_invalid', 'The introduction is not valid now');
  if (ticket.exp - ticket.iat > limits.ticketLifetimeMs / 1000)
    throw new MeshError('ticket_invalid', 'The introduction is valid for too long');
  return ticket;
}

/** The offset to signaling's clock is known to about a round trip. */
const ticketSkewSeconds = 5;

/** Reads without verifying: to sort the signals that arrive while the ticket is being verified. */
export function peekTicket(ticketJws: string): Ticket {
  return peekObject('ticket', ticketSchema, ticketJws);
}
