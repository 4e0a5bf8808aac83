/** A device on the right of a session that serves, and whoever asks it on the left. */

import type { Mesh, ProvenPeer, Stream } from '@cocoon-mesh/mesh';
import { sessionPair } from '@cocoon-mesh/mesh/session-pair.contract.ts';
import type { SessionPair } from '@cocoon-mesh/mesh/session-pair.contract.ts';
import type { CapabilityAnswerMessage, CapabilityRequestMessage } from '@cocoon-mesh/protocol';
import { capabilityRequestOpenSchema, encode, memberRights, streamProtocols } from '@cocoon-mesh/protocol';
import { askStream } from './ask-stream.ts';
import { CapabilityServer } from './capability-server.ts';
import { LocalCapabilities } from './local-capabilities.ts';
import type { Provider } from './provider.ts';

export interface ServedDevice {
  readonly pair: SessionPair;
  readonly local: LocalCapabilities;
  readonly server: CapabilityServer;
  readonly mesh: Pick<Mesh, 'openStream'>;
  readonly open: (version?: string, protocol?: string) => Stream;
  readonly ask: (
    change?: Partial<CapabilityRequestMessage>,
    signal?: AbortSignal,
  ) => AsyncGenerator<CapabilityAnswerMessage, void, undefined>;
}

export const sampleRequest: CapabilityRequestMessage = {
  payload: 'hello',
  parts: [],
  timeout_ms: 1_000,
  session: null,
  features: [],
};

export function servedDevice(
  provider: Provider | null,
  options: Parameters<typeof sessionPair>[0] = {},
): ServedDevice {
  // Only what the server looks at.
  const peer = { peerId: 'peer-1', name: 'asker', rights: memberRights } as ProvenPeer;
  const pair: SessionPair = sessionPair({ ...options, acceptRight: (stream) => server.handle(stream, peer) });
  const local = new LocalCapabilities({ clock: pair.clock, log: () => undefined });
  if (provider) local.add(provider);
  const server: CapabilityServer = new CapabilityServer({ local, clock: pair.clock, log: () => undefined });
  const mesh = {
    openStream: async (_peerId: string, protocol: string, header: Uint8Array) =>
      pair.left.open(protocol, header),
  };
  return {
    pair,
    local,
    server,
    mesh,
    open: (version = '^1.0.0', protocol = 'demo.echo') =>
      pair.left.open(streamProtocols.capability, encode(capabilityRequestOpenSchema, { protocol, version })),
    ask: (change = {}, signal = new AbortController().signal) =>
      askStream(
        mesh,
        pair.clock,
        'peer-2',
        { protocol: 'demo.echo', version: '^1.0.0' },
        { ...sampleRequest, ...change },
        signal,
      ),
  };
}
