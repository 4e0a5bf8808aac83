/** One GET of a device's service over the session of this page. */

import type { Mesh } from '@cocoon-mesh/mesh';
import { encodeServiceOpen, httpProtocol, systemClock } from '@cocoon-mesh/protocol';
import { fetchThrough } from '@cocoon-mesh/proxy';

export interface ServiceAnswer {
  readonly status: number;
  /** The start of the body, as text. */
  readonly text: string;
}

/** @throws MeshError as the mesh and the device say */
export async function fetchService(
  mesh: Mesh,
  peerId: string,
  service: string,
  options: { readonly maxBytes: number; readonly signal: AbortSignal },
): Promise<ServiceAnswer> {
  const { maxBytes, signal } = options;
  const stream = await mesh.openStream(peerId, httpProtocol, encodeServiceOpen({ service }), signal);
  const response = await fetchThrough(stream, { path: '/' }, { clock: systemClock, signal });
  const decoder = new TextDecoder();
  let text = '';
  let left = maxBytes;
  const reader = response.body.getReader();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return { status: response.status, text: text + decoder.decode() };
    text += decoder.decode(value.subarray(0, left), { stream: true });
    left -= value.length;
    if (left > 0) continue;
    await reader.cancel();
    return { status: response.status, text: `${text}\n…` };
  }
}
