/**
 * What this browser keeps between visits, in IndexedDB: its key, which WebCrypto never gives out, its
 * membership, what it knows of owners, and the names it has pinned. Other sites cannot read it.
 */

import type { MeshStore, TrustState } from '@cocoon-mesh/mesh';
import type { MembershipProof, SigningKey } from '@cocoon-mesh/protocol';
import { check, generateSigningKey, membershipProofSchema, signingKey } from '@cocoon-mesh/protocol';

const databaseName = 'cocoon';
const storeName = 'self';

export class BrowserStore implements MeshStore {
  readonly #database: IDBDatabase;

  constructor(database: IDBDatabase) {
    this.#database = database;
  }

  static async open(): Promise<BrowserStore> {
    const request = indexedDB.open(databaseName, 1);
    request.addEventListener('upgradeneeded', () => request.result.createObjectStore(storeName));
    return new BrowserStore(await result(request));
  }

  /** The key of this browser, made on the first visit. */
  async key(): Promise<SigningKey> {
    const kept = await this.#get<{ privateKey: CryptoKey; publicKey: Uint8Array<ArrayBuffer> }>('key');
    if (kept) return signingKey(kept.privateKey, kept.publicKey);
    const fresh = await generateSigningKey();
    await this.#put('key', { privateKey: fresh.privateKey, publicKey: fresh.publicKey });
    return fresh;
  }

  async loadMembership(): Promise<MembershipProof | null> {
    const kept = await this.#get<unknown>('membership');
    return kept === undefined ? null : check(membershipProofSchema, kept);
  }

  async saveMembership(membership: MembershipProof): Promise<void> {
    await this.#put('membership', membership);
  }

  /** For a sign-in link, which makes a new membership. Until it has, the old one stays. */
  withoutMembership(): MeshStore {
    return {
      loadMembership: () => Promise.resolve(null),
      saveMembership: (membership) => this.saveMembership(membership),
      loadPins: () => this.loadPins(),
      savePins: (pins) => this.savePins(pins),
      loadTrust: () => this.loadTrust(),
      saveTrust: (state) => this.saveTrust(state),
    };
  }

  async isRevoked(): Promise<boolean> {
    return (await this.#get<boolean>('revoked')) === true;
  }

  /** The key is of no use any more, but it is kept until something takes its place. */
  async noteRevoked(): Promise<void> {
    await this.#put('revoked', true);
  }

  /** Another device from now on. What is known of others stays known. */
  async startAnew(): Promise<void> {
    const { peerId } = await this.key();
    const pins = Object.entries(await this.loadPins()).filter(([, holder]) => holder !== peerId);
    await this.savePins(Object.fromEntries(pins));
    for (const name of ['key', 'membership', 'revoked'])
      await result(this.#objects('readwrite').delete(name));
  }

  async loadPins(): Promise<Record<string, string>> {
    return (await this.#get<Record<string, string>>('pins')) ?? {};
  }

  async savePins(pins: Record<string, string>): Promise<void> {
    await this.#put('pins', pins);
  }

  async loadTrust(): Promise<unknown> {
    return (await this.#get<unknown>('trust')) ?? null;
  }

  async saveTrust(state: TrustState): Promise<void> {
    await this.#put('trust', state);
  }

  #objects(mode: IDBTransactionMode): IDBObjectStore {
    return this.#database.transaction(storeName, mode).objectStore(storeName);
  }

  async #get<T>(name: string): Promise<T | undefined> {
    return (await result(this.#objects('readonly').get(name))) as T | undefined;
  }

  async #put(name: string, value: unknown): Promise<void> {
    await result(this.#objects('readwrite').put(value, name));
  }
}

async function result<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.addEventListener('success', () => resolve(request.result));
    request.addEventListener('error', () =>
      reject(request.error ?? new DOMException('The browser store failed')),
    );
  });
}
