/**
 * Which right a stream needs, read from its protocol and its header before anything else happens with it. HTTP and
 * TCP are not here: a service that a peer may not use must look like one that does not exist, which only their
 * handlers can do.
 */

import * as z from 'zod/mini';
import { decode } from './codec.ts';
import { protocolField } from './fields.ts';
import { limits } from './limits.ts';
import { queryCapability, queryOpenSchema } from './query-messages.ts';
import type { RightProtocol, Verb } from './rights.ts';
import { streamProtocols } from './versions.ts';

export interface NeededRight {
  readonly protocol: RightProtocol;
  readonly verb: Verb;
  /** What it is about; null: anything of the kind. */
  readonly name: string | null;
}

/** The part of each OPEN header that rights depend on; the protocols add their own fields. */
export const capabilityOpenSchema = z.object({ protocol: protocolField });
export const tasksOpenSchema = z.object({ verb: z.enum(['read', 'write', 'run']) });

type Need = (header: Uint8Array) => NeededRight | null;

const none: Need = () => null;

/** Every protocol is named, so that a new one cannot be open to all because nobody thought of it. */
const needs: Record<keyof typeof streamProtocols, Need> = {
  /** Judged by their handlers, see above. */
  http: none,
  tcp: none,
  /** Each request needs its own right; `renew` none. */
  owner: none,
  /** The answer holds what the asker may use. */
  describe: none,
  /** Whoever has a session may learn and tell who lost a right. */
  revocations: none,
  /** What is asked by a query is a capability, so whoever was given one may ask that and no other. */
  query: (header) => {
    const { type } = decode(queryOpenSchema, header, limits.maxOpenHeaderBytes);
    return { protocol: 'query', verb: 'use', name: type === 'custom' ? type : queryCapability[type] };
  },
  capability: (header) => {
    const { protocol } = decode(capabilityOpenSchema, header, limits.maxOpenHeaderBytes);
    return { protocol: 'capability', verb: 'use', name: protocol };
  },
  tasks: (header) => {
    const { verb } = decode(tasksOpenSchema, header, limits.maxOpenHeaderBytes);
    return { protocol: 'tasks', verb, name: null };
  },
};

const needByProtocol: ReadonlyMap<string, Need> = new Map(
  Object.entries(needs).map(([name, need]) => [streamProtocols[name as keyof typeof streamProtocols], need]),
);

/**
 * Null: the protocol needs no right of its own, or is one that nobody serves.
 * @throws MeshError bad_message | message_too_large
 */
export function neededRight(protocol: string, header: Uint8Array): NeededRight | null {
  return needByProtocol.get(protocol)?.(header) ?? null;
}
