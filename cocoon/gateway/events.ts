/** `GET /events`: what happens in the mesh, as server-sent events: `devices` with the whole list,
 * `link`, and `task` for each change of a task of this device. */

import type { ServerResponse } from 'node:http';
import type { Mesh } from '@cocoon-mesh/mesh';
import type { Clock, Timer } from '@cocoon-mesh/protocol';
import { every } from '@cocoon-mesh/protocol';
import type { DeviceView } from '../device-view.ts';
import type { TaskView } from '../tasks/task-view.ts';

/** Many changes at once are one event. */
const gatherMs = 50;
/** Comments, so that a dead reader is noticed and a proxy in between keeps the connection. */
const keepAliveMs = 15_000;
/** A reader that does not read is dropped. */
const maxWaitingBytes = 1024 * 1024;

export interface EventSource {
  readonly mesh: Mesh;
  readonly clock: Clock;
  readonly devices: () => readonly DeviceView[];
  /** Tells of each change. @returns ends it */
  readonly tasks: WatchTasks;
}

/** A task of this device as it is now, or the id of one that is gone. */
export type TaskEvent =
  | TaskView
  | { readonly id: string; readonly device: string; readonly device_id: string; readonly deleted: true };
export type WatchTasks = (changed: (event: TaskEvent) => void) => () => void;

/** Runs until the reader goes away. */
export function sendEvents(response: ServerResponse, { mesh, clock, devices, tasks }: EventSource): void {
  let gathering: Timer | null = null;
  const send = (text: string): void => {
    if (response.writableLength > maxWaitingBytes) response.destroy();
    else response.write(text);
  };
  const sendDevices = (): void => {
    gathering = null;
    send(event('devices', { cocoons: devices() }));
  };
  const sendLink = (peerId: string, up: boolean): void => {
    const view = devices().find((device) => device.peer_id === peerId);
    send(
      event('link', {
        device: view?.name ?? null,
        device_id: peerId,
        up,
        path: view?.path ?? null,
        engine: view?.engine ?? null,
      }),
    );
  };
  const stops = [
    mesh.on('devices', () => (gathering ??= clock.after(gatherMs, sendDevices))),
    mesh.on('session', sendLink),
    tasks((changed) => send(event('task', changed))),
  ];
  const keepAlive = every(clock, keepAliveMs, () => send(': still here\n\n'));
  response.on('close', () => {
    for (const stop of stops) stop();
    keepAlive.cancel();
    gathering?.cancel();
  });
  response.writeHead(200, {
    'content-type': 'text/event-stream',
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
  });
  sendDevices();
}

function event(name: string, data: unknown): string {
  return `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`;
}
