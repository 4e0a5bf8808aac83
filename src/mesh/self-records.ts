/**
 * What this device says of itself, signed anew with each change: one record for its own owner, and one for each
 * owner it is shared with, who learns no more than it was granted. To a cocoon of another owner it says its name.
 */

import type { Clock, DeviceContent, ProvenShare, Rights, SigningKey } from '@cocoon-mesh/protocol';
import { allows, signDeviceRecord } from '@cocoon-mesh/protocol';
import type { SelfDescription } from './mesh.ts';

interface SelfRecordsOptions {
  readonly key: SigningKey;
  readonly clock: Clock;
  /** Those of this device count. */
  readonly shares: () => readonly ProvenShare[];
}

export class SelfRecords {
  readonly #options: SelfRecordsOptions;
  /** By the owner they are for; `terms` is what they were written with. */
  readonly #granted = new Map<string, { readonly record: string; readonly terms: string }>();
  #self: SelfDescription;
  #own = '';
  #seq = 0;
  /** One after the other, so that what was signed last is the newest. */
  #signing: Promise<unknown> = Promise.resolve();

  constructor(options: SelfRecordsOptions, self: SelfDescription) {
    this.#options = options;
    this.#self = self;
  }

  get self(): SelfDescription {
    return this.#self;
  }

  /** For my own owner. */
  async own(): Promise<string> {
    await this.#signing;
    if (this.#own === '') await this.describe(this.#self);
    return this.#own;
  }

  /** Resolves when all records say this. */
  async describe(self: SelfDescription): Promise<void> {
    this.#self = self;
    await this.#inTurn(async () => {
      this.#own = await this.#sign(contentOf(self));
      this.#granted.clear();
      await this.#signGranted();
    });
  }

  /** Brings the records for other owners in line with the shares. @returns whether one is new */
  async follow(): Promise<boolean> {
    return this.#inTurn(() => this.#signGranted());
  }

  /** For each owner that this device is shared with. */
  granted(): readonly string[] {
    return [...this.#granted.values()].map(({ record }) => record);
  }

  /** For an owner this device is shared with, or one whose cocoon it visits. */
  async forOwner(owner: string): Promise<string> {
    await this.follow();
    const granted = this.#granted.get(owner);
    if (granted) return granted.record;
    const { kind, name } = this.#self;
    return this.#sign({ kind, name, services: [], capabilities: [] }, owner);
  }

  async #signGranted(): Promise<boolean> {
    const shares = this.#options.shares().filter(({ cocoon }) => cocoon === this.#options.key.peerId);
    const sharesOf = Map.groupBy(shares, ({ coOwner }) => coOwner);
    for (const owner of this.#granted.keys()) if (!sharesOf.has(owner)) this.#granted.delete(owner);
    let isNew = false;
    for (const [owner, given] of sharesOf) {
      const rights = given.flatMap((share) => share.rights);
      // The token too: signaling forgets what was said under one that has ended.
      const terms = JSON.stringify([given.map(({ jti }) => jti), rights]);
      if (this.#granted.get(owner)?.terms === terms) continue;
      const record = await this.#sign(granted(contentOf(this.#self), rights), owner);
      this.#granted.set(owner, { record, terms });
      isNew = true;
    }
    return isNew;
  }

  async #sign(content: Content, audience?: string): Promise<string> {
    const { key, clock } = this.#options;
    const now = clock.now();
    // Rises across restarts too, without being stored: time in milliseconds does.
    this.#seq = Math.max(this.#seq + 1, now);
    return signDeviceRecord(key, {
      ...content,
      seq: this.#seq,
      ...(audience === undefined ? {} : { audience }),
      iat: Math.floor(now / 1000),
    });
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#signing.then(work);
    this.#signing = result.catch(() => undefined);
    return result;
  }
}

type Content = Omit<DeviceContent, 'seq' | 'iat' | 'audience'>;

function contentOf({ kind, name, services, capabilities, location }: SelfDescription): Content {
  return {
    kind,
    name,
    services: services.map((service) => ({ name: service.name, type: service.type })),
    capabilities: capabilities.map(({ protocol, version }) => ({ protocol, version })),
    ...(location === undefined ? {} : { location }),
  };
}

/** What somebody with these rights may know of. Where the device stands is nobody's business but its owner's. */
function granted({ kind, name, services, capabilities }: Content, rights: Rights): Content {
  const usable = services.filter((service) => allows(rights, service.type, 'use', service.name));
  const servesHttp = usable.some(({ type }) => type === 'http');
  return {
    kind,
    name,
    services: usable,
    capabilities: capabilities.filter(({ protocol }) =>
      protocol === 'proxy.http' ? servesHttp : allows(rights, 'capability', 'use', protocol),
    ),
  };
}
