/** What a peer asks of a device, each in one call, and what came of it in a word. */

import { askStream } from '@cocoon-mesh/capabilities/ask-stream.ts';
import { resetCodeOf } from '@cocoon-mesh/mesh';
import type { Mesh, Stream } from '@cocoon-mesh/mesh';
import type { Json, OwnerAnswer, OwnerRequest } from '@cocoon-mesh/protocol';
import {
  MeshError,
  ResetCode,
  concat,
  decode,
  describeProtocol,
  descriptionSchema,
  encode,
  encodeServiceOpen,
  limits,
  maxDescriptionBytes,
  ownerAnswerSchema,
  ownerRequestSchema,
  proxyErrorSchema,
  resetCodeName,
  streamProtocols,
  systemClock,
  tcpProtocol,
} from '@cocoon-mesh/protocol';
import { fetchThrough } from '@cocoon-mesh/proxy';

const patienceMs = 20_000;

export abstract class Caller {
  abstract get peerId(): string;
  /** How it reaches others. */
  protected abstract get way(): Pick<Mesh, 'openStream'> & {
    ping(peerId: string, signal?: AbortSignal): Promise<unknown>;
  };
  /** The names of the services that it knows of at this device; null when it does not know the device. */
  abstract servicesOf(peerId: string): readonly string[] | null;

  /** `ok` or the code of the error. */
  async session(peerId: string): Promise<string> {
    return outcome(async () => {
      await this.way.ping(peerId, AbortSignal.timeout(patienceMs));
      return 'ok';
    });
  }

  /** The status of a GET, or the code of the error. */
  async proxy(peerId: string, service: string): Promise<string> {
    return outcome(async () => {
      const header = encodeServiceOpen({ service });
      const stream = await this.way.openStream(peerId, streamProtocols.http, header, patience());
      const response = await fetchThrough(stream, { path: '/' }, { clock: systemClock, signal: patience() });
      await response.body.cancel();
      return String(response.status);
    });
  }

  /** `connected` or the code of the error. */
  async forward(peerId: string, service: string): Promise<string> {
    return outcome(async () => {
      const stream = await this.way.openStream(
        peerId,
        tcpProtocol,
        encodeServiceOpen({ service }),
        patience(),
      );
      const first = (await stream.read()) ?? new Uint8Array();
      stream.reset(ResetCode.cancel);
      // The record: kind (5 error, 6 connected), length, payload.
      if (first[0] === 6) return 'connected';
      return decode(proxyErrorSchema, first.slice(4), first.length).code;
    });
  }

  /** What the device says to a stream: `denied`, `unsupported` (let in, and nobody there yet) or `answered`. */
  async stream(peerId: string, protocol: string, header = new Uint8Array()): Promise<string> {
    return outcome(async () => {
      const stream = await this.way.openStream(peerId, protocol, header, patience());
      stream.end();
      while ((await stream.read()) !== null);
      return 'answered';
    });
  }

  /** `ok` for an answer to its end, or the code of the error; what the device tells and what resets the stream alike. */
  async capability(peerId: string, protocol: string, payload: Json): Promise<string> {
    return outcome(async () => {
      const asked = { protocol, version: '*' };
      const request = { payload, parts: [], timeout_ms: patienceMs, session: null, features: [] };
      for await (const message of askStream(this.way, systemClock, peerId, asked, request, patience())) {
        if (message.kind === 'error') return message.code;
        if (message.kind === 'end') return 'ok';
      }
      return 'bad_answer';
    });
  }

  /** The capabilities that the device describes to it. */
  async told(peerId: string): Promise<readonly string[]> {
    const stream = await this.way.openStream(peerId, describeProtocol, new Uint8Array(), patience());
    stream.end();
    const { capabilities } = decode(descriptionSchema, await all(stream), maxDescriptionBytes);
    return capabilities.map(({ protocol }) => protocol);
  }

  /** Asks a device that holds the secret. */
  async owner(peerId: string, request: OwnerRequest): Promise<OwnerAnswer> {
    return this.ownerRaw(peerId, encode(ownerRequestSchema, request));
  }

  async ownerRaw(peerId: string, request: Uint8Array): Promise<OwnerAnswer> {
    const stream = await this.way.openStream(peerId, streamProtocols.owner, new Uint8Array(), patience());
    stream.write(request);
    stream.end();
    return decode(ownerAnswerSchema, await all(stream), limits.maxOwnerMessageBytes);
  }
}

function patience(): AbortSignal {
  return AbortSignal.timeout(patienceMs);
}

async function all(stream: Stream): Promise<Uint8Array> {
  let bytes: Uint8Array = new Uint8Array();
  for (let next = await stream.read(); next !== null; next = await stream.read()) bytes = concat(bytes, next);
  return bytes;
}

/** What came of it, in a word: the code of an error, or of the reset that ended the stream. */
export async function outcome(work: () => Promise<string>): Promise<string> {
  try {
    return await work();
  } catch (thrown) {
    const reset = resetCodeOf(thrown);
    if (reset !== null) return resetCodeName(reset);
    if (thrown instanceof MeshError) return thrown.code;
    throw thrown;
  }
}
