/**
 * The HTTP routes: for programs that ask without staying connected. What is not a route is a file of the web UI.
 * A device of somebody else and one that does not exist give the same answer on the same way.
 */

import type { IncomingMessage, ServerResponse } from 'node:http';
import type { DeviceEntry, DeviceRecord, Schema } from '@cocoon-mesh/protocol';
import {
  MeshError,
  authChallengeRequest,
  authTokenRequest,
  badRange,
  claimRequest,
  decodeJson,
  limits,
  missingProtocol,
  rangeField,
  toMeshError,
  verifyDeviceRecord,
} from '@cocoon-mesh/protocol';
import type { Access } from './access-token.ts';
import type { Desk } from './desk.ts';
import { answer, answerJson, answerProblem } from './http-answer.ts';
import { matching } from './lookup.ts';
import { isVisible } from './presence.ts';
import { dialledUrl } from './public-url.ts';
import type { ServerLimits } from './server-limits.ts';
import type { SharedCocoon } from './share-store.ts';
import type { OpenChallenges } from './sign-in.ts';
import { verifyChallenge } from './sign-in.ts';
import type { StoredDevice } from './store.ts';
import type { WebFiles } from './web-files.ts';

export interface IceServer {
  readonly urls: readonly string[];
  readonly username?: string;
  readonly credential?: string;
}

type AuthTokenRequest = typeof authTokenRequest extends Schema<infer T> ? T : never;

/** Routes on the way of somebody whom the server may not know yet (`newcomers.ts`). */
const newcomersPaths: ReadonlySet<string> = new Set(['/auth/challenge', '/auth/token', '/claims']);

interface HttpApiOptions {
  readonly desk: Desk;
  readonly challenges: OpenChallenges;
  readonly webFiles: WebFiles | null;
  readonly iceServers: readonly IceServer[];
  readonly publicUrl: string | null;
  readonly secure: boolean;
  readonly limits: ServerLimits;
}

interface Call {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly address: string;
  readonly query: URLSearchParams;
  /** What stood in the place of `{id}`. */
  readonly id: string;
}

type Handler = (call: Call) => Promise<void>;

interface Route {
  readonly method: 'GET' | 'POST';
  readonly pattern: RegExp;
  readonly handle: Handler;
}

export class HttpApi {
  readonly #options: HttpApiOptions;
  readonly #routes: readonly Route[];

