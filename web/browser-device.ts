/**
 * This browser as a device of the mesh. A sign-in link comes first; when it does not work, what the browser had before
 * still signs it in; and a browser that was revoked joins with a link as a new device, for a key is revoked for good.
 */

import type { Mesh, SignalingState } from '@cocoon-mesh/mesh';
import { createMesh } from '@cocoon-mesh/mesh';
import { browserEngine } from '@cocoon-mesh/mesh/engines/browser.browser.ts';
import { MembershipRenewal, isDue } from '@cocoon-mesh/mesh/membership-renewal.ts';
import { browserSignalingSocket } from '@cocoon-mesh/mesh/signaling-socket.browser.ts';
import type { SetupToken } from '@cocoon-mesh/protocol';
import { MeshError, systemClock, toMeshError } from '@cocoon-mesh/protocol';
import type { BrowserStore } from './browser-store.ts';
import { browserName } from './device-name.ts';

export type PageState =
  | { readonly kind: 'connecting' }
  | { readonly kind: 'connected' }
  /** Tries again by itself. */
  | { readonly kind: 'waiting'; readonly message: string }
  | { readonly kind: 'refused'; readonly error: MeshError }
  | { readonly kind: 'revoked' };

export interface BrowserDeviceOptions {
  readonly store: BrowserStore;
  readonly signalingUrl: string;
  /** Of the sign-in link. */
  readonly token: SetupToken | null;
  readonly state: (state: PageState) => void;
  /** The list of devices, or something in it, changed. */
  readonly devices: (mesh: Mesh) => void;
}

/** With what the browser signs in: the link, what it had before, or the link and a new key. */
type Attempt = 'link' | 'kept' | 'anew';

const meetTimeoutMs = 20_000;

export class BrowserDevice {
  readonly #options: BrowserDeviceOptions;
  #token: SetupToken | null;
  #attempt: Attempt = 'kept';
  #mesh: Mesh | null = null;
  #stops: readonly (() => void)[] = [];
  #isClosed = false;

  constructor(options: BrowserDeviceOptions) {
    this.#options = options;
    this.#token = options.token;
  }

  /** Null while the browser is no device of the mesh. */
  get mesh(): Mesh | null {
    return this.#mesh;
  }

  /** Never rejects: `state` tells. */
  async start(): Promise<void> {
    const isRevoked = await this.#options.store.isRevoked();
    await this.#join(this.#token === null ? 'kept' : isRevoked ? 'anew' : 'link');
  }

  /** Idempotent. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#leave();
  }

  async #join(attempt: Attempt): Promise<void> {
    await this.#leave();
    this.#attempt = attempt;
    try {
      const mesh = await this.#createMesh(attempt);
      // A newer tab may have come meanwhile.
      if (this.#isClosed) return await mesh.close();
      this.#mesh = mesh;
      this.#follow(mesh);
      mesh.start();
    } catch (thrown) {
      await this.#refused(toMeshError(thrown));
    }
  }

  /** @throws MeshError unauthorized | revoked | membership_expired | … */
  async #createMesh(attempt: Attempt): Promise<Mesh> {
    const { store, signalingUrl } = this.#options;
    if (attempt === 'anew') await store.startAnew();
    if (attempt === 'kept' && (await store.loadMembership()) === null)
      throw new MeshError('unauthorized', 'This browser is not a device of your mesh yet', {
        hint: 'Run `cocoon open` on one of your devices for a sign-in link.',
      });
    return createMesh({
      key: await store.key(),
      engine: browserEngine(),
      iceServers: [],
      signalingUrl,
      openSocket: browserSignalingSocket,
      self: { kind: 'browser', name: browserName(navigator.userAgent), services: [], capabilities: [] },
      store: attempt === 'link' ? store.withoutMembership() : store,
      ...(attempt !== 'kept' && this.#token ? { token: this.#token } : {}),
      clock: systemClock,
      log,
    });
  }

  #follow(mesh: Mesh): void {
    const { devices } = this.#options;
    const renewal = new MembershipRenewal({ mesh, clock: systemClock, log });
    this.#stops = [
      () => renewal.close(),
      mesh.on('devices', () => devices(mesh)),
      mesh.on('signaling', (state) => this.#signaling(mesh, state)),
      mesh.on('trust', (event) => {
        if (event.kind !== 'revocation' || event.owner !== mesh.owner) return;
        const { kind, subject } = event.entry;
        if (kind === 'device' && subject === mesh.peerId) void this.#refused(new MeshError('revoked'));
      }),
    ];
  }

  #signaling(mesh: Mesh, state: SignalingState): void {
    const { state: show } = this.#options;
    switch (state.state) {
      case 'connecting':
        return show({ kind: 'connecting' });
      case 'connected':
        this.#attempt = 'kept';
        this.#token = null;
        void meetSigners(mesh);
        return show({ kind: 'connected' });
      case 'waiting':
        return show({ kind: 'waiting', message: state.message });
      case 'refused':
        return void this.#refused(new MeshError(state.code, state.message));
      case 'closed':
    }
  }

  async #refused(error: MeshError): Promise<void> {
    const { store, state: show } = this.#options;
    // Sessions may take their time to end; what is to be said does not wait for them.
    const left = this.#leave();
    const next = await this.#next(error);
    if (this.#isClosed) return;
    if (next === null) {
      const isRevoked = this.#attempt === 'kept' && error.code === 'revoked';
      if (isRevoked) await store.noteRevoked();
      show(isRevoked ? { kind: 'revoked' } : { kind: 'refused', error });
    }
    await left;
    if (next !== null && !this.#isClosed) await this.#join(next);
  }

  /** What else there is to sign in with. */
  async #next({ code }: MeshError): Promise<Attempt | null> {
    // A link that does not work any more must not sign out a browser that was signed in before.
    if (this.#attempt === 'link')
      return (await this.#options.store.loadMembership()) === null ? null : 'kept';
    // Signaling may lie about it. Whoever has a link loses no more by a new key than the name of the old one.
    return this.#attempt === 'kept' && code === 'revoked' && this.#token ? 'anew' : null;
  }

  async #leave(): Promise<void> {
    const mesh = this.#mesh;
    this.#mesh = null;
    for (const stop of this.#stops) stop();
    this.#stops = [];
    await mesh?.close();
  }
}

/**
 * A membership is renewed over a session to a device that signs, and a page that is only looked at has none. A chain
 * of a token needs no session: the device that signs sees it through signaling.
 */
async function meetSigners(mesh: Mesh): Promise<void> {
  const { membership } = mesh;
  if (membership?.provisional || !isDue(membership, Math.floor(systemClock.now() / 1000))) return;
  const cocoons = mesh
    .devices()
    .filter(({ kind, foreign, online, path }) => kind === 'cocoon' && !foreign && online && path === null);
  const signal = AbortSignal.timeout(meetTimeoutMs);
  await Promise.allSettled(cocoons.map(({ peerId }) => mesh.ping(peerId, signal)));
}

function log(level: 'debug' | 'info' | 'warn', message: string, fields?: Record<string, unknown>): void {
  if (level === 'warn') console.warn(message, fields);
}
