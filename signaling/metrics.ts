/** What the server counts, for Prometheus and for tests. No label names an owner, a device or an address. */

import { Counter, Gauge, Registry } from 'prom-client';

/** A snapshot. Bytes are of WebSocket messages, without framing. */
export interface SignalingCounters {
  readonly connections: number;
  readonly peers: number;
  readonly introductions: number;
  readonly signals: number;
  /** Of relayed signals. */
  readonly signalBytesIn: number;
  readonly signalBytesOut: number;
  /** Of all messages. */
  readonly messageBytesIn: number;
  readonly messageBytesOut: number;
}

export class Metrics {
  readonly registry = new Registry();
  readonly connections = this.#gauge('connections', 'Open WebSockets');
  readonly peers = this.#gauge('peers', 'Signed-in peers');
  readonly signIns = this.#counter('sign_ins_total', 'Sign-ins by result', 'result');
  readonly redemptions = this.#counter('redemptions_total', 'Setup tokens by result', 'result');
  readonly introductions = this.#counter('introductions_total', 'Introductions by result', 'result');
  readonly lookups = this.#counter('lookups_total', 'Capability lookups');
  readonly signals = this.#counter('signals_total', 'Signals by what became of them', 'result');
  readonly signalBytes = this.#counter('signal_bytes_total', 'Bytes of relayed signals', 'direction');
  readonly messageBytes = this.#counter('message_bytes_total', 'Bytes of all messages', 'direction');
  readonly rateLimited = this.#counter('rate_limited_total', 'Requests over their rate', 'kind');
  readonly httpRequests = this.#counter('http_requests_total', 'HTTP answers by status', 'status');
  readonly #values = {
    connections: 0,
    peers: 0,
    introductions: 0,
    signals: 0,
    signalBytesIn: 0,
    signalBytesOut: 0,
    messageBytesIn: 0,
    messageBytesOut: 0,
  };

  get counters(): SignalingCounters {
    return { ...this.#values };
  }

  setConnections(count: number): void {
    this.#values.connections = count;
    this.connections.set(count);
  }

  setPeers(count: number): void {
    this.#values.peers = count;
    this.peers.set(count);
  }

  introduced(result: string): void {
    if (result === 'ok') this.#values.introductions++;
    this.introductions.inc({ result });
  }

  relayed(bytesIn: number, bytesOut: number): void {
    this.#values.signals++;
    this.#values.signalBytesIn += bytesIn;
    this.#values.signalBytesOut += bytesOut;
    this.signals.inc({ result: 'relayed' });
    this.signalBytes.inc({ direction: 'in' }, bytesIn);
    this.signalBytes.inc({ direction: 'out' }, bytesOut);
  }

  received(bytes: number): void {
    this.#values.messageBytesIn += bytes;
    this.messageBytes.inc({ direction: 'in' }, bytes);
  }

  sent(bytes: number): void {
    this.#values.messageBytesOut += bytes;
    this.messageBytes.inc({ direction: 'out' }, bytes);
  }

  #gauge(name: string, help: string): Gauge {
    return new Gauge({ name: `cocoon_signaling_${name}`, help, registers: [this.registry] });
  }

  #counter(name: string, help: string, ...labelNames: string[]): Counter {
    return new Counter({ name: `cocoon_signaling_${name}`, help, labelNames, registers: [this.registry] });
  }
}