  constructor(options: HttpApiOptions) {
    this.#options = options;
    const route = (method: Route['method'], path: string, handle: Handler): Route => ({
      method,
      pattern: new RegExp(`^${path.replace('{id}', '([^/]+)')}$`),
      handle,
    });
    this.#routes = [
      route('GET', '/healthz', (call) => this.#health(call)),
      route('GET', '/metrics', (call) => this.#metrics(call)),
      route('GET', '/\\.well-known/jwks\\.json', (call) => this.#jwks(call)),
      route('POST', '/auth/challenge', (call) => this.#challenge(call)),
      route('POST', '/auth/token', (call) => this.#token(call)),
      route('GET', '/cocoons', (call) => this.#cocoons(call)),
      route('GET', '/cocoons/by-capability', (call) => this.#byCapability(call)),
      route('GET', '/cocoons/{id}', (call) => this.#cocoon(call)),
      route('GET', '/cocoons/{id}/services', (call) => this.#services(call)),
      route('POST', '/claims', (call) => this.#claim(call)),
      route('GET', '/ice-servers', (call) => this.#iceServers(call)),
      route('GET', '/ws', async () => {
        throw new MeshError('unsupported', 'This route takes WebSocket connections');
      }),
    ];
  }

  /** Answers whatever comes. */
  async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { metrics, log } = this.#options.desk.parts;
    try {
      await this.#route(request, response);
    } catch (thrown) {
      const error = toMeshError(thrown);
      if (error.code === 'internal' || error.code === 'storage_failed')
        log.error({ error: String(thrown) }, 'An HTTP request failed');
      const allow = thrown instanceof WrongMethod ? { Allow: thrown.allow } : {};
      answerProblem(request, response, error, allow);
    }
    metrics.httpRequests.inc({ status: String(response.statusCode) });
  }

  async #route(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { desk, webFiles } = this.#options;
    const address = request.socket.remoteAddress ?? '';
    const { path, query } = parseTarget(request.url ?? '');
    if (path !== '/healthz')
      await desk.parts.rates.countAddress(newcomersPaths.has(path) ? 'message' : 'http', address);
    const method = request.method === 'HEAD' ? 'GET' : request.method;
    const routes = this.#routes.filter(({ pattern }) => pattern.test(path));
    const found = routes.find((route) => route.method === method);
    if (found) {
      const id = found.pattern.exec(path)?.[1] ?? '';
      await found.handle({ request, response, address, query, id });
      return;
    }
    if (routes.length > 0) throw new WrongMethod(routes.map((route) => route.method));
    if (method !== 'GET') throw webFiles?.has(path) ? new WrongMethod(['GET']) : new MeshError('not_found');
    if (!(await webFiles?.serve(path, request, response))) throw new MeshError('not_found');
  }

  // Open to everybody

  async #health({ response }: Call): Promise<void> {
    answerJson(response, { status: 'ok' });
  }

  async #metrics({ response }: Call): Promise<void> {
    const { registry } = this.#options.desk.parts.metrics;
    answer(response, 200, registry.contentType, await registry.metrics());
  }

  async #jwks({ response }: Call): Promise<void> {
    answerJson(response, await this.#options.desk.parts.accessTokens.jwks());
  }

  async #challenge({ request, response }: Call): Promise<void> {
    const { peer_id: peerId, nonce } = await this.#body(request, authChallengeRequest);
    const { serverNonce, time } = this.#options.challenges.open(peerId, nonce);
    answerJson(response, { nonce: serverNonce, time });
  }

  async #token({ request, response, address }: Call): Promise<void> {
    const { audit } = this.#options.desk.parts;
    const body = await this.#body(request, authTokenRequest);
    try {
      const { token, expiresIn } = await this.#signIn(body, request, address);
      answerJson(response, { access_token: token, expires_in: expiresIn });
    } catch (thrown) {
      audit.append('sign_in.refused', { peer: body.peer_id, address, code: toMeshError(thrown).code });
      throw thrown;
    }
  }

  async #signIn(body: AuthTokenRequest, request: IncomingMessage, address: string) {
    const { desk, challenges, publicUrl, secure } = this.#options;
    const { rates, newcomers, ownership, accessTokens, oidc } = desk.parts;
    const { peer_id: peerId, nonce: clientNonce, server_nonce: serverNonce, time } = body;
    const challenge = challenges.take({ peerId, clientNonce, serverNonce, time });
    // A device without a membership gets a token that is good for claims, and those are counted.
    if (body.membership) await newcomers.admitDevice(challenge, address);
    return newcomers.judge(challenge, address, async () => {
      await verifyChallenge(challenge, dialledUrl(request, publicUrl, secure), body.signature);
      await rates.countIdentity('sign_in', peerId);
      await oidc?.assertPasses(body.oidc_token);
      return body.membership
        ? accessTokens.signForMember(await ownership.check(peerId, body.membership))
        : accessTokens.signForClaims(peerId);
    });
  }

  // With a token

  async #claim({ request, response, address }: Call): Promise<void> {
    const access = await this.#access(request);
    const { redemption } = await this.#body(request, claimRequest);
    const redeemer = { peerId: access.peerId, owner: access.scope === 'member' ? access.owner : null };
    answerJson(response, { receipt: await this.#options.desk.redeem(redeemer, redemption, address) });
  }

  async #cocoons({ request, response }: Call): Promise<void> {
    const { owner } = await this.#member(request);
    const { store, ownership } = this.#options.desk.parts;
    const [own, shared] = await Promise.all([
      store.devices(owner, ownership.nowSeconds),
      store.shares.withCoOwner(owner, ownership.nowSeconds),
    ]);
    const cocoons = await Promise.all([
      ...own.map((device) => this.#describe(device)),
      ...shared.map((cocoon) => this.#describeShared(cocoon)),
    ]);
    answerJson(response, { cocoons: cocoons.filter((cocoon) => cocoon !== null) });
  }

  async #cocoon({ request, response, id }: Call): Promise<void> {
    answerJson(response, await this.#described(request, id));
  }

  async #services({ request, response, id }: Call): Promise<void> {
    const { services } = await this.#described(request, id);
    answerJson(response, { services });
  }

  async #byCapability({ request, response, query }: Call): Promise<void> {
    const { owner, peerId } = await this.#member(request);
    const { presence, rates } = this.#options.desk.parts;
    await rates.countIdentity('lookup', peerId);
    const protocol = query.get('protocol');
    if (protocol === null) throw missingProtocol();
    const range = query.get('version') ?? '*';
    if (!rangeField.safeParse(range).success) throw badRange();
    const cocoons = matching(presence.ofOwner(owner), protocol, range).map(({ peer }) => ({
      ...describedRecord(peer.record),
      owner,
      shared: false,
      online: true,
      load: peer.load,
      last_seen: presence.entry(peer).last_seen,
    }));
    answerJson(response, { cocoons });
  }

  async #iceServers({ request, response }: Call): Promise<void> {
    await this.#member(request);
    answerJson(response, { ice_servers: this.#options.iceServers });
  }

  /** Unknown and foreign devices take the same way, down to the queries. @throws MeshError not_found */
  async #described(request: IncomingMessage, id: string) {
    const { owner } = await this.#member(request);
    const { store, ownership } = this.#options.desk.parts;
    const device = await store.device(owner, id, ownership.nowSeconds);
    const cocoon = await store.shares.find(owner, id, ownership.nowSeconds);
    if (device) return this.#describe(device);
    const described = cocoon && (await this.#describeShared(cocoon));
    if (!described) throw new MeshError('not_found');
    return described;
  }

  async #describe(device: StoredDevice) {
    const entry = this.#options.desk.parts.presence.describe(device);
    return describedEntry(entry, device.membership.owner, false);
  }

  /** Null until the cocoon has said what the co-owner may see. */
  async #describeShared({ share, ...cocoon }: SharedCocoon) {
    if (!isVisible(share)) return null;
    const entry = this.#options.desk.parts.presence.describeShared({ ...cocoon, share });
    return describedEntry(entry, share.owner, true);
  }

  /** @throws MeshError unauthorized | rate_limited */
  async #access(request: IncomingMessage): Promise<Access> {
    const { accessTokens, rates, ownership } = this.#options.desk.parts;
    const [, token] = /^Bearer +([\w.~+/=-]+)$/i.exec(request.headers.authorization ?? '') ?? [];
    if (token === undefined) throw new MeshError('unauthorized');
    const access = await accessTokens.verify(token);
    await rates.countIdentity('http', access.peerId);
    // A token made before a revocation is worth as little as one made after it.
    if (access.scope === 'member') await ownership.assertStanding({ ...access, expires: null });
    return access;
  }

  /** @throws MeshError unauthorized | revoked | denied | rate_limited */
  async #member(request: IncomingMessage): Promise<Access & { readonly scope: 'member' }> {
    const access = await this.#access(request);
    if (access.scope !== 'member') throw new MeshError('denied', 'This token is good for claims only');
    return access;
  }

