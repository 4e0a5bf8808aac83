/** What a peer is told when it has signed in, as much as fits into the message. */

import type { ServerMessage } from '@cocoon-mesh/protocol';
import { limits } from '@cocoon-mesh/protocol';
import type { Presence } from './presence.ts';
import { isVisible } from './presence.ts';
import type { OwnerNews } from './revocation-store.ts';
import type { SharedCocoon, StoredShare } from './share-store.ts';
import type { StoredDevice } from './store.ts';

export interface Known {
  readonly devices: readonly StoredDevice[];
  /** Cocoons of others that its owner may use. */
  readonly shared: readonly SharedCocoon[];
  /** Of its owner's cocoons. */
  readonly shares: readonly StoredShare[];
  readonly news: readonly OwnerNews[];
}

type Content = Pick<ServerMessage & { type: 'welcome' }, 'devices' | 'shares' | 'revocations'>;

/** As the schema of `welcome` has it, beside as many shared ones. */
const maxListedDevices = 1000;
/** For the rest of the message, and for JSON that becomes longer on the way. */
const reservedBytes = 1024 * 1024;

/**
 * A peer that got more than it reads could not sign in at all. What matters most comes first; revocations that do
 * not fit are learned from other peers, who compare how far their lists go.
 */
export function welcomeContent(presence: Presence, { devices, shared, shares, news }: Known): Content {
  const fits = measure(limits.maxServerMessageBytes - reservedBytes);
  const own = devices.slice(0, maxListedDevices).map((device) => presence.describe(device));
  const foreign = shared
    .slice(0, limits.maxShares)
    .flatMap(({ share, ...cocoon }) =>
      isVisible(share) ? presence.describeShared({ ...cocoon, share }) : [],
    );
  return {
    devices: [...own, ...foreign].filter(fits),
    revocations: news
      .filter(({ records }) => fits(records))
      .map(({ owner, records, list }) => ({ owner, records, list: firstOf(list, fits) })),
    shares: shares
      .slice(0, limits.maxShares)
      .map(({ proof }) => proof)
      .filter(fits),
  };
}

/** A list is whole up to where it is cut. */
function firstOf(list: readonly string[], fits: (value: unknown) => boolean): string[] {
  const end = list.findIndex((entry) => !fits(entry));
  return end === -1 ? [...list] : list.slice(0, end);
}

function measure(bytes: number): (value: unknown) => boolean {
  let left = bytes;
  return (value) => {
    const size = JSON.stringify(value).length;
    if (size > left) return false;
    left -= size;
    return true;
  };
}
