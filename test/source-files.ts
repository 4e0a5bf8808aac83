/** The project's own sources as the architecture tests see them: where each file belongs, what it imports. */

import { readFileSync, readdirSync } from 'node:fs';
import { join, relative, resolve, sep } from 'node:path';
import { parseAst } from 'vite';

export const projectRoot = resolve(import.meta.dirname, '..');

export interface Manifest {
  readonly name: string;
  readonly workspaces?: readonly string[];
  readonly scripts?: Readonly<Record<string, string>>;
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly devDependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
  readonly overrides?: Readonly<Record<string, string>>;
  readonly allowScripts?: Readonly<Record<string, boolean>>;
}

/** A node of the syntax tree (ESTree with TypeScript's nodes). */
export interface Node {
  readonly type: string;
  readonly start: number;
  readonly [key: string]: unknown;
}

export interface SourceFile {
  /** From the project's root, with slashes. */
  readonly path: string;
  /** Folder of the workspace that it lies in; empty for files of the root. */
  readonly workspace: string;
  /** Tests, suites and doubles may reach further than what is shipped. */
  readonly isTest: boolean;
  readonly text: string;
  readonly tree: Node;
  readonly imports: readonly Import[];
}

export interface Import {
  readonly specifier: string;
  readonly line: number;
}

/** `x.test.ts`, `x.slow.ts`, `x.contract.ts`, and what one platform alone can load of them. */
export const testSuffix = /\.(test|slow|contract)(\.(node|browser))?\.tsx?$/;

const skippedFolders = new Set(['node_modules', 'dist', 'test-results']);

export function readManifest(folder: string): Manifest {
  return JSON.parse(readFileSync(join(projectRoot, folder, 'package.json'), 'utf8')) as Manifest;
}

export const rootManifest = readManifest('.');
export const workspaces = rootManifest.workspaces ?? [];

/** All paths of files, of any kind. */
export function listFiles(): string[] {
  const found: string[] = [];
  const walk = (folder: string): void => {
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      if (entry.name.startsWith('.') || skippedFolders.has(entry.name)) continue;
      const path = join(folder, entry.name);
      if (entry.isDirectory()) walk(path);
      else found.push(relative(projectRoot, path).split(sep).join('/'));
    }
  };
  walk(projectRoot);
  return found.toSorted();
}

export function readSources(): SourceFile[] {
  return listFiles()
    .filter((path) => /\.tsx?$/.test(path))
    .map(readSource);
}

function readSource(path: string): SourceFile {
  const text = readFileSync(join(projectRoot, path), 'utf8');
  const tree = parseAst(text, { lang: path.endsWith('x') ? 'tsx' : 'ts' }) as unknown as Node;
  const workspace = workspaces.find((folder) => path.startsWith(`${folder}/`)) ?? '';
  const isTest = workspace === '' || testSuffix.test(path);
  return { path, workspace, isTest, text, tree, imports: importsOf(tree, text) };
}

function importsOf(tree: Node, text: string): Import[] {
  const imports: Import[] = [];
  visit(tree, (node) => {
    const source = isImporting(node) ? (node['source'] as Node | null) : resolved(node);
    if (source && typeof source['value'] === 'string')
      imports.push({ specifier: source['value'], line: lineAt(text, node.start) });
  });
  return imports;
}

const importing = new Set([
  'ImportDeclaration',
  'ExportNamedDeclaration',
  'ExportAllDeclaration',
  'ImportExpression',
  'TSImportType',
]);

function isImporting(node: Node): boolean {
  return importing.has(node.type);
}

/** The argument of `import.meta.resolve('…')` and `require.resolve('…')`. */
function resolved(node: Node): Node | null {
  if (node.type !== 'CallExpression') return null;
  const callee = node['callee'] as Node;
  const object = callee['object'] as Node | undefined;
  const isModule = object?.type === 'MetaProperty' || nameOf(object) === 'require';
  if (!isModule || nameOf(callee['property']) !== 'resolve') return null;
  return (node['arguments'] as Node[])[0] ?? null;
}

/** Calls `see` for every node, parents first. */
export function visit(
  node: Node,
  see: (node: Node, parent: Node | null) => void,
  parent: Node | null = null,
): void {
  see(node, parent);
  for (const [key, value] of Object.entries(node)) {
    if (key === 'parent') continue;
    for (const child of Array.isArray(value) ? (value as unknown[]) : [value])
      if (isNode(child)) visit(child, see, node);
  }
}

function isNode(value: unknown): value is Node {
  return typeof value === 'object' && value !== null && 'type' in value && typeof value.type === 'string';
}

/** Of an identifier or private name. */
export function nameOf(value: unknown): string {
  return isNode(value) && typeof value['name'] === 'string' ? value['name'] : '';
}

export function lineAt(text: string, offset: number): number {
  return text.slice(0, offset).split('\n').length;
}

/** `@scope/name` or `name` of an import that is neither relative nor Node's own; null for those. */
export function packageOf(specifier: string): string | null {
  if (/^(\.|\/|node:|data:|virtual:)/.test(specifier)) return null;
  return specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/');
}
