/** The browser engine's end inside a web page, driven by the suite that opened the page. */

import { enginePeer } from '../engine-peer.contract.ts';
import type { FromPeer, ToPeer } from '../engine-peer.contract.ts';
import { browserEngine } from './browser.browser.ts';

declare global {
  interface Window {
    /** Put there by the suite. */
    tell(message: FromPeer): Promise<void>;
    take(message: ToPeer): void;
  }
}

window.take = enginePeer(browserEngine(), (message) => void window.tell(message));
