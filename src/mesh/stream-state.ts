/**
 * The life of a stream: two halves, each with its own pure transitions. A stream is over when both halves
 * are. A half that has ended well can no longer fail, so a reset after the other side's end does not take
 * back what it sent.
 */

/** `ending`: the program has ended, the FIN is not framed yet. */
export type SendState = 'open' | 'ending' | 'ended' | 'failed';
export type SendEvent = 'end' | 'fin-sent' | 'fail';

/** `ended`: the FIN came, the program has not read everything. `read`: it has. */
export type ReceiveState = 'open' | 'ended' | 'read' | 'failed';
/** `discard`: the program gives up what it has not read. */
export type ReceiveEvent = 'fin' | 'emptied' | 'fail' | 'discard';

const sendTransitions: Record<SendState, Partial<Record<SendEvent, SendState>>> = {
  open: { end: 'ending', fail: 'failed' },
  ending: { 'fin-sent': 'ended', fail: 'failed' },
  ended: {},
  failed: {},
};

const receiveTransitions: Record<ReceiveState, Partial<Record<ReceiveEvent, ReceiveState>>> = {
  open: { fin: 'ended', fail: 'failed', discard: 'failed' },
  ended: { emptied: 'read', discard: 'failed' },
  read: {},
  failed: {},
};

/** The same state when the event means nothing in it. */
export function nextSendState(state: SendState, event: SendEvent): SendState {
  return sendTransitions[state][event] ?? state;
}

export function nextReceiveState(state: ReceiveState, event: ReceiveEvent): ReceiveState {
  return receiveTransitions[state][event] ?? state;
}

export function isOver(send: SendState, receive: ReceiveState): boolean {
  return (send === 'ended' || send === 'failed') && (receive === 'read' || receive === 'failed');
}
