/** COCOON_PLUGINS. */

import { delimiter } from 'node:path';

/** A list of paths as the system writes it (`:`), or with commas. */
export function splitPaths(text: string | undefined): string[] {
  return (text ?? '')
    .split(delimiter)
    .flatMap((part) => part.split(','))
    .map((part) => part.trim())
    .filter((part) => part !== '');
}
