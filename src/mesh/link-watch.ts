/**
 * Keeps what runs in line with what is known: a link whose right ended is cut at once, one whose right changed goes
 * on with what it is now. The right of this device itself is watched too, for nobody else would tell its user.
 */

import { toMeshError } from '@cocoon-mesh/protocol';
import type { Admission } from './admission.ts';
import type { Directory } from './directory.ts';
import type { Link, Links } from './links.ts';
import type { Trust } from './trust.ts';

export interface LinkWatchOptions {
  readonly trust: Trust;
  readonly directory: Directory;
  readonly admission: Admission;
  readonly links: Pick<Links, 'all' | 'cut' | 'stand'>;
  readonly log: (level: 'debug' | 'info' | 'warn', message: string, fields?: Record<string, unknown>) => void;
}

export class LinkWatch {
  readonly #options: LinkWatchOptions;
  /** Why this device itself is let in nowhere; told once. */
  #mine: string | null = null;

  constructor(options: LinkWatchOptions) {
    this.#options = options;
  }

  /** Ends at once what does not stand any more. */
  enforce(): void {
    for (const link of this.#options.links.all()) this.stands(link);
    this.#lookAtMyself();
  }

  /** Cuts the link unless its right stands. */
  stands(link: Link): boolean {
    const { trust, links, log } = this.#options;
    const objection = trust.objection(link.standing);
    if (!objection) return true;
    log('info', 'A session is cut', { peer: link.peerId, code: objection.code, why: objection.message });
    links.cut(link.peerId, objection.message);
    return false;
  }

  /** Memberships of my devices changed: as the directory judged them, so they may go on. */
  followDirectory(): void {
    const { directory, links } = this.#options;
    for (const link of links.all()) {
      const known = directory.get(link.peerId);
      if (known && known.standing !== link.standing) links.stand(link.peerId, known.standing);
    }
  }

  /** Shares changed: who comes by one is judged anew. */
  async followShares(): Promise<void> {
    for (const link of this.#options.links.all()) await this.followShare(link);
  }

  async followShare(link: Link): Promise<void> {
    const { admission, links, log } = this.#options;
    if (link.standing.relation === 'own') return;
    try {
      links.stand(link.peerId, await admission.judgeAgain(link));
    } catch (thrown) {
      const { code } = toMeshError(thrown);
      log('info', 'A session is cut', { peer: link.peerId, code });
      links.cut(link.peerId, code);
    }
  }

  /** Signaling or my owner's list says so. */
  sayRevoked(): void {
    if (this.#mine === 'revoked') return;
    this.#mine = 'revoked';
    this.#options.log('warn', 'The owner has revoked this device: nobody lets it in any more');
  }

  #lookAtMyself(): void {
    const { problem } = this.#options.trust;
    if (problem?.code === 'revoked') return this.sayRevoked();
    if (problem && this.#mine !== problem.code)
      this.#options.log('warn', 'The membership of this device does not stand any more', {
        code: problem.code,
        why: problem.message,
      });
    this.#mine = problem?.code ?? null;
  }
}
