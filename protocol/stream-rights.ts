/**
 * Which right a stream needs, read from its protocol and its header before anything else happens with it. HTTP and
 * TCP are not here: a service that a peer may not use must look like one that does not exist, which only their
 * handlers can do.
 */

import * as z from 'zod/mini';
import { decode } from './codec.ts';
import { protocolField } from './fields.ts';
import { limits } from './limits.ts';
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

/** Null: the protocol needs no right of its own. @throws MeshError bad_message | message_too_large */
export function neededRight(protocol: string, header: Uint8Array): NeededRight | null {
  switch (protocol) {
    case streamProtocols.query:
      return { protocol: 'query', verb: 'use', name: null };
    case streamProtocols.capability: {
      const head = decode(capabilityOpenSchema, header, limits.maxOpenHeaderBytes);
      return { protocol: 'capability', verb: 'use', name: head.protocol };
    }
    case streamProtocols.tasks:
      return {
        protocol: 'tasks',
        verb: decode(tasksOpenSchema, header, limits.maxOpenHeaderBytes).verb,
        name: null,
      };
    default:
      return null;
  }
}
