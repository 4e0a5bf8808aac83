import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { systemClock } from '@cocoon-mesh/protocol';
import { checkOnnxRuntime } from './onnx-check.node.ts';

describe('the check of the ONNX runtime', { timeout: 60_000 }, () => {
  it('finds nothing wrong where it computes what it should', async () => {
    assert.equal(await checkOnnxRuntime({ clock: systemClock }), null);
  });

  it('says what is missing', async () => {
    assert.match(
      (await checkOnnxRuntime({ clock: systemClock, runtime: 'onnxruntime-that-is-not-there' })) ?? '',
      /not installed on this device: install it with `npm install onnxruntime-that-is-not-there`/,
    );
  });

  it('says why a package that is there does not do', async () => {
    const problem = await checkOnnxRuntime({ clock: systemClock, runtime: 'zod' });
    assert.match(problem ?? '', /model file does not load/);
  });
});
