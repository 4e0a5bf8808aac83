/** Metrics in Prometheus text: what prom-client knows of the process, and what the mesh holds. */

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { Mesh } from '@cocoon-mesh/mesh';
import type { ProxyOutcome } from '@cocoon-mesh/proxy/index.node.ts';
import { Counter, Gauge, Registry, collectDefaultMetrics } from 'prom-client';

/** The delay of the event loop is sampled this often; the default of 10 ms would keep an idle device awake. */
const sampleMs = 200;

export class Metrics {
  readonly #registry = new Registry();
  readonly #requests: Counter<'outcome'>;

  constructor(mesh: Mesh) {
    const registers = [this.#registry];
    collectDefaultMetrics({ register: this.#registry, eventLoopMonitoringPrecision: sampleMs });
    gauge(registers, 'cocoon_streams_open', 'Streams of all sessions that are open.', () => mesh.streamCount);
    gauge(registers, 'cocoon_sessions', 'Sessions to other devices.', () => mesh.sessionCount);
    gauge(
      registers,
      'cocoon_devices_online',
      'Devices of the owner that are online, this one included.',
      () => mesh.devices().filter(({ online, foreign }) => online && !foreign).length,
    );
    gauge(registers, 'cocoon_signaling_connected', 'Whether signaling is reached: 1 or 0.', () =>
      mesh.signaling.state === 'connected' ? 1 : 0,
    );
    this.#requests = new Counter({
      registers,
      name: 'cocoon_proxy_requests_total',
      help: 'Requests to services of devices, by how they ended.',
      labelNames: ['outcome'],
    });
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  requestEnded(outcome: ProxyOutcome): void {
    this.#requests.inc({ outcome: outcome.kind === 'failed' ? outcome.error.code : outcome.kind });
  }

  /** @param collect first frees what nobody holds any more, so that the heap's size says what is held */
  async text(collect: boolean): Promise<string> {
    if (collect) collectGarbage();
    return this.#registry.metrics();
  }

  close(): void {
    this.#registry.clear();
  }
}

function gauge(registers: Registry[], name: string, help: string, read: () => number): void {
  const instance: Gauge = new Gauge({
    registers,
    name,
    help,
    collect: (): void => instance.set(read()),
  });
}

/** V8 gives the function away only to contexts made after the flag. */
function collectGarbage(): void {
  setFlagsFromString('--expose-gc');
  (runInNewContext('gc') as () => void)();
}
