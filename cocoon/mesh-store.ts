/**
 * `owners.json`: to whom this device belongs, which tokens it has redeemed, and which name belongs to which
 * device. The mesh reads and writes its part through `MeshStore`.
 */

import { readFile } from 'node:fs/promises';
import type { MeshStore, TrustState } from '@cocoon-mesh/mesh';
import type { MembershipProof } from '@cocoon-mesh/protocol';
import { MeshError, check, membershipProofSchema, namePattern } from '@cocoon-mesh/protocol';
import { writePrivateFile } from './atomic-file.ts';
import { isMissing } from './key-file.ts';
import type { MadeToken } from './token-request.ts';

interface Owners {
  readonly v: 1;
  readonly membership: MembershipProof | null;
  /** The owner was made by this device because it had none; a token may replace it while it has no other device. */
  readonly selfMade: boolean;
  readonly hasOtherDevices: boolean;
  /** Ids of redeemed tokens, newest last. */
  readonly redeemed: readonly string[];
  /** Where this device redeemed its last token. */
  readonly signalingUrl: string | null;
  readonly pins: Readonly<Record<string, string>>;
  /** What this device was called last; null before its first sign-in. */
  readonly name: string | null;
  /** What the mesh knows of owners; its own to judge. Null on a new device. */
  readonly trust: unknown;
  /** Tokens of this device that can still be redeemed, newest last. */
  readonly made: readonly MadeToken[];
}

const nobody: Owners = {
  v: 1,
  membership: null,
  selfMade: false,
  hasOtherDevices: false,
  redeemed: [],
  signalingUrl: null,
  pins: {},
  name: null,
  trust: null,
  made: [],
};

const keptRedeemed = 100;
const keptMade = 1000;

export class OwnersFile implements MeshStore {
  readonly #path: string;
  #owners: Owners;
  /** While a token waits to be redeemed there is no membership, whatever was there before. */
  #pending: { readonly jti: string; readonly signalingUrl: string } | null = null;
  #writes: Promise<void> = Promise.resolve();

  private constructor(path: string, owners: Owners) {
    this.#path = path;
    this.#owners = owners;
  }

  /** @throws MeshError database_corrupt | key_unreadable; the file is left as it is */
  static async open(path: string): Promise<OwnersFile> {
    let text: string;
    try {
      text = await readFile(path, 'utf8');
    } catch (cause) {
      if (isMissing(cause)) return new OwnersFile(path, nobody);
      throw new MeshError('key_unreadable', `${path} cannot be read`, { cause });
    }
    try {
      return new OwnersFile(path, parseOwners(JSON.parse(text)));
    } catch (cause) {
      if (cause instanceof MeshError && cause.code === 'database_newer') throw cause;
      throw new MeshError('database_corrupt', `${path} is damaged`, { cause });
    }
  }

  get owners(): Owners {
    return this.#owners;
  }

  /** The next membership that is saved comes from this token. */
  redeeming(jti: string, signalingUrl: string): void {
    this.#pending = { jti, signalingUrl };
  }

  /** This device belongs to an owner it holds the secret of. */
  async belongTo(membership: MembershipProof, selfMade: boolean): Promise<void> {
    await this.#write({ ...this.#owners, membership, selfMade });
  }

  /** A token by which my owner was given a cocoon: it is of no more use. */
  async noteClaim(jti: string, signalingUrl: string): Promise<void> {
    const redeemed = [...this.#owners.redeemed.filter((known) => known !== jti), jti].slice(-keptRedeemed);
    await this.#write({ ...this.#owners, redeemed, signalingUrl });
  }

  /** @param now seconds since 1970: what has expired is forgotten */
  async noteMade(token: MadeToken, now: number): Promise<void> {
    const living = this.#owners.made.filter(({ expires }) => expires > now);
    await this.#write({ ...this.#owners, made: [...living, token].slice(-keptMade) });
  }

  async noteName(name: string): Promise<void> {
    if (this.#owners.name !== name) await this.#write({ ...this.#owners, name });
  }

  async noteOtherDevices(): Promise<void> {
    if (!this.#owners.hasOtherDevices) await this.#write({ ...this.#owners, hasOtherDevices: true });
  }

  async loadMembership(): Promise<MembershipProof | null> {
    return this.#pending ? null : this.#owners.membership;
  }

  async saveMembership(membership: MembershipProof): Promise<void> {
    const pending = this.#pending;
    this.#pending = null;
    await this.#write({
      ...this.#owners,
      membership,
      ...(pending
        ? {
            selfMade: false,
            redeemed: [...this.#owners.redeemed, pending.jti].slice(-keptRedeemed),
            signalingUrl: pending.signalingUrl,
          }
        : {}),
    });
  }

  async loadPins(): Promise<Record<string, string>> {
    return { ...this.#owners.pins };
  }

  async savePins(pins: Record<string, string>): Promise<void> {
    await this.#write({ ...this.#owners, pins });
  }

  async loadTrust(): Promise<unknown> {
    return this.#owners.trust;
  }

  async saveTrust(trust: TrustState): Promise<void> {
    await this.#write({ ...this.#owners, trust });
  }

  /** One after the other, each with the newest content. */
  async #write(owners: Owners): Promise<void> {
    this.#owners = owners;
    const writing = this.#writes.then(() =>
      writePrivateFile(this.#path, `${JSON.stringify(this.#owners, null, 2)}\n`),
    );
    this.#writes = writing.catch(() => undefined);
    await writing;
  }
}

function parseOwners(value: unknown): Owners {
  if (typeof value !== 'object' || value === null) throw new TypeError('not an object');
  const owners = value as Partial<Record<keyof Owners, unknown>>;
  if (typeof owners.v === 'number' && owners.v > 1) throw new MeshError('database_newer');
  if (owners.v !== 1) throw new TypeError('no version');
  return {
    v: 1,
    membership: owners.membership === null ? null : check(membershipProofSchema, owners.membership),
    selfMade: owners.selfMade === true,
    hasOtherDevices: owners.hasOtherDevices === true,
    redeemed: texts(owners.redeemed),
    signalingUrl: typeof owners.signalingUrl === 'string' ? owners.signalingUrl : null,
    pins: pinsOf(owners.pins),
    name: typeof owners.name === 'string' && namePattern.test(owners.name) ? owners.name : null,
    trust: owners.trust ?? null,
    made: madeOf(owners.made ?? []),
  };
}

function texts(value: unknown): string[] {
  if (Array.isArray(value) && value.every((item) => typeof item === 'string')) return value;
  throw new TypeError('not a list of texts');
}

function madeOf(value: unknown): MadeToken[] {
  if (!Array.isArray(value)) throw new TypeError('not a list of tokens');
  return value.map((item: Partial<Record<keyof MadeToken, unknown>>) => {
    const { jti, grantHash, expires, asker } = item;
    if (typeof jti !== 'string' || typeof grantHash !== 'string' || typeof expires !== 'number')
      throw new TypeError('no token');
    return { jti, grantHash, expires, asker: typeof asker === 'string' ? asker : null };
  });
}

function pinsOf(value: unknown): Record<string, string> {
  if (typeof value !== 'object' || value === null) throw new TypeError('no pins');
  const pins: Record<string, string> = {};
  for (const [name, peerId] of Object.entries(value as Record<string, unknown>)) {
    if (typeof peerId !== 'string') throw new TypeError('a pin is no text');
    pins[name] = peerId;
  }
  return pins;
}
