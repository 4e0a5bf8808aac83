/**
 * `npm run demo`: a mesh of three cocoons on this machine (laptop, server, gpu), each a process with a home of
 * its own, with real services, tasks, files and capabilities to try every command on, and a friend with a mesh of her own, who may use one
 * service of the gpu. Ctrl-C ends everything and, unless COCOON_DEMO_HOME names a place to keep, leaves nothing
 * behind. `--check` starts it, tries some commands and ends.
 */

import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { systemClock } from '@cocoon-mesh/protocol';
import { DemoDevice } from './demo/device.ts';
import { gitServer } from './demo/git.ts';
import { DemoPostgres } from './demo/postgres.ts';
import { DemoService, clockServer, echoServer, notesServer } from './demo/services.ts';
import { fired, untilEnded } from './until-ended.ts';

interface Mesh {
  readonly laptop: DemoDevice;
  readonly server: DemoDevice;
  readonly gpu: DemoDevice;
  readonly friend: DemoDevice;
  readonly git: boolean;
  readonly postgres: boolean;
}

const sharedLimitMs = 20_000;
const checking = process.argv.includes('--check');

await untilEnded(async (ended) => {
  await using parts = new AsyncDisposableStack();
  const mesh = await start(parts);
  if (checking) {
    await check(mesh);
    return;
  }
  console.log(await guide(mesh));
  await fired(ended);
  console.log('\nEnding…');
});

async function start(parts: AsyncDisposableStack): Promise<Mesh> {
  const root = await demoHome(parts);
  const started = async (server: Parameters<typeof DemoService.start>[0]): Promise<DemoService> =>
    parts.use(await DemoService.start(server));
  console.log('Starting services…');
  const notes = await started(notesServer());
  const clock = await started(clockServer());
  const echo = await started(echoServer());
  const repository = await gitServer(await folder(root, 'git'));
  const git = repository ? await started(repository) : null;
  const postgres = await DemoPostgres.start(await folder(root, 'postgres'));
  if (postgres) parts.use(postgres);

  console.log('Starting laptop, server, gpu and a friend…');
  const laptop = parts.use(
    await DemoDevice.start(join(root, 'laptop'), ['up', '--port', '0', '--name', 'laptop']),
  );
  const enroll = async (
    name: string,
    services: readonly string[],
    more: readonly string[] = [],
    environment: Readonly<Record<string, string>> = {},
  ): Promise<DemoDevice> => {
    const token = await laptop.run('generate-token', '--expires', '5m');
    const flags = [...services.flatMap((service) => ['--service', service]), ...more];
    const args = ['run', '--token', '-', '--name', name, ...flags];
    return parts.use(await DemoDevice.start(join(root, name), args, token, environment));
  };
  const server = await enroll(
    'server',
    [
      `notes:${notes.port}:http:/`,
      `clock:${clock.port}`,
      ...(git ? [`git:${git.port}`] : []),
      ...(postgres ? [`postgres:${postgres.port}:tcp`] : []),
    ],
    [],
    // Each device keeps its tasks where it likes.
    postgres ? { COCOON_DATABASE_URL: postgres.url } : {},
  );
  const gpu = await enroll(
    'gpu',
    [`echo:${echo.port}:http:/health`],
    ['--plugin', project('examples/shout')],
  );
  await fill({ laptop, server, gpu });
  const { signaling } = laptop.ready;
  const friend = parts.use(
    await DemoDevice.start(join(root, 'friend'), ['run', '--name', 'friend', '--signaling', signaling]),
  );
  const narrow = ['--scope', 'co-own', '--cocoon', 'gpu', '--service', 'echo'];
  const token = await laptop.run('generate-token', ...narrow);
  await friend.runWith(token, 'claim', '-');
  return { laptop, server, gpu, friend, git: git !== null, postgres: postgres !== null };
}

/** Something to look at: tasks of each device, and files of one. */
async function fill({ laptop, server, gpu }: Pick<Mesh, 'laptop' | 'server' | 'gpu'>): Promise<void> {
  await laptop.run('tasks', 'add', '--title', 'Write the report');
  await server.run('tasks', 'add', '--title', 'Back up the notes', '--command', 'date', '--run');
  await gpu.run('tasks', 'add', '--title', 'Count to three', '--command', 'seq 3', '--run');
  await server.run('kb', 'add', project('docs'));
}

function project(path: string): string {
  return resolve(import.meta.dirname, '..', path);
}

async function demoHome(parts: AsyncDisposableStack): Promise<string> {
  const kept = process.env['COCOON_DEMO_HOME'];
  if (kept) {
    await mkdir(kept, { recursive: true });
    return kept;
  }
  const root = await mkdtemp(join(tmpdir(), 'cocoon-demo-'));
  parts.defer(() => rm(root, { recursive: true, force: true }));
  return root;
}

/** Fresh each time: services of the demo keep nothing. */
async function folder(root: string, name: string): Promise<string> {
  const path = join(root, name);
  await rm(path, { recursive: true, force: true });
  await mkdir(path, { recursive: true });
  return path;
}

