import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { deviceFacts } from './device-facts.node.ts';
import type { DeviceFactsOptions } from './device-facts.node.ts';
import { missingRequirements, parseRequirement } from './requirements.ts';
import { noFacts } from './runner-doubles.contract.ts';

describe('requirements', () => {
  test('that are met leave nothing to say', async () => {
    const requires = ['memory>=4g', 'memory>=3.5G', 'cpus>=2', 'label:fast', 'capability:llm.chat@^1.0.0'];
    assert.deepEqual(await missingRequirements(requires, noFacts), []);
    assert.deepEqual(await missingRequirements([], noFacts), []);
  });

  test('that are not met are said in a sentence each, once', async () => {
    const requires = ['docker', 'gpu', 'memory>=8gib', 'cpus>=4', 'label:slow', 'capability:x@1', 'gpu'];
    assert.deepEqual(await missingRequirements(requires, noFacts), [
      'It has neither docker nor podman.',
      'It has no GPU.',
      'It has 4 GB of memory, and 8.59 GB are needed.',
      'It has 2 processor cores, and 4 are needed.',
      'It has no label slow.',
      'It does not offer x 1.',
    ]);
  });

  test('that are not understood are refused by name, whatever stands beside them', async () => {
    const unknown = [
      'dockers',
      'Docker',
      'memory>8g',
      'memory>=8',
      'memory>=xg',
      'memory>=8g;',
      'cpus>=',
      'cpus=4',
    ];
    for (const text of [
      ...unknown,
      'label:',
      'label:A',
      'capability:',
      'capability:x@',
      'constructor',
      'windows',
    ])
      await assert.rejects(
        missingRequirements(['gpu', text], noFacts),
        (thrown: Error & { code?: string }) =>
          thrown.code === 'bad_filter' && thrown.message.includes(JSON.stringify(text)),
        text,
      );
    const refusing = { ...noFacts, hasCapability: () => assert.fail('no range') };
    await assert.rejects(missingRequirements(['capability:x@1..2'], refusing), { code: 'bad_filter' });
  });

  test('of memory count as it is sold', () => {
    assert.deepEqual(parseRequirement('memory>=8g'), { kind: 'memory', bytes: 8e9 });
    assert.deepEqual(parseRequirement('memory>=512mi'), { kind: 'memory', bytes: 512 * 2 ** 20 });
    assert.deepEqual(parseRequirement('memory>=1.5tb'), { kind: 'memory', bytes: 1.5e12 });
  });
});

describe('what a device finds about itself', () => {
  let folder = '';
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'cocoon-facts-'));
  });
  after(() => rm(folder, { recursive: true }));

  const facts = (options: Partial<DeviceFactsOptions>) =>
    deviceFacts({
      clock: new SteppedClock(),
      labels: [],
      hasCapability: () => false,
      environment: {},
      platform: 'linux',
      arch: 'x64',
      devices: join(folder, 'none'),
      ...options,
    });

  test('a GPU is a device of NVIDIA or AMD, a render node, or Metal', async () => {
    assert.equal(await facts({}).hasGpu(), false);
    for (const [n, name] of ['nvidia0', 'kfd', 'dri/renderD128'].entries()) {
      const devices = join(folder, `dev${n}`);
      await mkdir(join(devices, 'dri'), { recursive: true });
      assert.equal(await facts({ devices }).hasGpu(), false, name);
      await writeFile(join(devices, name), '');
      assert.equal(await facts({ devices }).hasGpu(), true, name);
    }
    assert.equal(await facts({ platform: 'darwin', arch: 'arm64' }).hasGpu(), true);
    assert.equal(await facts({ platform: 'darwin', arch: 'x64' }).hasGpu(), false);
  });

  test('containers need the program and a socket that answers', async () => {
    const socket = join(folder, 'engine.sock');
    const environment = { PATH: folder, DOCKER_HOST: `unix://${socket}` };
    assert.equal(await facts({ environment }).missingDocker(), 'It has neither docker nor podman.');
    await writeFile(join(folder, 'podman'), '');
    assert.equal(await facts({ environment }).missingDocker(), 'It has neither docker nor podman.');
    await chmod(join(folder, 'podman'), 0o700);
    const stopped = 'Its docker does not run, or may not be used.';
    assert.equal(await facts({ environment }).missingDocker(), stopped);
    const server = createServer((connection) => connection.destroy()).listen(socket);
    await once(server, 'listening');
    try {
      assert.equal(await facts({ environment }).missingDocker(), null);
      assert.equal(await facts({ environment, sockets: [join(folder, 'podman')] }).missingDocker(), stopped);
    } finally {
      server.close();
      await once(server, 'close');
    }
    assert.equal(await facts({ environment }).missingDocker(), stopped);
  });

  test('memory and cores are those of this machine', () => {
    assert.ok(facts({}).memoryBytes > 1e8);
    assert.ok(facts({}).cpus >= 1);
  });
});
