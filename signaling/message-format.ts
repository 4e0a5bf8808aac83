/** The two subprotocols: the same messages as MessagePack in binary messages or as JSON in text messages. */

import type { ClientMessage, ServerMessage, SignalingSubprotocol } from '@cocoon-mesh/protocol';
import {
  MeshError,
  clientMessageSchema,
  decode,
  decodeJson,
  encode,
  encodeJson,
  limits,
  messageOutlineSchema,
  serverMessageSchema,
  signalingSubprotocols,
} from '@cocoon-mesh/protocol';

/** A message of a type we do not know. With an `id` it is a request that can be answered. */
export class UnknownMessage extends MeshError {
  readonly id: number | null;

  constructor(id: number | null) {
    super('unsupported');
    this.id = id;
  }
}

/** The first offered one that we speak: the peer's preference counts. */
export function chooseSubprotocol(offered: Iterable<string>): SignalingSubprotocol | null {
  for (const name of offered) {
    const known = signalingSubprotocols.find((ours) => ours === name);
    if (known !== undefined) return known;
  }
  return null;
}

/** @throws MeshError bad_message | message_too_large; UnknownMessage */
export function readMessage(
  format: SignalingSubprotocol,
  data: Uint8Array,
  isBinary: boolean,
): ClientMessage {
  const json = format === 'cocoon.v1.json';
  if (json === isBinary)
    throw new MeshError('bad_message', `Messages of ${format} are ${json ? 'text' : 'binary'}`);
  const read = json ? decodeJson : decode;
  const maxBytes = limits.maxSignalingMessageBytes;
  try {
    return read(clientMessageSchema, data, maxBytes);
  } catch (thrown) {
    if (!(thrown instanceof MeshError) || thrown.code !== 'unsupported') throw thrown;
    throw new UnknownMessage(read(messageOutlineSchema, data, maxBytes).id ?? null);
  }
}

export function writeMessage(format: SignalingSubprotocol, message: ServerMessage): Uint8Array | string {
  return format === 'cocoon.v1.json'
    ? encodeJson(serverMessageSchema, message)
    : encode(serverMessageSchema, message);
}
