/** Rights in the words of people. */

import type { Rights } from '@cocoon-mesh/protocol';
import { allows, coOwnerRights, includesRights } from '@cocoon-mesh/protocol';

export interface SharedWith {
  /** One sentence part, such as `service web` or `everything but passing it on`. */
  readonly rights: string;
  /** Names of services; null: all. */
  readonly services: readonly string[] | null;
  /** Protocols of capabilities; null: all. */
  readonly capabilities: readonly string[] | null;
}

export function describeRights(rights: Rights): SharedWith {
  const services = namesOf(rights, ['http', 'tcp']);
  const capabilities = namesOf(rights, ['capability']);
  if (includesRights(rights, coOwnerRights))
    return { rights: 'everything but passing it on', services, capabilities };
  // Whoever was given a capability may ask the queries about it, which goes without saying.
  const queries = capabilities
    ? (namesOf(rights, ['query'])?.filter((name) => !capabilities.includes(name)) ?? null)
    : [];
  const named = (name: string): string =>
    name === 'tasks' && !allows(rights, 'tasks', 'read', null) ? 'tasks (without reading any)' : name;
  const parts = [
    part('service', services),
    part('capability', capabilities?.map(named) ?? null),
    part('query', queries),
    ...rights
      .filter(({ protocol }) => !['http', 'tcp', 'capability', 'query'].includes(protocol))
      .map(({ protocol, verbs }) => `${protocol} (${verbs.join(', ')})`),
  ].filter((text) => text !== '');
  return { rights: parts.length === 0 ? 'nothing' : parts.join(', '), services, capabilities };
}

function namesOf(rights: Rights, protocols: readonly string[]): string[] | null {
  const names = rights.filter(({ protocol }) => protocols.includes(protocol)).flatMap((right) => right.names);
  return names.includes('*') ? null : [...new Set(names)].toSorted();
}

function part(what: string, names: readonly string[] | null): string {
  if (names === null) return `every ${what}`;
  return names.length === 0 ? '' : `${what} ${names.join(', ')}`;
}
