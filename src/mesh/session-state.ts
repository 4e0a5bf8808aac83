/**
 * The life of a session as pure transitions: open → draining → closed. The driver (`session.ts`) feeds events
 * and carries out the actions in their order; nothing here knows carriers or time.
 *
 * Draining means that no stream is opened any more, in either direction. The side that asked for it closes
 * the carrier when everything is through; the other waits for that.
 */

import { MeshError, ResetCode, resetCodeName } from '@cocoon-mesh/protocol';
import type { ErrorCode } from '@cocoon-mesh/protocol';

/** How a session ended. */
export interface SessionEnd {
  readonly by: 'local' | 'remote' | 'carrier';
  readonly code: ResetCode;
  /** For logs. */
  readonly reason: string;
  /** What waiting reads and writes got. */
  readonly error: MeshError;
}

export type SessionState =
  | { readonly name: 'open' }
  | {
      readonly name: 'draining';
      /** Who asked first for it; the side that asked closes. */
      readonly by: 'local' | 'remote';
      readonly code: ResetCode;
      readonly reason: string;
    }
  | { readonly name: 'closed'; readonly end: SessionEnd };

export type SessionEvent =
  | { readonly type: 'goaway'; readonly code: ResetCode; readonly reason: string }
  | { readonly type: 'peer-goaway'; readonly code: ResetCode }
  /** No streams, nothing to send, everything acknowledged. */
  | { readonly type: 'drained' }
  | { readonly type: 'drain-timeout' }
  /** The other side broke the protocol, or we failed on what it sent. */
  | { readonly type: 'violation'; readonly error: MeshError }
  | { readonly type: 'abort'; readonly reason: string }
  | { readonly type: 'silent'; readonly silentMs: number }
  | { readonly type: 'carrier-closed'; readonly reason: string };

export type SessionAction =
  /** Say GOAWAY with this code. */
  | { readonly type: 'send-goaway'; readonly code: ResetCode }
  /** Acknowledge at once: the other side waits for it before it closes. */
  | { readonly type: 'acknowledge' }
  | { readonly type: 'reset-streams'; readonly code: ResetCode }
  /** What was framed goes out, then the carrier closes. */
  | { readonly type: 'close-carrier'; readonly reason: string }
  | { readonly type: 'abort-carrier'; readonly reason: string };

export interface SessionStep {
  readonly state: SessionState;
  readonly actions: readonly SessionAction[];
}

export function nextSessionState(state: SessionState, event: SessionEvent): SessionStep {
  if (state.name === 'closed') return stay(state);
  switch (event.type) {
    case 'goaway': {
      if (state.name === 'draining' && state.by === 'local') return stay(state);
      const { code, reason } = event;
      return {
        state: { name: 'draining', by: 'local', code, reason },
        actions: [{ type: 'send-goaway', code }],
      };
    }
    case 'peer-goaway': {
      const draining: SessionState =
        state.name === 'draining'
          ? state
          : {
              name: 'draining',
              by: 'remote',
              code: event.code,
              reason: `the other side is closing (${resetCodeName(event.code)})`,
            };
      return { state: draining, actions: [{ type: 'acknowledge' }] };
    }
    case 'drained':
      if (state.name !== 'draining' || state.by !== 'local') return stay(state);
      return close(state, [{ type: 'close-carrier', reason: state.reason }]);
    case 'drain-timeout':
      if (state.name !== 'draining') return stay(state);
      return close(state, [
        { type: 'reset-streams', code: state.code },
        { type: 'close-carrier', reason: state.reason },
      ]);
    case 'violation': {
      const code =
        event.error.code === 'credit_overflow' ? ResetCode.creditOverflow : ResetCode.protocolViolation;
      const reason = event.error.message;
      const error = new MeshError('session_closed', `The session was closed: ${reason}`, {
        cause: event.error,
      });
      return {
        state: { name: 'closed', end: { by: 'local', code, reason, error } },
        actions: [
          { type: 'send-goaway', code },
          { type: 'close-carrier', reason },
        ],
      };
    }
    case 'abort':
      return {
        state: ended('local', ResetCode.cancel, event.reason, 'session_closed'),
        actions: [{ type: 'abort-carrier', reason: event.reason }],
      };
    case 'silent': {
      const reason = `nothing came for ${event.silentMs} ms`;
      return {
        state: ended('carrier', ResetCode.timeout, reason, 'carrier_lost'),
        actions: [{ type: 'abort-carrier', reason }],
      };
    }
    case 'carrier-closed':
      if (state.name === 'draining') return close(state, []);
      return { state: ended('carrier', ResetCode.internal, event.reason, 'carrier_lost'), actions: [] };
  }
}

function stay(state: SessionState): SessionStep {
  return { state, actions: [] };
}

/** The end of a session that both sides knew to be ending. */
function close(
  state: Extract<SessionState, { name: 'draining' }>,
  actions: readonly SessionAction[],
): SessionStep {
  return { state: ended(state.by, state.code, state.reason, 'session_closed'), actions };
}

function ended(by: SessionEnd['by'], code: ResetCode, reason: string, error: ErrorCode): SessionState {
  return {
    name: 'closed',
    end: { by, code, reason, error: new MeshError(error, undefined, { cause: reason }) },
  };
}
