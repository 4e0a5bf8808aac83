import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MeshError, ResetCode } from '@cocoon-mesh/protocol';
import { nextSessionState } from './session-state.ts';
import type { SessionEvent, SessionState } from './session-state.ts';

const open: SessionState = { name: 'open' };
const ours: SessionState = { name: 'draining', by: 'local', code: ResetCode.glare, reason: 'glare' };
const theirs: SessionState = { name: 'draining', by: 'remote', code: ResetCode.idle, reason: 'idle' };
const closed = nextSessionState(open, { type: 'abort', reason: 'done' }).state;

const goaway: SessionEvent = { type: 'goaway', code: ResetCode.glare, reason: 'glare' };
const peerGoaway: SessionEvent = { type: 'peer-goaway', code: ResetCode.idle };
const drained: SessionEvent = { type: 'drained' };
const timeout: SessionEvent = { type: 'drain-timeout' };
const violation: SessionEvent = { type: 'violation', error: new MeshError('protocol_violation', 'bad') };
const overflow: SessionEvent = { type: 'violation', error: new MeshError('credit_overflow', 'much') };
const abort: SessionEvent = { type: 'abort', reason: 'enough' };
const silent: SessionEvent = { type: 'silent', silentMs: 4000 };
const lost: SessionEvent = { type: 'carrier-closed', reason: 'cut' };

/** `closed by code error` or the name and who asked, then the actions. */
function outcome(state: SessionState, event: SessionEvent): string {
  const step = nextSessionState(state, event);
  const actions = step.actions.map(({ type }) => type).join(', ');
  if (step.state === state) return `same: ${actions}`;
  if (step.state.name === 'open') return 'open';
  if (step.state.name === 'draining') return `draining ${step.state.by} ${step.state.code}: ${actions}`;
  const { by, code, error } = step.state.end;
  return `closed ${by} ${code} ${error.code}: ${actions}`;
}

const table: [from: string, state: SessionState, event: SessionEvent, outcome: string][] = [
  ['open', open, goaway, 'draining local 14: send-goaway'],
  ['open', open, peerGoaway, 'draining remote 13: acknowledge'],
  ['open', open, drained, 'same: '],
  ['open', open, timeout, 'same: '],
  ['open', open, violation, 'closed local 15 session_closed: send-goaway, close-carrier'],
  ['open', open, overflow, 'closed local 8 session_closed: send-goaway, close-carrier'],
  ['open', open, abort, 'closed local 1 session_closed: abort-carrier'],
  ['open', open, silent, 'closed carrier 9 carrier_lost: abort-carrier'],
  ['open', open, lost, 'closed carrier 2 carrier_lost: '],
  ['draining by us', ours, goaway, 'same: '],
  ['draining by us', ours, peerGoaway, 'same: acknowledge'],
  ['draining by us', ours, drained, 'closed local 14 session_closed: close-carrier'],
  ['draining by us', ours, timeout, 'closed local 14 session_closed: reset-streams, close-carrier'],
  ['draining by us', ours, violation, 'closed local 15 session_closed: send-goaway, close-carrier'],
  ['draining by us', ours, abort, 'closed local 1 session_closed: abort-carrier'],
  ['draining by us', ours, silent, 'closed carrier 9 carrier_lost: abort-carrier'],
  ['draining by us', ours, lost, 'closed local 14 session_closed: '],
  ['draining by them', theirs, goaway, 'draining local 14: send-goaway'],
  ['draining by them', theirs, peerGoaway, 'same: acknowledge'],
  ['draining by them', theirs, drained, 'same: '],
  ['draining by them', theirs, lost, 'closed remote 13 session_closed: '],
  ['draining by them', theirs, silent, 'closed carrier 9 carrier_lost: abort-carrier'],
];

for (const [from, state, event, expected] of table) {
  test(`${from}, ${event.type} gives ${expected}`, () => assert.equal(outcome(state, event), expected));
}

test('nothing leaves the closed state', () => {
  for (const event of [goaway, peerGoaway, drained, timeout, violation, abort, silent, lost]) {
    assert.equal(outcome(closed, event), 'same: ');
  }
});
