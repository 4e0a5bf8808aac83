import assert from 'node:assert/strict';
import { once } from 'node:events';
import { request as httpRequest } from 'node:http';
import type { IncomingMessage } from 'node:http';
import { after, before, describe, test } from 'node:test';
import { narrowRights, memberRights } from '@cocoon-mesh/protocol';
import type { FeatureDevice } from '../feature-devices.contract.ts';
import { Devices } from '../feature-devices.contract.ts';
import type { TaskView } from '../tasks/task-view.ts';

const devices = new Devices();
let laptop: FeatureDevice;
let server: FeatureDevice;
let gone: FeatureDevice;
let bare: FeatureDevice;

before(async () => {
  laptop = await devices.add('laptop');
  server = await devices.add('server', { taskLabels: ['big'], taskCommands: ['echo *'] });
  gone = await devices.add('gone');
  devices.goOffline(gone.peerId);
  bare = await devices.add('bare', { disabledCapabilities: ['tasks', 'knowledgebase'] });
});

after(async () => devices[Symbol.asyncDispose]());

async function added(device: FeatureDevice, task: object, query = ''): Promise<TaskView> {
  const { status, body } = await device.ask<TaskView>('POST', `/tasks${query}`, task);
  assert.equal(status, 201, JSON.stringify(body));
  return body;
}

/** Its log to the end of the task. */
async function followed(device: FeatureDevice, id: string, query = ''): Promise<string> {
  return (await device.fetch('GET', `/tasks/${id}/logs?follow=1${query}`)).text();
}

