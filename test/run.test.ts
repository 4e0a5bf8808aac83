import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { promisify } from 'node:util';

const run = promisify(execFile);
const projectRoot = resolve(import.meta.dirname, '..');

interface Ended {
  readonly code: number;
  readonly stdout: string;
}

/** Without the marks of the run we are in, and with the machine's own PATH. */
function outsideEnvironment(): NodeJS.ProcessEnv {
  const { NODE_TEST_CONTEXT: _, ...env } = process.env;
  const ours = join('node_modules', '.bin');
  const path = (env['PATH'] ?? '').split(':').filter((folder) => !folder.endsWith(ours));
  return { ...env, PATH: path.join(':') };
}

async function start(...args: string[]): Promise<Ended> {
  const argv = [join(projectRoot, 'test', 'run.ts'), ...args];
  try {
    const { stdout } = await run(process.execPath, argv, { env: outsideEnvironment(), timeout: 30_000 });
    return { code: 0, stdout };
  } catch (error) {
    const { code, stdout } = error as { code: number; stdout: string };
    return { code, stdout };
  }
}

describe('the test runner', () => {
  let root: string;
  before(async () => {
    root = await mkdtemp(join(tmpdir(), 'cocoon-runner-'));
  });
  after(() => rm(root, { recursive: true }));

  async function project(files: Record<string, string>): Promise<string> {
    const folder = await mkdtemp(join(root, 'project-'));
    const head = `import { test, describe, it } from 'node:test';\n`;
    for (const [name, body] of Object.entries(files)) await writeFile(join(folder, name), head + body);
    return folder;
  }

  it('succeeds when every test passes, and says how many', async () => {
    const folder = await project({
      'a.test.ts': `test('one', () => {}); describe('group', () => { it('two', () => {}); });`,
      'b.slow.ts': `test('three', () => {});`,
    });
    const { code, stdout } = await start('fast', 'slow', '--root', folder);
    assert.equal(code, 0);
    assert.match(stdout, /2 files, 0 to do, .*\n3 passed, 0 failed, 0 skipped/);
  });

  it('fails with a test that fails, and shows why at the end', async () => {
    const folder = await project({ 'a.test.ts': `test('one', () => { throw new Error('this is why'); });` });
    const { code, stdout } = await start('fast', '--root', folder);
    assert.equal(code, 1);
    assert.match(stdout, /a\.test\.ts: one\n.*this is why/);
    assert.match(stdout, /0 passed, 1 failed/);
  });

  it('tells each skipped test with its reason', async () => {
    const folder = await project({ 'a.test.ts': `test('one', { skip: 'no podman here' }, () => {});` });
    const { code, stdout } = await start('fast', '--root', folder);
    assert.equal(code, 0);
    assert.match(stdout, /Skipped:\n.*a\.test\.ts: one — no podman here/);
  });

  it('ends a file that hangs, also one that lets nothing else run, and what it started', async () => {
    const folder = await project({
      'a.test.ts': `test('waits for ever', () => new Promise((done) => setTimeout(done, 1e9)));`,
      'b.test.ts': `test('spins', () => { for (;;); });`,
      'c.test.ts': `import { spawn } from 'node:child_process'; import { writeFileSync } from 'node:fs';
        test('leaves a child', () => {
          const child = spawn('sleep', ['1000'], { stdio: 'inherit' }); child.unref();
          writeFileSync('pid', String(child.pid));
        });`,
    });
    const { code, stdout } = await start('fast', '--root', folder, '--timeout-ms', '1500');
    assert.equal(code, 1);
    assert.match(stdout, /a\.test\.ts: the file itself\n.*took longer than 1.5 s, in: waits for ever/);
    assert.match(stdout, /b\.test\.ts: the file itself\n.*took longer/);
    assert.match(stdout, /1 passed, 2 failed/);
    assert.equal(await isRunning(Number(await readFile(join(folder, 'pid'), 'utf8'))), false);
  });

  it('counts a file that breaks, or holds no test, as a failure', async () => {
    const folder = await project({ 'a.test.ts': `throw new Error('broken');`, 'b.test.ts': '' });
    const { code, stdout } = await start('fast', '--root', folder);
    assert.equal(code, 1);
    assert.match(stdout, /Error: broken/);
    assert.match(stdout, /0 passed, 2 failed/);
  });

  it('refuses to call a run without any test a success', async () => {
    assert.equal((await start('fast', '--root', await project({}))).code, 1);
    assert.equal((await start('quick')).code, 2);
  });

  it('runs only the paths it is given', async () => {
    const folder = await project({
      'a.test.ts': `test('one', () => {});`,
      'b.test.ts': `throw new Error();`,
    });
    const { code } = await start('fast', join(folder, 'a.test.ts'), '--root', folder);
    assert.equal(code, 0);
  });

  it('gives tests the wish for every size, and Node 24 by the name node', async () => {
    const folder = await project({
      'a.test.ts': `import assert from 'node:assert/strict'; import { execFileSync } from 'node:child_process';
        test('one', () => {
          assert.equal(process.env.COCOON_TEST_FULL, process.env.EXPECTED_FULL);
          assert.match(execFileSync('node', ['--version'], { encoding: 'utf8' }), /^v24\\./);
        });`,
    });
    const argv = [join(projectRoot, 'test', 'run.ts'), 'fast', '--root', folder];
    const env = { ...outsideEnvironment(), COCOON_TEST_FULL: '1', EXPECTED_FULL: '1' };
    await run(process.execPath, argv, { env, timeout: 30_000 });
  });
});

describe('the scripts of package.json', () => {
  it('run on Node 24, whatever Node the machine has', async () => {
    const env = outsideEnvironment();
    const { stdout } = await run('npm', ['exec', '--offline', '-c', 'node --version'], {
      cwd: projectRoot,
      env,
    });
    assert.match(stdout, /^v24\./);
  });

  it('call node by its bare name, so that the one from node_modules comes first', async () => {
    const { scripts } = JSON.parse(await readFile(join(projectRoot, 'package.json'), 'utf8')) as {
      scripts: Record<string, string>;
    };
    for (const [name, script] of Object.entries(scripts)) assert.doesNotMatch(script, /\/node\b|npx /, name);
    for (const name of ['demo', 'bench']) assert.match(scripts[name] ?? '', /^exec node /, name);
    // The launcher names the node of node_modules itself.
    assert.match(scripts['start'] ?? '', /^exec cocoon\/bin\/cocoon up$/);
  });
});

/** A zombie that nobody reaped is not running. */
async function isRunning(pid: number): Promise<boolean> {
  try {
    const { stdout } = await run('ps', ['-o', 'stat=', '-p', String(pid)]);
    return !stdout.trim().startsWith('Z');
  } catch {
    return false;
  }
}
