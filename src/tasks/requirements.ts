/**
 * What a task asks of the device that runs it, as words: `docker`, `gpu`, `memory>=8g`, `cpus>=4`, `label:fast`,
 * `capability:llm.chat@^1.0.0`. What is not understood is refused by name: it must never count as met.
 */

import { MeshError } from '@cocoon-mesh/protocol';

export type Requirement =
  | { readonly kind: 'docker' | 'gpu' }
  | { readonly kind: 'memory'; readonly bytes: number }
  | { readonly kind: 'cpus'; readonly count: number }
  | { readonly kind: 'label'; readonly name: string }
  | { readonly kind: 'capability'; readonly protocol: string; readonly range: string };

/** What a device finds about itself. */
export interface DeviceFacts {
  /** Null: containers can be started; else why not. */
  missingDocker(): Promise<string | null>;
  hasGpu(): Promise<boolean>;
  readonly memoryBytes: number;
  readonly cpus: number;
  readonly labels: readonly string[];
  /** Does it serve the protocol in a version of this semver range? A range that is none throws. */
  hasCapability(protocol: string, range: string): boolean;
}

/**
 * Decimal: a machine that is sold with 8 GB reports a little less than 8 GiB, and must count as one. `gi` and `gib`
 * are there for those who mean it.
 */
const units: Readonly<Record<string, number>> = { k: 1e3, m: 1e6, g: 1e9, t: 1e12 };
const binaryUnits: Readonly<Record<string, number>> = { k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40 };

/** @throws MeshError bad_filter */
export function parseRequirement(text: string): Requirement {
  if (text === 'docker' || text === 'gpu') return { kind: text };
  const memory = /^memory>=(\d{1,9}(?:\.\d{1,3})?)([kmgt])(i?)b?$/i.exec(text);
  if (memory) {
    const [, amount = '', unit = '', binary] = memory;
    const factor = (binary ? binaryUnits : units)[unit.toLowerCase()] ?? 1;
    return { kind: 'memory', bytes: Number(amount) * factor };
  }
  const cpus = /^cpus>=(\d{1,6})$/.exec(text);
  if (cpus) return { kind: 'cpus', count: Number(cpus[1]) };
  const label = /^label:([a-z0-9](?:[a-z0-9._/-]{0,62}[a-z0-9])?)$/.exec(text);
  if (label) return { kind: 'label', name: label[1] ?? '' };
  const capability = /^capability:([a-z0-9][a-z0-9._-]{0,63})(?:@([0-9A-Za-z.^~<>=|*+-]{1,64}))?$/.exec(text);
  if (capability) return { kind: 'capability', protocol: capability[1] ?? '', range: capability[2] ?? '*' };
  throw new MeshError(
    'bad_filter',
    `The requirement ${JSON.stringify(text.slice(0, 128))} was not understood`,
    {
      hint: 'Known: docker, gpu, memory>=8g, cpus>=4, label:NAME, capability:NAME@RANGE.',
    },
  );
}

/** A sentence for each that this device does not meet; none: the task could run. @throws MeshError bad_filter */
export async function missingRequirements(
  requires: readonly string[],
  facts: DeviceFacts,
): Promise<string[]> {
  // All are read before one is judged: what is not understood is said first.
  const parsed = [...new Set(requires)].map(parseRequirement);
  const missing: string[] = [];
  for (const requirement of parsed) {
    const why = await judge(requirement, facts);
    if (why !== null) missing.push(why);
  }
  return missing;
}

async function judge(requirement: Requirement, facts: DeviceFacts): Promise<string | null> {
  switch (requirement.kind) {
    case 'docker':
      return facts.missingDocker();
    case 'gpu':
      return (await facts.hasGpu()) ? null : 'It has no GPU.';
    case 'memory':
      if (facts.memoryBytes >= requirement.bytes) return null;
      return `It has ${gigabytes(facts.memoryBytes)} GB of memory, and ${gigabytes(requirement.bytes)} GB are needed.`;
    case 'cpus':
      if (facts.cpus >= requirement.count) return null;
      return `It has ${facts.cpus} processor cores, and ${requirement.count} are needed.`;
    case 'label':
      return facts.labels.includes(requirement.name) ? null : `It has no label ${requirement.name}.`;
    case 'capability':
      return judgeCapability(requirement.protocol, requirement.range, facts);
  }
}

function judgeCapability(protocol: string, range: string, facts: DeviceFacts): string | null {
  let has;
  try {
    has = facts.hasCapability(protocol, range);
  } catch (cause) {
    throw new MeshError('bad_filter', `${JSON.stringify(range)} is not a semver range`, { cause });
  }
  return has ? null : `It does not offer ${protocol} ${range}.`;
}

function gigabytes(bytes: number): string {
  return String(Number((bytes / 1e9).toPrecision(3)));
}
