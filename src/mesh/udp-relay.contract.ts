/**
 * A line between two connections that can lose packets: both are told the relay's address in place of the
 * other's. Losses follow a seed, so that a failing run can be repeated.
 */

import { createSocket } from 'node:dgram';
import type { Socket } from 'node:dgram';
import type { Introduction } from './engine-pair.contract.ts';
import { formatCandidate, parseCandidate } from './sdp.ts';

export interface LossyRelay {
  lossPercent: number;
  /** Packets lost so far. */
  readonly dropped: number;
  /** For `link`: puts the relay between the two. */
  readonly introduction: Introduction;
  close(): Promise<void>;
}

type End = 'offerer' | 'answerer';

export async function lossyRelay(lossPercent: number, seed = 7): Promise<LossyRelay> {
  /** The socket that each end talks to, and where that end itself is. */
  const facing = { offerer: await boundSocket(), answerer: await boundSocket() };
  const port: Record<End, number> = { offerer: 0, answerer: 0 };
  let state = seed;
  const relay = {
    lossPercent,
    dropped: 0,
    introduction: {
      candidate: (line: string, from: End): string | null => {
        const candidate = parseCandidate(line);
        if (candidate?.address !== '127.0.0.1') return null;
        port[from] = candidate.port;
        const towards = from === 'offerer' ? facing.answerer : facing.offerer;
        return formatCandidate({ ...candidate, port: towards.address().port });
      },
    },
    close: async (): Promise<void> => {
      await Promise.all(
        Object.values(facing).map((socket) => new Promise<void>((done) => socket.close(() => done()))),
      );
    },
  };
  const forward = (from: End, to: End): void => {
    facing[from].on('message', (datagram) => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      if ((state / 2 ** 32) * 100 < relay.lossPercent) relay.dropped++;
      else if (port[to] > 0) facing[to].send(datagram, port[to], '127.0.0.1');
    });
  };
  forward('offerer', 'answerer');
  forward('answerer', 'offerer');
  return relay;
}

async function boundSocket(): Promise<Socket> {
  const socket = createSocket('udp4');
  await new Promise<void>((resolve, reject) => {
    socket.once('error', reject);
    socket.bind(0, '127.0.0.1', () => {
      socket.setRecvBufferSize(4 * 1024 * 1024);
      resolve();
    });
  });
  return socket;
}