describe('tasks at the gateway', () => {
  test('are made, shown, changed and removed', async () => {
    const task = await added(laptop, { title: 'one', labels: ['a'], input: { n: 1 } });
    assert.equal(task.device, 'laptop');
    assert.equal(task.device_id, laptop.peerId);
    assert.equal(task.status, 'pending');
    const changed = await laptop.ask<TaskView>('PATCH', `/tasks/${task.id}`, { title: 'two', version: 1 });
    assert.deepEqual([changed.status, changed.body.title, changed.body.version], [200, 'two', 2]);
    const shown = await laptop.ask<TaskView>('GET', `/tasks/${task.id.toUpperCase()}`);
    assert.deepEqual(shown.body, changed.body);
    const removed = await laptop.ask<TaskView>('DELETE', `/tasks/${task.id}`);
    assert.deepEqual(removed.body, { ...changed.body, deleted: true });
    assert.equal(await laptop.refusal('GET', `/tasks/${task.id}`), '404 task_not_found');
  });

  test('run, and their log is followed to its end', async () => {
    const task = await added(laptop, {
      title: 'hello',
      command: 'cat; echo done >&2',
      input: 'x',
      run: true,
    });
    assert.equal(task.status, 'running');
    assert.equal(await followed(laptop, task.id), '"x"\ndone\n');
    const lines = await laptop.fetch('GET', `/tasks/${task.id}/logs?offset=4`, undefined, {
      accept: 'application/x-ndjson',
    });
    assert.deepEqual(JSON.parse(await lines.text()), { offset: 4, log: 'done\n' });
  });

  test('of another device are that device’s, whoever asks', async () => {
    const task = await added(laptop, { title: 'there', command: 'echo far', run: true }, '?device=server');
    assert.deepEqual([task.device, task.device_id], ['server', server.peerId]);
    assert.equal(await followed(laptop, task.id, '&device=server'), 'far\n');
    assert.equal(await laptop.refusal('GET', `/tasks/${task.id}`), '404 task_not_found');
    const shown = await server.ask<TaskView>('GET', `/tasks/${task.id}`);
    assert.equal(shown.body.status, 'completed');
    const stopped = await added(server, { title: 'waits' });
    const cancelled = await laptop.ask<TaskView>(
      'POST',
      `/tasks/${stopped.id}/cancel?device=${server.peerId}`,
    );
    assert.equal(cancelled.body.status, 'cancelled');
  });

  test('that need what a device lacks are refused with the devices that have it', async () => {
    const { status, body } = await laptop.ask<{ code: string; hint: string }>('POST', '/tasks', {
      title: 'big',
      requires: ['label:big'],
    });
    assert.deepEqual([status, body.code], [409, 'cannot_run']);
    assert.match(body.hint, /It can run on server: .* --device server\./);
    const hosts = await laptop.ask('GET', '/tasks/hosts?requires=label:big');
    assert.deepEqual(hosts.body, { devices: ['server'] });
    const none = await laptop.ask<{ hint: string }>('POST', '/tasks', {
      title: 'x',
      requires: ['label:huge'],
    });
    assert.match(none.body.hint, /None of your devices/);
    assert.equal(
      (await added(laptop, { title: 'big', requires: ['label:big'] }, '?device=server')).device,
      'server',
    );
  });

  test('whose command the device refuses are not even made when they were to run at once', async () => {
    const count = async () =>
      (await server.ask<{ tasks: [] }>('GET', '/aggregate/tasks?device=server')).body.tasks.length;
    const before = await count();
    assert.equal(
      await laptop.refusal('POST', '/tasks?device=server', { title: 'x', command: 'rm -rf /', run: true }),
      '403 command_refused',
    );
    assert.equal(
      await laptop.refusal('POST', '/tasks?device=server', { title: 'x', run: true }),
      '400 bad_task',
    );
    assert.equal(await count(), before);
  });

  test('are said to run by whoever does them by hand, and by nobody when they have a command', async () => {
    const byHand = await added(laptop, { title: 'water the plants' });
    const begun = await laptop.ask<TaskView>('PATCH', `/tasks/${byHand.id}`, { status: 'running' });
    assert.equal(begun.body.status, 'running');
    const { id } = await added(laptop, { title: 'idle', command: 'echo on' });
    assert.equal(
      await laptop.refusal('PATCH', `/tasks/${id}`, { status: 'running' }),
      '409 bad_status_change',
    );
    await laptop.ask('POST', `/tasks/${id}/run`);
    assert.equal(await followed(laptop, id), 'on\n');
  });

  test('are refused in words: what is wrong, and what is not there', async () => {
    const { id } = await added(laptop, { title: 'target' });
    const unknown = '0193b5a0-7c1e-7a33-9c55-0f3c1de1a001';
    let deep = '1';
    for (let i = 0; i < 100_000; i++) deep = `[${deep}]`;
    const table: readonly (readonly [string, string, unknown, string])[] = [
      ['GET', '/tasks/nonsense', undefined, '400 usage'],
      ['GET', `/tasks/${unknown.replace('-7a33', '-4a33')}`, undefined, '400 usage'],
      ['GET', `/tasks/${unknown}`, undefined, '404 task_not_found'],
      ['GET', `/tasks/${unknown}/logs`, undefined, '404 task_not_found'],
      ['POST', `/tasks/${unknown}/run`, undefined, '404 task_not_found'],
      ['GET', `/tasks/${id}?device=nobody`, undefined, '404 device_not_found'],
      ['GET', `/tasks/${id}?device=gone`, undefined, '503 device_offline'],
      ['GET', `/tasks/${id}?device=bare`, undefined, '404 capability_off'],
      ['GET', `/tasks/${id}?nonsense=1`, undefined, '400 usage'],
      ['GET', `/tasks/${id}/logs?offset=-1`, undefined, '400 usage'],
      ['GET', '/tasks', undefined, '404 not_found'],
      ['PUT', `/tasks/${id}`, '{}', '404 not_found'],
      ['POST', '/tasks', '{', '400 bad_message'],
      ['POST', '/tasks', {}, '400 bad_task'],
      ['POST', '/tasks', { title: 'x', nonsense: 1 }, '400 bad_task'],
      ['POST', '/tasks', { title: 'a\u0000b' }, '400 bad_task'],
      ['POST', '/tasks', { title: 'x', labels: ['NO'] }, '400 bad_task'],
      ['POST', '/tasks', { title: 'x', requires: ['cheese'] }, '400 bad_filter'],
      ['POST', '/tasks', `{"title":"x","input":${deep}}`, '400 bad_task'],
      ['POST', '/tasks', { title: 'x'.repeat(501) }, '400 bad_task'],
      ['POST', '/tasks', { title: 'x'.repeat(10_000_000) }, '413 message_too_large'],
      ['PATCH', `/tasks/${id}`, { status: 'done' }, '400 bad_task'],
      ['PATCH', `/tasks/${id}`, { title: 'x', version: 7 }, '409 task_conflict'],
      ['POST', `/tasks/${id}/run`, undefined, '409 cannot_run'],
    ];
    const before = await laptop.ask('GET', '/aggregate/tasks?device=laptop');
    for (const [method, path, body, expected] of table)
      assert.equal(await laptop.refusal(method, path, body), expected, `${method} ${path}`);
    await laptop.ask('POST', `/tasks/${id}/cancel`);
    assert.equal(
      await laptop.refusal('PATCH', `/tasks/${id}`, { status: 'pending' }),
      '409 bad_status_change',
    );
    assert.equal(
      JSON.stringify((before.body as { tasks: { id: string }[] }).tasks.map((task) => task.id)),
      JSON.stringify(
        (
          await laptop.ask<{ tasks: { id: string }[] }>('GET', '/aggregate/tasks?device=laptop')
        ).body.tasks.map((task) => task.id),
      ),
    );
  });

  test('keep what looks like SQL as it is', async () => {
    const evil = `'); drop table task; --"\u2028' or 1=1`;
    const task = await added(laptop, {
      title: evil,
      description: evil,
      command: evil,
      input: { [evil]: evil },
    });
    const { body } = await laptop.ask<TaskView>('GET', `/tasks/${task.id}`);
    assert.deepEqual(
      [body.title, body.description, body.command, body.input],
      [evil, evil, evil, { [evil]: evil }],
    );
    const found = await laptop.lines('/query', { query_type: 'search_tasks', params: { text: evil } });
    assert.ok('result' in (found.at(-1) ?? {}));
  });

  test('need the token, like everything else', async () => {
    for (const [method, path] of [
      ['POST', '/tasks'],
      ['POST', '/query'],
      ['GET', '/aggregate/tasks'],
    ] as const) {
      const response = await fetch(`${laptop.gateway.url}${path}`, { method });
      assert.equal(response.status, 401, path);
    }
  });

  test('are told as events: made, running, ended, removed', async () => {
    const request = httpRequest(`${laptop.gateway.url}/events`, {
      headers: { authorization: 'Bearer test-token-of-the-gateway-that-is-long-enough' },
    });
    request.end();
    const [response] = (await once(request, 'response')) as [IncomingMessage];
    const events = taskEvents(response);
    const { id } = await added(laptop, { title: 'watched', command: 'true', run: true });
    const seen: string[] = [];
    for await (const event of events) {
      if (event.id !== id) continue;
      seen.push(event.deleted ? 'deleted' : event.status);
      if (event.status === 'completed') await laptop.ask('DELETE', `/tasks/${id}`);
      if (event.deleted) break;
    }
    assert.deepEqual(seen, ['pending', 'running', 'completed', 'deleted']);
    request.destroy();
  });
});

