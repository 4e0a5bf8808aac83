/** A service as users write it: `name:port[:http|tcp][:/health]`. */

import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import { namePattern } from '@cocoon-mesh/protocol/fields.ts';
import { limits } from '@cocoon-mesh/protocol/limits.ts';

export interface ServiceSpec {
  readonly name: string;
  readonly port: number;
  readonly type: 'http' | 'tcp';
  /** Path of an HTTP service that says whether it is well. */
  readonly health?: string;
}

const maxNameLength = 31;

/** Ports whose usual service speaks no HTTP, so that `postgres:5432` needs no more words. */
const tcpPorts: ReadonlySet<number> = new Set([
  21, 22, 23, 25, 53, 110, 143, 389, 445, 465, 587, 636, 993, 995, 1433, 1521, 1883, 3306, 3389, 4222, 5432,
  5672, 5900, 6379, 6432, 11211, 27017,
]);

/** @throws MeshError bad_service | bad_name */
export function parseService(text: string): ServiceSpec {
  const [, name = '', digits = '', type, health] =
    /^([^:]*):(\d{1,5})(?::(http|tcp))?(?::(\/.*))?$/.exec(text) ?? [];
  if (digits === '') throw malformed(text);
  assertName(name, text);
  const port = Number(digits);
  if (port < 1 || port > 65_535) throw malformed(text, `${port} is not a port`);
  const spec = { name, port, type: type === undefined ? usualType(port) : (type as ServiceSpec['type']) };
  if (health === undefined) return spec;
  if (spec.type === 'tcp') throw malformed(text, 'only an http service has a health path');
  if (!/^\/[\x21-\x7e]*$/.test(health))
    throw malformed(text, 'the health path has a character that must be escaped');
  return { ...spec, health };
}

/** Comma-separated, as in COCOON_SERVICES. */
export function parseServices(texts: readonly string[]): ServiceSpec[] {
  const specs = texts.map(parseService);
  const names = new Set(specs.map(({ name }) => name));
  if (names.size < specs.length) throw new MeshError('bad_service', 'Two services have the same name');
  if (specs.length > limits.maxServices)
    throw new MeshError('bad_service', `A device has at most ${limits.maxServices} services`);
  return specs;
}

export function formatService({ name, port, type, health }: ServiceSpec): string {
  return `${name}:${port}:${type}${health === undefined ? '' : `:${health}`}`;
}

/** @throws MeshError bad_name */
export function assertName(name: string, where?: string): void {
  if (!namePattern.test(name) || name.length > maxNameLength)
    throw new MeshError(
      'bad_name',
      `${JSON.stringify(name)}${where === undefined ? '' : ` in ${JSON.stringify(where)}`} is not a name`,
      {
        hint: 'A name has 1 to 31 lower-case letters, digits and single hyphens, and does not start with xn.',
      },
    );
}

function usualType(port: number): ServiceSpec['type'] {
  return tcpPorts.has(port) ? 'tcp' : 'http';
}

function malformed(text: string, why?: string): MeshError {
  const reason = why ? `: ${why}` : '';
  return new MeshError('bad_service', `${JSON.stringify(text)} is not a service${reason}`, {
    hint: 'Write name:port, name:port:http, name:port:tcp or name:port:http:/health. Example: grafana:3000:http:/api/health',
  });
}
