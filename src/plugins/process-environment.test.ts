import assert from 'node:assert/strict';
import { it } from 'node:test';
import { processEnvironment } from './process-environment.ts';

it('a plugin is told where programs and files are, and no secret, nothing of ours, nothing that loads code', () => {
  const environment = {
    PATH: '/bin',
    HOME: '/home/anna',
    LC_ALL: 'C.UTF-8',
    COCOON_SECRET: 'x',
    COCOON_HOME: '/x',
    COCOON_LLM_API_KEY: 'x',
    SIGNALING_TURN_SECRET: 'x',
    AWS_SECRET_ACCESS_KEY: 'x',
    GITHUB_TOKEN: 'x',
    NODE_OPTIONS: '--require /x',
    LD_PRELOAD: '/x',
    EMPTY: undefined,
  };
  assert.deepEqual(processEnvironment(environment), {
    PATH: '/bin',
    HOME: '/home/anna',
    LC_ALL: 'C.UTF-8',
  });
});