describe('tasks for peers', () => {
  test('need the right that each request takes, and another request on that stream is refused', async () => {
    const { id } = await added(server, { title: 'theirs' });
    devices.rights = memberRights.map((right) =>
      right.protocol === 'tasks' ? { ...right, verbs: ['read'] as const } : right,
    ) as typeof memberRights;
    try {
      assert.equal((await laptop.ask('GET', `/tasks/${id}?device=server`)).status, 200);
      for (const [method, path, body] of [
        ['POST', '/tasks?device=server', { title: 'x' }],
        ['PATCH', `/tasks/${id}?device=server`, { title: 'x' }],
        ['DELETE', `/tasks/${id}?device=server`, undefined],
        ['POST', `/tasks/${id}/run?device=server`, undefined],
        ['POST', `/tasks/${id}/cancel?device=server`, undefined],
      ] as const)
        assert.equal(await laptop.refusal(method, path, body), '403 denied', `${method} ${path}`);
      const { body } = await laptop.ask<{ hint: string }>('POST', `/tasks/${id}/run?device=server`);
      assert.match(body.hint, /remote_tasks/);
      devices.rights = memberRights.map((right) =>
        right.protocol === 'tasks' ? { ...right, verbs: ['read', 'run'] as const } : right,
      ) as typeof memberRights;
      assert.equal(
        await laptop.refusal('POST', '/tasks?device=server', { title: 'x', command: 'echo x', run: true }),
        '403 denied',
        'running a new task is also making one',
      );
      devices.rights = narrowRights(['web'], []);
      assert.equal(await laptop.refusal('GET', `/tasks/${id}?device=server`), '403 denied');
    } finally {
      devices.rights = memberRights;
    }
  });

  test('are off where they were switched off, at home and from elsewhere', async () => {
    assert.equal(await bare.refusal('POST', '/tasks', { title: 'x' }), '404 capability_off');
    assert.equal(await laptop.refusal('POST', '/tasks?device=bare', { title: 'x' }), '404 capability_off');
    const { body } = await laptop.ask<{ devices: { name: string }[] }>('GET', '/aggregate/tasks');
    assert.equal(
      body.devices.some(({ name }) => name === 'bare'),
      false,
    );
    const named = await laptop.ask<{ devices: { error: { code: string } }[] }>(
      'GET',
      '/aggregate/tasks?device=bare',
    );
    assert.equal(named.body.devices[0]?.error.code, 'capability_off');
  });
});

type TaskEvent = TaskView & { readonly deleted?: true };

async function* taskEvents(response: IncomingMessage): AsyncGenerator<TaskEvent> {
  let text = '';
  response.setEncoding('utf8');
  for await (const chunk of response) {
    text += String(chunk);
    const events = text.split('\n\n');
    text = events.pop() ?? '';
    for (const event of events) {
      const [, data] = /^event: task\ndata: (.*)$/.exec(event) ?? [];
      if (data !== undefined) yield JSON.parse(data) as TaskEvent;
    }
  }
}
