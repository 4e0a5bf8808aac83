/**
 * Chooses the WebRTC engine of this process: libdatachannel where its prebuilt loads, werift everywhere else,
 * or the one `COCOON_WEBRTC_ENGINE` names. Why it was chosen is kept for `doctor`.
 */

import { MeshError } from '@cocoon-mesh/protocol';
import type { Engine } from '../engine.ts';

export interface EngineChoice {
  readonly engine: Engine;
  /** One sentence. */
  readonly reason: string;
}

/** The two loaders, so that tests can take one away. */
export interface EngineLoaders {
  libdatachannel(): Promise<Engine>;
  werift(): Promise<Engine>;
}

/**
 * @param wanted the value of `COCOON_WEBRTC_ENGINE`; unset and empty are `auto`
 * @throws MeshError unknown_engine, or engine_unavailable when the one that was asked for does not load
 */
export async function selectEngine(
  wanted: string | undefined,
  loaders: EngineLoaders = installed,
): Promise<EngineChoice> {
  switch (wanted || 'auto') {
    case 'auto':
      return automatic(loaders);
    case 'libdatachannel':
    case 'werift': {
      const name = wanted as 'libdatachannel' | 'werift';
      return { engine: await loaders[name](), reason: `COCOON_WEBRTC_ENGINE asks for ${name}.` };
    }
    default:
      throw new MeshError('unknown_engine', `COCOON_WEBRTC_ENGINE is ${JSON.stringify(wanted)}`, {
        hint: 'It is one of auto, libdatachannel, werift.',
      });
  }
}

async function automatic(loaders: EngineLoaders): Promise<EngineChoice> {
  try {
    return {
      engine: await loaders.libdatachannel(),
      reason: 'libdatachannel is the fastest and loads here.',
    };
  } catch (error) {
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
    const detail = cause instanceof Error ? cause.message.split('\n')[0] : String(cause);
    return { engine: await loaders.werift(), reason: `libdatachannel does not load here: ${detail}` };
  }
}

const installed: EngineLoaders = {
  libdatachannel: async () => (await import('./libdatachannel.node.ts')).libdatachannelEngine(),
  werift: async () => (await import('./werift.node.ts')).weriftEngine(),
};
