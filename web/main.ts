/**
 * The page: this browser becomes a device of the mesh, with its own key and its own sessions. Here its parts meet the
 * elements of the page.
 */

import type { Device, Mesh } from '@cocoon-mesh/mesh';
import { MeshError, toMeshError } from '@cocoon-mesh/protocol';
import type { PageState } from './browser-device.ts';
import { BrowserDevice } from './browser-device.ts';
import { BrowserStore } from './browser-store.ts';
import { DeviceTable } from './device-table.ts';
import { fetchService } from './fetch-service.ts';
import { takeSignInLink } from './sign-in-link.ts';

const requestTimeoutMs = 20_000;
const shownBytes = 64 * 1024;

function element<T extends HTMLElement>(id: string, kind: new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new MeshError('internal', `The page has no ${id}`);
  return found;
}

const status = element('status', HTMLParagraphElement);

function say(text: string, state: 'ok' | 'problem' = 'ok'): void {
  status.textContent = text;
  status.dataset['state'] = state;
}

function sayError(thrown: unknown): void {
  const error = toMeshError(thrown);
  say(`${error.message}. ${error.hint} (${error.code})`, 'problem');
}

/** What only a device of the mesh can say of itself is shown to nobody else. */
function showMember(member: boolean): void {
  element('explain', HTMLParagraphElement).hidden = !member;
  element('devices', HTMLTableElement).hidden = !member;
  if (!member) element('answer', HTMLElement).hidden = true;
}

function showState(state: PageState): void {
  switch (state.kind) {
    case 'connecting':
      return say('Connecting…');
    case 'connected':
      showMember(true);
      return say('Connected');
    case 'waiting':
      return say(`${state.message}. Trying again…`, 'problem');
    case 'refused':
      showMember(false);
      return sayError(state.error);
    case 'revoked':
      showMember(false);
      return sayError(
        new MeshError('revoked', 'This browser was revoked: your devices do not let it in any more', {
          hint: 'If you want it back, run `cocoon open` on one of your devices: with that link it joins as a new device.',
        }),
      );
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

async function leaveToNewerTab(device: BrowserDevice): Promise<void> {
  await device.close();
  showMember(false);
  say('Another tab of this browser is the device now. Reload to use this one.', 'problem');
}

async function main(): Promise<void> {
  // A link that is put into the address of an open page loads nothing by itself.
  addEventListener('hashchange', () => location.reload());
  const token = await takeSignInLink(location, (address) => history.replaceState(null, '', address));
  const replaced = await takeOver();
  const browser = new BrowserDevice({
    store: await BrowserStore.open(),
    signalingUrl: `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/ws`,
    token,
    state: showState,
    devices: (mesh) => table.show(mesh.devices()),
  });
  const withMesh = async <T>(use: (mesh: Mesh) => Promise<T>): Promise<T> => {
    if (!browser.mesh) throw new MeshError('unauthorized');
    return use(browser.mesh);
  };
  const table = new DeviceTable(element('devices', HTMLTableElement), {
    devices: () => browser.mesh?.devices() ?? [],
    ping: (device) => withMesh((mesh) => ping(mesh, device)),
    open: (device, service) => withMesh((mesh) => open(mesh, device, service)),
    accept: (device) => withMesh((mesh) => mesh.acceptName(device.name)),
  });
  // A page that goes away says so; the others need not wait for its silence.
  addEventListener('pagehide', () => void browser.close());
  window.addEventListener('pageshow', (event: PageTransitionEvent) => {
    if (event.persisted) location.reload();
  });
  replaced.addEventListener('abort', () => void leaveToNewerTab(browser));
  if (replaced.aborted) await leaveToNewerTab(browser);
  else await browser.start();
}

main().catch(sayError);
