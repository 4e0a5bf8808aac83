/** What another device says when it does not do what was asked, as errors of ours. */

import { resetCodeOf } from '@cocoon-mesh/mesh';
import { MeshError, ResetCode, isErrorCode, toMeshError } from '@cocoon-mesh/protocol';

/** An error in an answer; a code that this version does not know counts as `internal`, with its text. */
export function answeredError(error: {
  code: string;
  message: string;
  hint?: string | undefined;
}): MeshError {
  const options = error.hint === undefined || error.hint === '' ? {} : { hint: error.hint };
  return isErrorCode(error.code)
    ? new MeshError(error.code, error.message, options)
    : new MeshError('internal', `${error.message} (${error.code})`, options);
}

/** Whatever a stream to a device was ended by. @param signal the asker's own, which says why it was given up */
export function streamError(thrown: unknown, device: string, signal?: AbortSignal): MeshError {
  if (signal?.aborted) return toMeshError(signal.reason, 'cancelled');
  switch (resetCodeOf(thrown)) {
    case null:
      return toMeshError(thrown);
    case ResetCode.denied:
    case ResetCode.revoked:
      return new MeshError('denied', `You may not do that on ${device}`, { cause: thrown });
    case ResetCode.unsupported:
      return new MeshError('capability_off', `${device} does not offer this`, { cause: thrown });
    case ResetCode.timeout:
      return new MeshError('timeout', `${device} did not answer in time`, { cause: thrown });
    case ResetCode.shuttingDown:
      return new MeshError('device_offline', `${device} is shutting down`, { cause: thrown });
    default:
      return toMeshError(thrown);
  }
}
