import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Task, TaskAnswer, TaskRequest } from '@cocoon-mesh/protocol';
import { MeshError, check, taskAnswerSchema } from '@cocoon-mesh/protocol';
import { sampleTask } from '@cocoon-mesh/protocol/sample-messages.ts';
import type { OpenTasks } from './task-home.ts';
import { TaskHome } from './task-home.ts';

const { id } = sampleTask;
const { signal } = new AbortController();

/** With a store that has one task, and a runner of which nothing more is needed than what a test gives. */
function home(runner: object, store: object = {}): { home: TaskHome; done: string[] } {
  const done: string[] = [];
  const get = async (wanted: string): Promise<Task> => {
    if (wanted !== id) throw new MeshError('task_not_found');
    return sampleTask;
  };
  const note = (what: string) => async (): Promise<Task> => {
    done.push(what);
    return sampleTask;
  };
  const tasks = {
    store: { get, create: note('create'), update: note('update'), delete: note('delete'), ...store },
    runner: { ended: () => null, forget: note('forget'), run: note('run'), ...runner },
  } as unknown as OpenTasks;
  return { home: new TaskHome({ use: async () => tasks }), done };
}

function answers(tasks: TaskHome, request: TaskRequest): Promise<TaskAnswer[]> {
  return Array.fromAsync(tasks.answer(request, 'peer-1', signal));
}

describe('the home of a task', () => {
  test('makes none that it cannot run, or whose command it refuses when it should run at once', async () => {
    const lacking = home({ missing: async () => ['It has no GPU.'] });
    const create = { op: 'create', task: { title: 'x', command: 'y' } } as const;
    await assert.rejects(answers(lacking.home, { ...create, run: false }), { code: 'cannot_run' });
    assert.deepEqual(lacking.done, []);
    const refusing = home({
      missing: async () => [],
      checkCommand: () => {
        throw new MeshError('command_refused');
      },
    });
    await assert.rejects(answers(refusing.home, { ...create, run: true }), { code: 'command_refused' });
    assert.deepEqual(refusing.done, []);
    await answers(refusing.home, { ...create, run: false });
    assert.deepEqual(refusing.done, ['create'], 'one that waits is run by nobody yet');
  });

  test('lets nobody say how a task ended while it runs', async () => {
    const running = home({ ended: () => Promise.resolve(sampleTask) });
    for (const status of ['completed', 'failed', 'cancelled'] as const)
      await assert.rejects(answers(running.home, { op: 'update', id, change: { status } }), {
        code: 'bad_status_change',
      });
    assert.deepEqual(running.done, []);
    await answers(running.home, { op: 'update', id, change: { title: 'y' } });
    assert.deepEqual(running.done, ['update']);
  });

  test('forgets the run and the files of a task that was removed, and of no other', async () => {
    const { home: tasks, done } = home({});
    await answers(tasks, { op: 'delete', id });
    assert.deepEqual(done, ['delete', 'forget']);
    const busy = home(
      {},
      {
        delete: async () => {
          throw new MeshError('bad_status_change');
        },
      },
    );
    await assert.rejects(answers(busy.home, { op: 'delete', id }), { code: 'bad_status_change' });
    assert.deepEqual(busy.done, []);
  });

  test('has no log for a task that is not there', async () => {
    const read: string[] = [];
    const { home: tasks } = home({
      logs: async function* () {
        read.push('log');
        yield { offset: 0, bytes: new Uint8Array([1]) };
      },
    });
    const logs = { op: 'logs', offset: 0, follow: false } as const;
    assert.equal((await answers(tasks, { ...logs, id })).length, 1);
    const unknown = id.replace(/.$/, (last) => (last === '0' ? '1' : '0'));
    await assert.rejects(answers(tasks, { ...logs, id: unknown }), { code: 'task_not_found' });
    assert.deepEqual(read, ['log']);
  });

  test('says what it lacks in sentences that its answer can hold', async () => {
    const { home: tasks } = home({ missing: async () => ['x'.repeat(1000)] });
    const [answer] = await answers(tasks, { op: 'can_run', requires: ['docker'] });
    assert.equal(check(taskAnswerSchema, answer).missing?.[0]?.length, 256);
  });
});
