import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { limits } from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { ChannelCarrier, channelMarks } from './channel-carrier.ts';
import { listen, patterned } from './engine-pair.contract.ts';

class FakeChannel {
  bufferedBytes = 0;
  readonly texts: string[] = [];
  readonly sent: Uint8Array[] = [];
  destroyed = 0;
  broken = false;
  sendBytes(message: Uint8Array): void {
    if (this.broken) throw new Error('gone');
    this.sent.push(message);
    this.bufferedBytes += message.length;
  }
  sendText(message: string): void {
    this.texts.push(message);
  }
  async destroy(): Promise<void> {
    this.destroyed++;
  }
}

function carrierOver(): { channel: FakeChannel; carrier: ChannelCarrier; clock: SteppedClock } {
  const channel = new FakeChannel();
  const clock = new SteppedClock();
  return { channel, clock, carrier: new ChannelCarrier(channel, clock) };
}

describe('a channel as carrier', () => {
  it('says stop at the high mark and go at the low one', () => {
    const { channel, carrier } = carrierOver();
    const listener = listen(carrier);
    carrier.send(patterned(channelMarks.high - 1, 1));
    assert.ok(carrier.writable);
    carrier.send(patterned(1, 1));
    assert.ok(!carrier.writable);
    channel.bufferedBytes = channelMarks.low;
    carrier.drained();
    carrier.drained();
    assert.ok(carrier.writable);
    assert.equal(listener.writables, 1);
  });

  it('waits with its close until the other side has read everything', async () => {
    const { channel, carrier, clock } = carrierOver();
    const listener = listen(carrier);
    const closing = carrier.close('done');
    assert.deepEqual(channel.texts, ['close done']);
    assert.deepEqual([channel.destroyed, listener.closes], [0, []]);
    carrier.received('closed');
    await closing;
    assert.deepEqual([channel.destroyed, listener.closes], [1, ['done']]);
    assert.equal(clock.pendingTimers, 0);
  });

  it('closes by time when the other side says nothing', async () => {
    const { channel, carrier, clock } = carrierOver();
    const closing = carrier.close();
    clock.step(limits.closeDrainMs - 1);
    assert.equal(channel.destroyed, 0);
    clock.step(1);
    await closing;
    assert.equal(channel.destroyed, 1);
  });

  it('hands out what came before the other side closed, and then the close', () => {
    const { channel, carrier } = carrierOver();
    carrier.received(patterned(10, 1));
    carrier.received('close bye\u001b[31m');
    carrier.received(patterned(10, 2));
    const listener = listen(carrier);
    assert.equal(listener.messages.length, 1);
    assert.deepEqual(listener.closes, ['closed by the other side: bye?[31m']);
    assert.deepEqual([channel.texts, channel.destroyed], [['closed'], 1]);
  });

  it('holds a bounded amount before anybody listens', () => {
    const { channel, carrier } = carrierOver();
    for (let i = 0; i < 17; i++) carrier.received(patterned(limits.maxCarrierMessageBytes, i));
    assert.equal(channel.destroyed, 1);
    const listener = listen(carrier);
    assert.deepEqual([listener.bytes, listener.closes.length], [0, 1]);
  });

  it('ends when the other side sends too much at once', () => {
    const { channel, carrier } = carrierOver();
    const listener = listen(carrier);
    carrier.received(patterned(limits.maxCarrierMessageBytes + 1, 1));
    assert.deepEqual([channel.destroyed, listener.bytes, listener.closes.length], [1, 0, 1]);
  });

  it('reports a channel that broke under a send later, once, and never from inside the send', async () => {
    const { channel, carrier } = carrierOver();
    const listener = listen(carrier);
    channel.broken = true;
    carrier.send(patterned(1, 1));
    assert.equal(listener.closes.length, 0);
    await listener.closedOnce;
    carrier.lost('again');
    carrier.abort('and again');
    assert.deepEqual(listener.closes, ['gone']);
  });
});
