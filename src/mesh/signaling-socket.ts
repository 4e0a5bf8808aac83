/** The WebSocket to signaling as the mesh needs it: the browser's own, or `ws` in Node. */

export interface SignalingSocketEvents {
  /** `protocol` is the chosen subprotocol. */
  open(protocol: string): void;
  message(data: Uint8Array | string): void;
  /** Exactly once, also when it never opened. */
  closed(code: number, reason: string): void;
}

export interface SignalingSocket {
  send(data: Uint8Array | string): void;
  close(code?: number, reason?: string): void;
  /** Ends it at once. */
  abort(): void;
}

export type SignalingSocketFactory = (
  url: string,
  protocols: readonly string[],
  events: SignalingSocketEvents,
) => SignalingSocket;
