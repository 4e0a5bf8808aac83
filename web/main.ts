/**
 * The page: this browser becomes a device of the mesh, with its own key and its own sessions. The sign-in link
 * carries a one-time token in its fragment, which no server sees; it is taken out of the address at once.
 */

import type { Device, Mesh, SignalingState } from '@cocoon-mesh/mesh';
import { createMesh } from '@cocoon-mesh/mesh';
import { browserEngine } from '@cocoon-mesh/mesh/engines/browser.browser.ts';
import { browserSignalingSocket } from '@cocoon-mesh/mesh/signaling-socket.browser.ts';
import type { SetupToken } from '@cocoon-mesh/protocol';
import { MeshError, readSetupToken, systemClock, toMeshError } from '@cocoon-mesh/protocol';
import { BrowserStore } from './browser-store.ts';
import { browserName } from './device-name.ts';
import { DeviceTable } from './device-table.ts';
import { fetchService } from './fetch-service.ts';

const requestTimeoutMs = 20_000;
const shownBytes = 64 * 1024;

function element<T extends HTMLElement>(id: string, kind: new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new MeshError('internal', `The page has no ${id}`);
  return found;
}

/** A link that does not work any more must not sign out a browser that was signed in before. */
let fallsBack = false;

const status = element('status', HTMLParagraphElement);

function say(text: string, state: 'ok' | 'problem' = 'ok'): void {
  status.textContent = text;
  status.dataset['state'] = state;
}

function sayError(thrown: unknown): void {
  const error = toMeshError(thrown);
  say(`${error.message}. ${error.hint} (${error.code})`, 'problem');
}

/** The token of the sign-in link, if the address has one; the address forgets it. */
async function takeToken(): Promise<SetupToken | null> {
  const text = new URLSearchParams(location.hash.slice(1)).get('token');
  if (text === null) return null;
  history.replaceState(null, '', location.pathname + location.search);
  return readSetupToken(text);
}

function signalingUrl(): string {
  return `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/ws`;
}

async function join(store: BrowserStore): Promise<Mesh> {
  const token = await takeToken();
  const member = (await store.loadMembership()) !== null;
  if (token) {
    // A fresh link replaces what an older one left: the old membership may have ended.
    store.passOverMembership();
    fallsBack = member;
  } else if (!member)
    throw new MeshError('unauthorized', 'This browser is not a device of your mesh yet', {
      hint: 'Run `cocoon open` on one of your devices for a sign-in link.',
    });
  return createMesh({
    key: await store.key(),
    engine: browserEngine(),
    iceServers: [],
    signalingUrl: signalingUrl(),
    openSocket: browserSignalingSocket,
    self: { kind: 'browser', name: browserName(navigator.userAgent), services: [], capabilities: [] },
    store,
    ...(token ? { token } : {}),
    clock: systemClock,
    log: (level, message, fields) => (level === 'warn' ? console.warn(message, fields) : undefined),
  });
}

/** What only a device of the mesh can say of itself is shown to nobody else. */
function showMember(member: boolean): void {
  element('explain', HTMLParagraphElement).hidden = !member;
  element('devices', HTMLTableElement).hidden = !member;
}

function showSignaling(state: SignalingState): void {
  switch (state.state) {
    case 'connecting':
      return say('Connecting…');
    case 'connected':
      showMember(true);
      return say('Connected');
    case 'waiting':
      return say(`${state.message}. Trying again…`, 'problem');
    case 'refused':
      // Without the link, which the address has forgotten, the older membership signs in.
      if (fallsBack) return location.reload();
      showMember(false);
      return sayError(new MeshError(state.code, state.message));
    case 'closed':
      return say('Closed', 'problem');
  }
}

async function ping(mesh: Mesh, device: Device): Promise<string> {
  try {
    const { rttMs, path } = await mesh.ping(device.peerId, AbortSignal.timeout(requestTimeoutMs));
    return `${rttMs.toFixed(1)} ms${path ? `, ${path}` : ''}`;
  } catch (thrown) {
    const error = toMeshError(thrown);
    return `${error.message} (${error.code})`;
  }
}

async function open(mesh: Mesh, device: Device, service: string): Promise<void> {
  const answer = element('answer', HTMLElement);
  const title = element('answer-title', HTMLHeadingElement);
  const body = element('answer-body', HTMLPreElement);
  answer.hidden = false;
  title.textContent = `${device.name}/${service} …`;
  body.textContent = '';
  try {
    const signal = AbortSignal.timeout(requestTimeoutMs);
    const response = await fetchService(mesh, device.peerId, service, { maxBytes: shownBytes, signal });
    title.textContent = `${device.name}/${service}: ${response.status}`;
    body.textContent = response.text;
  } catch (thrown) {
    const error = toMeshError(thrown);
    title.textContent = `${device.name}/${service}: ${error.code}`;
    body.textContent = `${error.message}. ${error.hint}`;
  }
}

/**
 * One tab at a time is the device, because two of one key would sign each other out: the newest one, for somebody
 * just opened it. The signal tells when a newer one came.
 */
async function takeOver(): Promise<AbortSignal> {
  const replaced = new AbortController();
  const { promise: taken, resolve } = Promise.withResolvers<void>();
  navigator.locks
    .request('cocoon', { steal: true }, async () => {
      resolve();
      await new Promise<never>(() => undefined);
    })
    .catch(() => replaced.abort());
  await taken;
  return replaced.signal;
}

async function leaveToNewerTab(mesh: Mesh): Promise<void> {
  await mesh.close();
  showMember(false);
  say('Another tab of this browser is the device now. Reload to use this one.', 'problem');
}

async function main(): Promise<void> {
  const replaced = await takeOver();
  const mesh = await join(await BrowserStore.open());
  const table = new DeviceTable(element('devices', HTMLTableElement), {
    ping: (device) => ping(mesh, device),
    open: (device, service) => open(mesh, device, service),
  });
  mesh.on('devices', () => table.show(mesh.devices()));
  mesh.on('signaling', showSignaling);
  // A page that goes away says so; the others need not wait for its silence.
  addEventListener('pagehide', () => void mesh.close());
  window.addEventListener('pageshow', (event: PageTransitionEvent) => {
    if (event.persisted) location.reload();
  });
  replaced.addEventListener('abort', () => void leaveToNewerTab(mesh));
  if (replaced.aborted) await leaveToNewerTab(mesh);
  else mesh.start();
}

main().catch(sayError);
