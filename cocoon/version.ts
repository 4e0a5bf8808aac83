/** Which version this is, from the package. */

import { readFileSync } from 'node:fs';

export function cocoonVersion(): string {
  const text = readFileSync(new URL('package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}