  async #body<T>(request: IncomingMessage, schema: Schema<T>): Promise<T> {
    return decodeJson(
      schema,
      await readBody(request, this.#options.limits.maxHttpBodyBytes),
      limits.maxSignalingMessageBytes,
    );
  }
}

class WrongMethod extends MeshError {
  readonly allow: string;

  constructor(methods: readonly string[]) {
    const allow = methods.flatMap((method) => (method === 'GET' ? ['GET', 'HEAD'] : [method])).join(', ');
    super('method_not_allowed', `This route takes ${allow}`);
    this.allow = allow;
  }
}

function parseTarget(target: string): { path: string; query: URLSearchParams } {
  const end = target.indexOf('?');
  const path = end === -1 ? target : target.slice(0, end);
  if (!path.startsWith('/')) throw new MeshError('bad_message', 'The request names no path');
  return { path, query: new URLSearchParams(end === -1 ? '' : target.slice(end + 1)) };
}

async function readBody(request: IncomingMessage, maxBytes: number): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  let length = 0;
  for await (const piece of request as AsyncIterable<Uint8Array>) {
    length += piece.length;
    if (length > maxBytes) throw new MeshError('message_too_large');
    pieces.push(piece);
  }
  return Buffer.concat(pieces);
}

async function describedEntry(entry: DeviceEntry, owner: string, shared: boolean) {
  const { peer_id: peerId, record, online, load, last_seen } = entry;
  const described = describedRecord(await verifyDeviceRecord(record, peerId));
  return { ...described, owner, shared, online, load, last_seen };
}

function describedRecord(record: DeviceRecord) {
  const { peer_id, name, kind, services, capabilities, location } = record;
  return { peer_id, name, kind, services, capabilities, location: location ?? null };
}
