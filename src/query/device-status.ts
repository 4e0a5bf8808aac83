/** What an error says about the device that was asked. Codes decide, never texts. */

import { resetCodeOf } from '@cocoon-mesh/mesh';
import type { DeviceAnswer, DeviceAnswerStatus, ErrorCode } from '@cocoon-mesh/protocol';
import { MeshError, ResetCode, toMeshError } from '@cocoon-mesh/protocol';

export interface Failure {
  readonly status: Exclude<DeviceAnswerStatus, 'ok'>;
  readonly error: NonNullable<DeviceAnswer['error']>;
}

/** From here: the device could not be reached, did not answer well, or reset the stream. */
export function failureOf(thrown: unknown): Failure {
  const error = resetError(toMeshError(thrown));
  return { status: statuses.get(error.code) ?? 'error', error: shown(error) };
}

/** From the device: it can say of itself that it is late or refuses, and not that it is offline. */
export function toldFailure(error: { readonly code: string; readonly message: string }): Failure {
  const status = error.code === 'denied' || error.code === 'timeout' ? error.code : 'error';
  return { status, error: shown(error) };
}

const statuses: ReadonlyMap<ErrorCode, Failure['status']> = new Map<ErrorCode, Failure['status']>([
  ['timeout', 'timeout'],
  ['connect_timeout', 'timeout'],
  ['proof_timeout', 'timeout'],
  ['device_offline', 'offline'],
  ['signaling_unreachable', 'offline'],
  ['carrier_lost', 'offline'],
  ['session_closed', 'offline'],
  ['shutting_down', 'offline'],
  ['denied', 'denied'],
  ['revoked', 'denied'],
]);

const errorOfReset: ReadonlyMap<ResetCode, ErrorCode> = new Map<ResetCode, ErrorCode>([
  [ResetCode.denied, 'denied'],
  [ResetCode.revoked, 'revoked'],
  [ResetCode.timeout, 'timeout'],
  [ResetCode.tooManyStreams, 'overloaded'],
  [ResetCode.shuttingDown, 'shutting_down'],
  [ResetCode.unsupported, 'unsupported'],
]);

function resetError(error: MeshError): MeshError {
  const reset = resetCodeOf(error);
  const code = reset === null ? undefined : errorOfReset.get(reset);
  return code === undefined ? error : new MeshError(code, undefined, { cause: error });
}

/** Another device's text is shown on terminals. */
function shown({ code, message }: { readonly code: string; readonly message: string }): Failure['error'] {
  return { code, message: message.replaceAll(/\p{Cc}+/gu, ' ') };
}
