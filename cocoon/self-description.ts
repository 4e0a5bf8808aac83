/** What this device says of itself to others, from its settings and its services. */

import type { SelfDescription } from '@cocoon-mesh/mesh';
import { limits } from '@cocoon-mesh/protocol';
import type { DeviceSettings } from './config.ts';
import type { Services } from './services.ts';

const proxyCapability = { protocol: 'proxy.http', version: '1.0.0' } as const;
/** What every device has, unless it was switched off. */
const ownCapabilities = [
  { protocol: 'tasks', version: '1.0.0' },
  { protocol: 'knowledgebase', version: '1.0.0' },
] as const;

/**
 * @param name may be another than the configured one, when that was taken
 * @param provided by providers, those that serve now
 */
export function describeSelf(
  settings: DeviceSettings,
  name: string,
  services: Services,
  provided: SelfDescription['capabilities'],
): SelfDescription {
  const offered = services.list().map((service) => ({ name: service.name, type: service.type }));
  const capabilities = [...(offered.length === 0 ? [] : [proxyCapability]), ...ownCapabilities, ...provided];
  return {
    kind: 'cocoon',
    name,
    services: offered,
    capabilities: capabilities
      .filter(({ protocol }) => !settings.disabledCapabilities.includes(protocol))
      .slice(0, limits.maxCapabilities),
    ...(settings.location === null ? {} : { location: settings.location }),
  };
}
