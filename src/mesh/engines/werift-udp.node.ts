/**
 * The UDP socket below ICE, in the shape werift expects. Its buffers hold a whole congestion window, sending
 * resolves no names, and a failed send is a lost datagram, nothing more.
 */

import { createSocket } from 'node:dgram';
import type { Socket } from 'node:dgram';
import { once } from 'node:events';
import type { Address, UdpTransport } from './werift-build.node.ts';

/** The default of about 208 KiB overflows in a burst; the system may grant less than we ask for. */
const socketBufferBytes = 4 * 1024 * 1024;

type LookupCallback = (error: Error | null, address: string, family: number) => void;

export class UdpSocket implements UdpTransport {
  readonly type = 'udp';
  readonly addressFamily: 4 | 6;
  readonly #socket: Socket;
  #closed = false;
  onData: (datagram: Buffer, from: Address) => void = () => {};

  private constructor(family: 4 | 6) {
    this.addressFamily = family;
    this.#socket = createSocket({
      type: family === 4 ? 'udp4' : 'udp6',
      ipv6Only: family === 6,
      // ICE sends to addresses only; asking the resolver for each datagram would cost a turn of the event loop.
      lookup: (host: string, _options: object, callback: LookupCallback) => callback(null, host, family),
    });
    this.#socket.on('message', (datagram, { address, port }) => {
      this.onData(datagram, [withoutZone(address), port]);
    });
    this.#socket.on('error', () => {});
  }

  /** Binds to a free port of every local address. */
  static async open(family: 4 | 6): Promise<UdpSocket> {
    const udp = new UdpSocket(family);
    const listening = once(udp.#socket, 'listening');
    udp.#socket.bind(0);
    await listening;
    try {
      udp.#socket.setRecvBufferSize(socketBufferBytes);
      udp.#socket.setSendBufferSize(socketBufferBytes);
    } catch {
      // A system that refuses keeps its default.
    }
    return udp;
  }

  get closed(): boolean {
    return this.#closed;
  }

  get address(): { address: string; port: number } {
    return this.#socket.address();
  }

  sendNow(datagram: Buffer, host: string, port: number): void {
    if (this.#closed) return;
    this.#socket.send(datagram, 0, datagram.length, port, host, ignore);
  }

  async send(datagram: Buffer, [host, port]: Address): Promise<void> {
    this.sendNow(datagram, host, port);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await new Promise<void>((resolve) => {
      this.#socket.close(() => resolve());
    });
  }
}

function ignore(): void {}

function withoutZone(address: string): string {
  const zone = address.indexOf('%');
  return zone < 0 ? address : address.slice(0, zone);
}
