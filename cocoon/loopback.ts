/**
 * Listens on this machine's own addresses only: 127.0.0.1 and, where IPv6 exists, ::1 on the same port. Both or
 * nothing: a browser that tries the other one first must never meet somebody else's program.
 */

import { once } from 'node:events';
import type { Server } from 'node:net';
import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import { systemCode } from './key-file.ts';

export interface LoopbackListener {
  readonly port: number;
  readonly servers: readonly Server[];
}

const noIpv6: ReadonlySet<string> = new Set(['EADDRNOTAVAIL', 'EAFNOSUPPORT', 'EINVAL']);
/** A free port of one family may be taken in the other. */
const attempts = 10;

/**
 * @param create makes a server; called once per address
 * @param port 0 takes a free one
 * @throws MeshError port_in_use | denied
 */
export async function listenOnLoopback(create: () => Server, port: number): Promise<LoopbackListener> {
  for (let attempt = 1; ; attempt++) {
    const four = create();
    const taken = await listen(four, port, '127.0.0.1');
    const six = create();
    try {
      await listen(six, taken, '::1');
      return { port: taken, servers: [four, six] };
    } catch (thrown) {
      if (thrown instanceof MeshError && noIpv6.has(systemCode(thrown.cause)))
        return { port: taken, servers: [four] };
      four.close();
      if (port !== 0 || attempt === attempts) throw thrown;
    }
  }
}

/** The port that was taken. */
export async function listen(server: Server, port: number, host: string): Promise<number> {
  try {
    server.listen({ port, host, ipv6Only: true });
    await once(server, 'listening');
  } catch (cause) {
    throw listenError(cause, port, host);
  }
  const address = server.address();
  return typeof address === 'object' && address ? address.port : port;
}

export function listenError(cause: unknown, port: number, host: string): MeshError {
  const code = systemCode(cause);
  if (code === 'EACCES')
    return new MeshError('denied', `Port ${port} may not be opened by this user`, {
      cause,
      hint: 'Choose a port above 1023.',
    });
  const why = code === 'EADDRINUSE' ? 'is in use by another program' : `cannot be opened (${code})`;
  return new MeshError('port_in_use', `Port ${port} on ${host} ${why}`, { cause });
}
