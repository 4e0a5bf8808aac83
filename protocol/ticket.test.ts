import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { CompactSign } from 'jose';
import { utf8 } from './bytes.ts';
import type { Ticket } from './ticket.ts';
import { signTicket, verifyTicket } from './ticket.ts';
import { sampleNow, sampleObjects } from './sample-objects.ts';

const { signaling, owner, device, otherDevice, ticket } = await sampleObjects();
const expected = { offerer: device.peerId, answerer: otherDevice.peerId };
const key = signaling.ticketKey.publicKey;
const content = await verifyTicket(ticket, key, expected, sampleNow);

describe('a ticket', () => {
  it('is accepted for the two peers it names, from its first second and not from its last', async () => {
    assert.equal(content.owner, owner.id);
    // Signaling's clock is known to about a round trip.
    await verifyTicket(ticket, key, expected, sampleNow - 5);
    await verifyTicket(ticket, key, expected, sampleNow + 59);
    for (const now of [sampleNow - 6, sampleNow + 60])
      await assert.rejects(verifyTicket(ticket, key, expected, now), { code: 'ticket_invalid' });
  });

  it('for other peers, or the same two the other way round, is refused', async () => {
    const swapped = { offerer: otherDevice.peerId, answerer: device.peerId };
    const self = { offerer: device.peerId, answerer: device.peerId };
    for (const others of [swapped, self])
      await assert.rejects(verifyTicket(ticket, key, others, sampleNow), { code: 'ticket_invalid' });
  });

  it("by any other key is refused, also signaling's for other purposes", async () => {
    for (const other of [signaling.receiptKey, signaling.accessKey, device, owner.key])
      await assert.rejects(verifyTicket(ticket, other.publicKey, expected, sampleNow), {
        code: 'ticket_invalid',
      });
  });

  it('that lives longer than a minute is refused', async () => {
    const long = await signTicket(signaling.ticketKey, { ...content, exp: sampleNow + 61 });
    await assert.rejects(verifyTicket(long, key, expected, sampleNow), {
      code: 'ticket_invalid',
      message: /too long/,
    });
  });

  it('with a scope, field or version that is not known is refused as such', async () => {
    for (const change of [{ scopes: ['session', 'shell'] }, { network: 'lan' }, { v: 2 }, { crit: ['x'] }]) {
      const jws = await new CompactSign(utf8(JSON.stringify({ ...content, ...change })))
        .setProtectedHeader({ alg: 'EdDSA', typ: 'ticket' })
        .sign(signaling.ticketKey.privateKey);
      await assert.rejects(verifyTicket(jws, key, expected, sampleNow), { code: 'unknown_constraint' });
    }
  });

  it('without a scope is not made', async () => {
    const none: Omit<Ticket, 'v' | 'crit'> = { ...content, scopes: [] };
    await assert.rejects(signTicket(signaling.ticketKey, none), { code: 'bad_message' });
  });
});
