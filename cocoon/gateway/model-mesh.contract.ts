/** Devices with providers in one process, asked as over a mesh, and the routes of the gateway on a real server. */

import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import type {
  CapabilityAnswer,
  CapabilityRequest,
  Content,
  Provider,
  RequestCapability,
} from '@cocoon-mesh/capabilities';
import type { Clock } from '@cocoon-mesh/protocol';
import { MeshError, systemClock, toMeshError } from '@cocoon-mesh/protocol';
import { splitUrl } from './feature-routes.ts';
import type { ModelDevice } from './openai-models.ts';
import { answerOllama } from './ollama-routes.ts';
import { answerOpenAi } from './openai-routes.ts';

export class ModelMesh {
  readonly #clock: Clock;
  readonly #devices: { readonly name: string; readonly provider: Provider }[] = [];
  /** Requests that run, by device. */
  readonly inFlight = new Map<string, number>();
  readonly requests: CapabilityRequest[] = [];
  /** Devices in the order in which they were asked. */
  readonly asked: string[] = [];

  constructor(clock: Clock = systemClock) {
    this.#clock = clock;
  }

  get clock(): Clock {
    return this.#clock;
  }

  add(name: string, ...providers: Provider[]): void {
    for (const provider of providers) this.#devices.push({ name, provider });
  }

  get modelDevices(): ModelDevice[] {
    return this.#devices.map(({ name, provider }) => ({
      name,
      peerId: `peer-${name}`,
      capabilities: [{ protocol: provider.protocol, features: [...provider.state.features] }],
    }));
  }

  readonly request: RequestCapability = (request) => {
    this.requests.push(request);
    const answer = new MeshAnswer(this.#candidates(request), request, this);
    return answer;
  };

  #candidates({ protocol, onlyDevice, features = [] }: CapabilityRequest): Candidate[] {
    return this.#devices
      .filter(({ name }) => onlyDevice === undefined || onlyDevice === name || onlyDevice === `peer-${name}`)
      .filter(({ provider }) => provider.protocol === protocol && provider.state.problem === null)
      .filter(({ provider }) => features.every((feature) => provider.state.features.includes(feature)));
  }
}

interface Candidate {
  readonly name: string;
  readonly provider: Provider;
}

/** Tries the next device until the first chunk, as the real one does. */
class MeshAnswer implements CapabilityAnswer {
  readonly #device = Promise.withResolvers<Awaited<CapabilityAnswer['device']>>();
  readonly #end = Promise.withResolvers<Awaited<CapabilityAnswer['end']>>();
  readonly device = this.#device.promise;
  readonly #chunks: AsyncGenerator<Content>;
  #isRead = false;
  readonly #candidates: readonly Candidate[];
  readonly #request: CapabilityRequest;
  readonly #mesh: ModelMesh;

  constructor(candidates: readonly Candidate[], request: CapabilityRequest, mesh: ModelMesh) {
    this.#candidates = candidates;
    this.#request = request;
    this.#mesh = mesh;
    this.device.catch(() => undefined);
    this.#end.promise.catch(() => undefined);
    this.#chunks = this.#run();
  }

  get chunks(): AsyncIterable<Content> {
    this.#isRead = true;
    return this.#chunks;
  }

  /** Whoever waits for it alone has the chunks taken for them. */
  get end(): CapabilityAnswer['end'] {
    void this.#drain();
    return this.#end.promise;
  }

  async #drain(): Promise<void> {
    await Promise.resolve();
    if (this.#isRead) return;
    try {
      for await (const _chunk of this.#chunks);
    } catch {
      // The end rejects with the same.
    }
  }

  async *#run(): AsyncGenerator<Content> {
    let failed: unknown = new MeshError('capability_not_found');
    for (const [index, { name, provider }] of this.#candidates.slice(0, 3).entries()) {
      const source = { device: name, deviceId: `peer-${name}`, attempts: index + 1 };
      let began = false;
      const { inFlight, asked, clock } = this.#mesh;
      const first = new AbortController();
      const limit = clock.after(this.#request.firstAnswerMs ?? Infinity, () =>
        first.abort(new MeshError('timeout', `${name} did not begin`)),
      );
      inFlight.set(name, (inFlight.get(name) ?? 0) + 1);
      asked.push(name);
      try {
        const { payload, parts, session, features, signal } = this.#request;
        const handled = provider.handle({
          payload,
          parts,
          session: session ?? null,
          features: features ?? [],
          signal: AbortSignal.any([first.signal, ...(signal ? [signal] : [])]),
          from: { id: 'peer-laptop', name: 'laptop' },
        });
        let last: Content = { payload: null, parts: [] };
        if (handled instanceof Promise) last = await handled;
        else
          for await (const chunk of handled) {
            began = true;
            limit.cancel();
            this.#device.resolve(source);
            yield chunk;
          }
        this.#device.resolve(source);
        const full = { ...source, version: provider.version, queueMs: 0, totalMs: 1, insteadOf: null };
        this.#end.resolve({ ...last, source: full });
        return;
      } catch (thrown) {
        failed = thrown;
        const isOver = began || this.#request.signal?.aborted === true;
        if (isOver || !['provider_failed', 'timeout'].includes(toMeshError(thrown, 'provider_failed').code))
          break;
      } finally {
        limit.cancel();
        inFlight.set(name, (inFlight.get(name) ?? 0) - 1);
      }
    }
    this.#device.reject(failed);
    this.#end.reject(failed);
    throw failed;
  }
}

export interface ModelGateway extends AsyncDisposable {
  readonly url: string;
}

/** The routes alone: token and hosts are the gateway's. */
export async function serveModels(
  mesh: ModelMesh,
  { clock = systemClock, firstTokenMs = 60_000 }: { clock?: Clock; firstTokenMs?: number } = {},
): Promise<ModelGateway> {
  const routes = {
    requestCapability: mesh.request,
    modelDevices: () => mesh.modelDevices,
    clock,
    firstTokenMs,
  };
  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    response.on('error', () => undefined);
    const address = splitUrl(request.url ?? '');
    if (await answerOpenAi(request, response, address, routes)) return;
    if (await answerOllama(request, response, address, routes)) return;
    response.writeHead(404).end();
  };
  const server = createServer((request, response) => void answer(request, response));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() {
      server.close();
      server.closeAllConnections();
      await once(server, 'close');
    },
  };
}
