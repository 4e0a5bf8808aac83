/** What a device that did not serve a request says by it: as an error of ours, and for whoever asks next. */

import { resetCodeOf } from '@cocoon-mesh/mesh';
import type { CapabilityAnswerMessage, ErrorCode } from '@cocoon-mesh/protocol';
import { MeshError, ResetCode, isErrorCode, toMeshError } from '@cocoon-mesh/protocol';
import type { Outcome } from './breaker.ts';

/** An error in an answer. Another device's text is shown on terminals; a code unknown here counts as `provider_failed`. */
export function toldError(told: Extract<CapabilityAnswerMessage, { readonly kind: 'error' }>): MeshError {
  const options = {
    ...(told.hint === undefined ? {} : { hint: plain(told.hint) }),
    ...(told.retry_after_ms === undefined ? {} : { retryAfterMs: told.retry_after_ms }),
  };
  return isErrorCode(told.code)
    ? new MeshError(told.code, plain(told.message), options)
    : new MeshError('provider_failed', `${plain(told.message)} (${told.code})`, options);
}

/** Whatever ended the attempt at a device. @param signal the asker's own, which says why it was given up */
export function attemptError(thrown: unknown, device: string, signal: AbortSignal): MeshError {
  if (signal.aborted) return toMeshError(signal.reason, 'cancelled');
  const reset = resetCodeOf(thrown);
  const code = reset === null ? undefined : errorOfReset.get(reset);
  if (code !== undefined)
    return new MeshError(code, `${device}: ${new MeshError(code).message}`, { cause: thrown });
  return toMeshError(thrown);
}

const errorOfReset: ReadonlyMap<ResetCode, ErrorCode> = new Map<ResetCode, ErrorCode>([
  [ResetCode.denied, 'denied'],
  [ResetCode.revoked, 'denied'],
  [ResetCode.unsupported, 'capability_off'],
  [ResetCode.notFound, 'capability_not_found'],
  [ResetCode.tooManyStreams, 'overloaded'],
  [ResetCode.timeout, 'timeout'],
  [ResetCode.shuttingDown, 'device_offline'],
]);

/** It would fail at every device alike, or is not wanted any more. */
export function isFinal({ code, status }: MeshError): boolean {
  return status === 400 || finalCodes.has(code);
}

const finalCodes: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'message_too_large',
  'cancelled',
  'unsupported',
]);

/** What it means for the breaker of the device. */
export function outcomeOf({ code, status }: MeshError): Outcome {
  if (code === 'cancelled' || code === 'overloaded') return 'neither';
  return status < 500 ? 'neither' : 'failed';
}

/**
 * The device is there and has what was asked for, but not now. A stand-in does not serve in its place: who got an
 * answer of the one kind now and of the other a moment later would mix what cannot be compared.
 */
export function isBusy({ code }: MeshError): boolean {
  return busyCodes.has(code);
}

const busyCodes: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'overloaded',
  'too_many_streams',
  'timeout',
  'provider_failed',
  'plugin_failed',
  'bad_answer',
]);

function plain(text: string): string {
  return text.replaceAll(/\p{Cc}+/gu, ' ');
}
