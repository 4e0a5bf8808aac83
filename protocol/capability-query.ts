/** What is wrong with a question for devices with a capability, said by signaling and by a gateway alike. */

import { MeshError } from './errors.ts';

export function missingProtocol(): MeshError {
  return new MeshError('bad_message', 'The query does not name a protocol', {
    hint: 'Example: protocol=llm.chat.',
  });
}

export function badRange(cause?: unknown): MeshError {
  return new MeshError('bad_message', 'The version is not a semver range', {
    cause,
    hint: 'Example: version=^1.0.0, in a URL version=%5E1.0.0.',
  });
}
