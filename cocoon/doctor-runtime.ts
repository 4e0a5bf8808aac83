/** Whether models in folders can run here: what `doctor` says with and without a running daemon. */

import { checkOnnxRuntime } from '@cocoon-mesh/ai/onnx-check.node.ts';
import type { Clock } from '@cocoon-mesh/protocol/clock.ts';
import type { Finding } from './doctor.ts';
import { ok, warn } from './doctor.ts';

export async function runtimeFinding(clock: Clock): Promise<Finding> {
  const problem = await checkOnnxRuntime({ clock });
  return problem === null
    ? ok('onnx runtime', 'computes as it should')
    : warn('onnx runtime', problem, 'Only models in folders need it; everything else works without.');
}
