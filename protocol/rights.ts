/**
 * What a membership allows: verbs on a protocol, for named services or capabilities or for all (`*`). Parsed
 * and enforced from the first version; a verb or protocol this version does not know makes the whole object
 * refused, so that a narrower right can never be read as a wider one.
 */

import * as z from 'zod/mini';

export const Verb = ['use', 'read', 'write', 'run', 'admin'] as const;
export type Verb = (typeof Verb)[number];

/** As in `/cocoon/<name>/<major>`. */
export const RightProtocol = ['http', 'tcp', 'query', 'capability', 'tasks', 'owner', 'relay'] as const;
export type RightProtocol = (typeof RightProtocol)[number];

/** `*`, a service name or a capability protocol. */
const rightName = z.string().check(z.maxLength(64), z.regex(/^(\*|[a-z0-9]+([.-][a-z0-9]+)*)$/));

export const rightsSchema = z
  .array(
    // Strict: an unknown member would be a narrowing, and dropping it would widen the right.
    z.strictObject({
      protocol: z.enum(RightProtocol),
      verbs: z.array(z.enum(Verb)).check(z.minLength(1), z.maxLength(Verb.length)),
      names: z.array(rightName).check(z.minLength(1), z.maxLength(64)),
    }),
  )
  .check(z.maxLength(32));
export type Rights = z.infer<typeof rightsSchema>;

/** A device or browser of the owner's own. Asking owner devices to sign (`admin`) is never included. */
export const memberRights: Rights = [
  { protocol: 'http', verbs: ['use'], names: ['*'] },
  { protocol: 'tcp', verbs: ['use'], names: ['*'] },
  { protocol: 'query', verbs: ['use'], names: ['*'] },
  { protocol: 'capability', verbs: ['use'], names: ['*'] },
  { protocol: 'tasks', verbs: ['read', 'write', 'run'], names: ['*'] },
  { protocol: 'relay', verbs: ['use'], names: ['*'] },
];

/** May ask a device that holds the secret to sign grants and revocations. */
export const adminRights: Rights = [{ protocol: 'owner', verbs: ['admin'], names: ['*'] }];

/** What a co-owner has at the cocoon that is shared: everything but passing it on. */
export const coOwnerRights: Rights = memberRights.filter(({ protocol }) => protocol !== 'relay');

/** Rights for some services and capabilities only. A capability is asked by the queries that are about it, too. */
export function narrowRights(services: readonly string[], capabilities: readonly string[]): Rights {
  const rights: Rights = [];
  if (services.length > 0) {
    rights.push({ protocol: 'http', verbs: ['use'], names: [...services] });
    rights.push({ protocol: 'tcp', verbs: ['use'], names: [...services] });
  }
  if (capabilities.length > 0) {
    rights.push({ protocol: 'query', verbs: ['use'], names: [...capabilities] });
    rights.push({ protocol: 'capability', verbs: ['use'], names: [...capabilities] });
  }
  return rights;
}

/** Is the operation allowed? `name` is the service or capability it is about; null asks for any. */
export function allows(rights: Rights, protocol: RightProtocol, verb: Verb, name: string | null): boolean {
  return rights.some(
    (right) =>
      right.protocol === protocol &&
      right.verbs.includes(verb) &&
      (name === null || right.names.includes('*') || right.names.includes(name)),
  );
}

/** What both allow: a peer of another owner has what it may do for its owner, within what that owner was given. */
export function commonRights(one: Rights, other: Rights): Rights {
  return one.flatMap((right) =>
    other
      .filter(({ protocol }) => protocol === right.protocol)
      .flatMap((also) => {
        const verbs = right.verbs.filter((verb) => also.verbs.includes(verb));
        const names = commonNames(right.names, also.names);
        return verbs.length > 0 && names.length > 0 ? [{ protocol: right.protocol, verbs, names }] : [];
      }),
  );
}

function commonNames(one: readonly string[], other: readonly string[]): string[] {
  if (one.includes('*')) return [...other];
  return other.includes('*') ? [...one] : one.filter((name) => other.includes(name));
}

/** Is every right of `less` in `more`? */
export function includesRights(more: Rights, less: Rights): boolean {
  return less.every(({ protocol, verbs, names }) =>
    verbs.every((verb) =>
      names.every((name) =>
        more.some(
          (right) =>
            right.protocol === protocol &&
            right.verbs.includes(verb) &&
            (right.names.includes('*') || right.names.includes(name)),
        ),
      ),
    ),
  );
}
