import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { ErrorCode } from './errors.ts';
import { MeshError, errorCodes, isErrorCode, toMeshError } from './errors.ts';

describe('an error', () => {
  it('takes message, hint, status and exit code from the table unless told otherwise', () => {
    const error = new MeshError('device_offline');
    assert.equal(error.message, errorCodes.device_offline.message);
    assert.equal(error.status, 503);
    assert.equal(error.exitCode, 5);
    assert.equal(error.retry, true);
    assert.equal(new MeshError('denied').retry, false);
    assert.deepEqual(new MeshError('usage', 'No such flag', { hint: 'Look.' }).toJSON(), {
      code: 'usage',
      message: 'No such flag',
      hint: 'Look.',
    });
  });

  it('keeps its cause, and tells none to others', () => {
    const cause = new Error('secret path');
    const error = new MeshError('storage_failed', undefined, { cause });
    assert.equal(error.cause, cause);
    assert.ok(!JSON.stringify(error).includes('secret path'));
    assert.equal('cause' in new MeshError('internal'), false);
  });

  it('comes from anything that was thrown', () => {
    const own = new MeshError('denied');
    assert.equal(toMeshError(own), own);
    assert.equal(toMeshError(new DOMException('x', 'TimeoutError')).code, 'timeout');
    assert.equal(toMeshError(AbortSignal.abort().reason).code, 'cancelled');
    assert.equal(toMeshError(new Error('x')).code, 'internal');
    assert.equal(toMeshError('x', 'carrier_lost').code, 'carrier_lost');
    assert.equal(toMeshError(undefined).cause, undefined);
  });

  it('has a code of the table, and nothing that objects have of themselves is one', () => {
    for (const code of Object.keys(errorCodes)) assert.ok(isErrorCode(code));
    for (const other of ['', 'toString', '__proto__', 'constructor', 'nope', 7, null])
      assert.equal(isErrorCode(other), false);
  });

  it('reads as one sentence without an end mark', () => {
    for (const [code, row] of Object.entries(errorCodes)) {
      assert.match(code, /^[a-z]+(_[a-z]+)*$/);
      assert.match(row.message, /^([A-Z]|config\.toml).*[^.]$/, code);
      const { hint } = row as { hint?: string };
      if (hint !== undefined) assert.match(hint, /^[A-Z].*\.$|^Example: /, code);
    }
  });

  it('never asks for a retry that cannot help', () => {
    for (const code of Object.keys(errorCodes) as ErrorCode[]) {
      const { status, retry } = new MeshError(code);
      if (retry) assert.ok(status === 429 || status >= 502, code);
    }
  });
});
