/**
 * `npm run demo`: a mesh of three cocoons on this machine (laptop, server, gpu), each a process with a home of
 * its own, with real services to try every command on. Ctrl-C ends everything and, unless COCOON_DEMO_HOME names
 * a place to keep, leaves nothing behind. `--check` starts it, tries some commands and ends.
 */

import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DemoDevice } from './demo/device.ts';
import { gitServer } from './demo/git.ts';
import { DemoPostgres } from './demo/postgres.ts';
import { DemoService, clockServer, echoServer, notesServer } from './demo/services.ts';
import { fired, untilEnded } from './until-ended.ts';

interface Mesh {
  readonly laptop: DemoDevice;
  readonly server: DemoDevice;
  readonly gpu: DemoDevice;
  readonly git: boolean;
  readonly postgres: boolean;
}

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

  console.log('Starting laptop, server and gpu…');
  const laptop = parts.use(
    await DemoDevice.start(join(root, 'laptop'), ['up', '--port', '0', '--name', 'laptop']),
  );
  const enroll = async (name: string, services: readonly string[]): Promise<DemoDevice> => {
    const token = await laptop.run('generate-token', '--expires', '5m');
    const flags = services.flatMap((service) => ['--service', service]);
    return parts.use(
      await DemoDevice.start(join(root, name), ['run', '--token', '-', '--name', name, ...flags], token),
    );
  };
  const server = await enroll('server', [
    `notes:${notes.port}:http:/`,
    `clock:${clock.port}`,
    ...(git ? [`git:${git.port}`] : []),
    ...(postgres ? [`postgres:${postgres.port}:tcp`] : []),
  ]);
  const gpu = await enroll('gpu', [`echo:${echo.port}:http:/health`]);
  return { laptop, server, gpu, git: git !== null, postgres: postgres !== null };
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

async function guide({ laptop, git, postgres }: Mesh): Promise<string> {
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
    '  npx cocoon services add notes:8000              # offers a port of this machine',
    '  npx cocoon generate-token --expires 10m         # for one more device',
    '  npx cocoon doctor',
    '  npx cocoon logs --follow',
    '',
    ...(ready.web_signin
      ? ['The web page, signed in once, within 10 minutes:', `  ${ready.web_signin}`, '']
      : []),
    'Ctrl-C ends the demo.',
  ].join('\n');
}

interface Described {
  readonly services: readonly { readonly name: string; readonly healthy: boolean | null }[];
}

/** @throws Error naming what did not work */
async function check({ laptop, server, gpu, git, postgres }: Mesh): Promise<void> {
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
  console.log(`Works: 3 devices${git ? ', git' : ''}${postgres ? ', postgres' : ''}.`);
}

function expect(truth: boolean, what: string): void {
  if (!truth) throw new Error(`The demo does not work: ${what}`);
}
