/** Looking at cocoons of other owners, through the list of devices. */

import type { CocoonProcess } from './cocoon-process.ts';

const limitMs = 20_000;

/** What a device is called in somebody's list; null when it is not there. */
export async function listedAs(cocoon: CocoonProcess, peerId: string): Promise<string | null> {
  const rows = await cocoon.json<{ name: string; peer_id: string }[]>('devices');
  return rows.find((row) => row.peer_id === peerId)?.name ?? null;
}

/** As `listedAs`; resolves when it is there. */
export async function foreignName(cocoon: CocoonProcess, peerId: string): Promise<string> {
  for (const end = Date.now() + limitMs; Date.now() < end;) {
    const name = await listedAs(cocoon, peerId);
    if (name !== null) return name;
  }
  throw new Error(`${cocoon.name} does not see ${peerId}`);
}
