/** The routes that the gateway and the control socket have in common: tasks, queries, capabilities and models. */

import type { IncomingMessage, ServerResponse } from 'node:http';
import type { CapabilityRoutes } from './capability-routes.ts';
import { answerCapabilities } from './capability-routes.ts';
import type { WatchTasks } from './events.ts';
import { answerOllama } from './ollama-routes.ts';
import type { OpenAiRoutes } from './openai-routes.ts';
import { answerOpenAi } from './openai-routes.ts';
import type { QueryRoutes } from './query-routes.ts';
import { answerQueries } from './query-routes.ts';
import type { TaskRoutes } from './task-routes.ts';
import { answerTasks } from './task-routes.ts';

export interface FeatureRoutes extends TaskRoutes, QueryRoutes, CapabilityRoutes, OpenAiRoutes {
  readonly watchTasks: WatchTasks;
}

export interface Address {
  readonly path: string;
  readonly query: URLSearchParams;
}

/** @returns false: it is none of them */
export async function answerFeatures(
  request: IncomingMessage,
  response: ServerResponse,
  address: Address,
  routes: FeatureRoutes,
): Promise<boolean> {
  return (
    (await answerTasks(request, response, address, routes)) ||
    (await answerQueries(request, response, address, routes)) ||
    (await answerCapabilities(request, response, address, routes)) ||
    (await answerOpenAi(request, response, address, routes)) ||
    (await answerOllama(request, response, address, routes))
  );
}

export function splitUrl(url: string): Address {
  const at = url.indexOf('?');
  if (at < 0) return { path: url, query: new URLSearchParams() };
  return { path: url.slice(0, at), query: new URLSearchParams(url.slice(at + 1)) };
}
