/** A task as the gateway and `--json` show it: with the device that is its home. The names are the surface. */

import type { Device } from '@cocoon-mesh/mesh';
import type { Task } from '@cocoon-mesh/protocol';

export interface TaskView extends Task {
  readonly device: string;
  readonly device_id: string;
}

export function taskView({
  device,
  task,
}: {
  device: Pick<Device, 'name' | 'peerId'>;
  task: Task;
}): TaskView {
  const { id, ...rest } = task;
  return { id, device: device.name, device_id: device.peerId, ...rest };
}