async function guide({ laptop, friend, git, postgres }: Mesh): Promise<string> {
  const { home, ready } = laptop;
  const clone = `git -c http.extraHeader="Authorization: Bearer $(cat ${home}/gateway.token)" clone ${ready.gateway}/proxy/server/git/cocoon.git`;
  return [
    '',
    await laptop.run('devices'),
    'You sit at the laptop. In another terminal:',
    '',
    `  export COCOON_HOME=${home}`,
    '',
    '  npx cocoon status',
    '  npx cocoon devices',
    '  npx cocoon ping gpu --count 5',
    '  npx cocoon fetch server/notes/hello.txt',
    "  npx cocoon fetch server/notes/mine.txt -X PUT -d 'from the laptop'",
    '  npx cocoon fetch server/notes/',
    '  npx cocoon fetch server/clock/                  # events, one each second; Ctrl-C ends them',
    '  npx cocoon fetch gpu/echo/anything --json',
    '  npx cocoon open gpu/echo                        # a page with a WebSocket, on an origin of its own',
    ...(postgres
      ? ['  npx cocoon forward server/postgres --port 15432 # then: psql -h 127.0.0.1 -p 15432 -U postgres']
      : []),
    ...(git ? [`  ${clone}`] : []),
    '  npx cocoon tasks list --all                     # of all three, one of them in PostgreSQL',
    '  npx cocoon tasks add --title Wait --command "sleep 60" --device gpu --run',
    '  npx cocoon kb search what may a guest do        # in the files of the server',
    '  npx cocoon request text.shout \'{"text":"hello"}\'  # a plugin of the gpu answers',
    '  npx cocoon request embeddings \'{"input":"hello"}\'',
    '  npx cocoon services add notes:8000              # offers a port of this machine',
    '  npx cocoon generate-token --expires 10m         # for one more device',
    '  npx cocoon doctor',
    '  npx cocoon logs --follow',
    '',
    'A friend has a mesh of her own, and may use one service of your gpu:',
    '',
    `  npx cocoon devices --home ${friend.home}`,
    `  npx cocoon fetch ${await sharedName(friend)}/echo/hers --home ${friend.home}`,
    '  npx cocoon owners list                          # and: npx cocoon owners remove OWNER',
    '  npx cocoon audit',
    '',
    ...(ready.web_signin
      ? ['The web page, signed in once, within 10 minutes:', `  ${ready.web_signin}`, '']
      : []),
    'Ctrl-C ends the demo.',
  ].join('\n');
}

/** What the gpu is called where it is another owner's. @throws Error when it is not there in time */
async function sharedName(friend: DemoDevice): Promise<string> {
  for (const end = systemClock.monotonic() + sharedLimitMs; systemClock.monotonic() < end;) {
    const devices = JSON.parse(await friend.run('devices', '--json')) as Described[];
    const shared = devices.find(({ name, online }) => online && name.startsWith('gpu@'));
    if (shared) return shared.name;
  }
  throw new Error('The demo does not work: the friend does not see the gpu');
}

interface Described {
  readonly name: string;
  readonly online: boolean;
  readonly services: readonly { readonly name: string; readonly healthy: boolean | null }[];
}

/** @throws Error naming what did not work */
async function check({ laptop, server, gpu, friend, git, postgres }: Mesh): Promise<void> {
  const names = (JSON.parse(await laptop.run('devices', '--json')) as { name: string }[]).map(
    ({ name }) => name,
  );
  expect(names.toSorted().join() === 'gpu,laptop,server', `devices: ${names.join()}`);
  expect((await laptop.run('ping', 'gpu', '--count', '1', '--json')).includes('"rtt_ms"'), 'ping');
  expect((await laptop.run('fetch', 'server/notes/hello.txt')).startsWith('Hello'), 'fetch from laptop');
  const devices = JSON.parse(await laptop.run('devices', '--json')) as Described[];
  const notes = devices.flatMap(({ services }) => services).find(({ name }) => name === 'notes');
  expect(notes?.healthy === true, 'the health of a service of another device');
  expect((await gpu.run('fetch', 'server/notes/')).includes('hello.txt'), 'fetch from gpu');
  expect((await server.run('fetch', 'gpu/echo/x')).includes('"url":"/x"'), 'fetch from server');
  const tasks = JSON.parse(await gpu.run('tasks', 'list', '--all', '--json')) as {
    readonly tasks: readonly { readonly device: string }[];
  };
  const homes = tasks.tasks.map(({ device }) => device).toSorted();
  expect(homes.join() === 'gpu,laptop,server', `tasks: ${homes.join()}`);
  expect(
    (await laptop.run('kb', 'search', 'setup token')).includes('server'),
    'search in files of the server',
  );
  const shouted = await laptop.run('request', 'text.shout', '{"text":"hello"}');
  expect(shouted.includes('HELLO'), 'a capability of the gpu');
  const shared = await sharedName(friend);
  expect((await friend.run('fetch', `${shared}/echo/y`)).includes('"url":"/y"'), 'fetch of what is shared');
  console.log(`Works: 3 devices and a friend's${git ? ', git' : ''}${postgres ? ', postgres' : ''}.`);
}

function expect(truth: boolean, what: string): void {
  if (!truth) throw new Error(`The demo does not work: ${what}`);
}
