/** Models of all devices under one roof: `model` is that of whichever device serves best, `model@device` of that one. */

import { shortName } from '@cocoon-mesh/ai/model-address.ts';
import type { CapabilityState } from '@cocoon-mesh/protocol';
import { MeshError } from '@cocoon-mesh/protocol';

/** A device that can be asked, with what it has told of its capabilities. */
export interface ModelDevice {
  /** As the list of devices has it: `gpu`, or `gpu@ABCDEFGH` of another owner. */
  readonly name: string;
  readonly peerId: string;
  readonly capabilities: readonly Pick<CapabilityState, 'protocol' | 'features'>[];
}

export interface ModelOffer {
  readonly model: string;
  readonly device: string;
  readonly deviceId: string;
  /** Of another owner: used only when it is named. */
  readonly foreign: boolean;
  readonly protocol: string;
  /** The device calls tools, with one of its models at least. */
  readonly tools: boolean;
}

export const modelFeature = 'model:';
export const modelProtocols: ReadonlySet<string> = new Set(['llm.chat', 'embeddings']);

export function offersOf(devices: readonly ModelDevice[]): ModelOffer[] {
  return devices.flatMap(({ name, peerId, capabilities }) =>
    capabilities
      .filter(({ protocol }) => modelProtocols.has(protocol))
      .flatMap(({ protocol, features }) =>
        features
          .filter((feature) => feature.startsWith(modelFeature))
          .map((feature) => ({
            model: feature.slice(modelFeature.length),
            device: name,
            deviceId: peerId,
            foreign: name.includes('@'),
            protocol,
            tools: features.includes('tools'),
          })),
      ),
  );
}

export interface ModelChoice {
  /** Null: any. */
  readonly model: string | null;
  /** Only this one; null: whichever serves best. */
  readonly device: string | null;
}

/** Every model by itself, whoever has it. @returns null: the list of all is needed */
function plainModel(asked: string | null): ModelChoice | null {
  if (asked === null || asked === '') return { model: null, device: null };
  return asked.includes('@') || asked !== shortName(asked) ? null : { model: asked, device: null };
}

/** Asks for the list only where it matters: devices that do not answer at once make it take a while. */
export async function resolveModel(
  asked: string | null,
  offers: () => Promise<readonly ModelOffer[]>,
): Promise<ModelChoice> {
  return plainModel(asked) ?? chooseModel(asked ?? '', await offers());
}

/**
 * What the list has comes first, since names of models may hold an `@` themselves, as those of devices of other
 * owners do. What it has not is left to the request: a list may be a moment old.
 */
export function chooseModel(asked: string, offers: readonly ModelOffer[]): ModelChoice {
  const known = new Set(offers.map(({ model }) => model));
  const exact = (name: string): string =>
    !known.has(name) && known.has(shortName(name)) ? shortName(name) : name;
  if (known.has(exact(asked))) return { model: exact(asked), device: null };
  const devices = new Set(offers.flatMap(({ device, deviceId }) => [device, deviceId]));
  for (let at = asked.indexOf('@', 1); at > 0; at = asked.indexOf('@', at + 1))
    if (devices.has(asked.slice(at + 1))) return choiceAt(asked, at, exact);
  const last = asked.lastIndexOf('@');
  return last > 0 && last < asked.length - 1
    ? choiceAt(asked, last, exact)
    : { model: exact(asked), device: null };
}

/** Those of other owners are used when they are named. */
export function isChosen(
  { model, device, deviceId, foreign }: ModelOffer,
  { model: wanted, device: named }: ModelChoice,
): boolean {
  const isThere = named === null ? !foreign : named === device || named === deviceId;
  return isThere && (wanted === null || wanted === model);
}

function choiceAt(asked: string, at: number, exact: (name: string) => string): ModelChoice {
  return { model: exact(asked.slice(0, at)), device: asked.slice(at + 1) };
}

const shownModels = 10;

/** For `capability_not_found`, which knows nothing of models. */
export function modelNotFound(
  choice: ModelChoice,
  protocol: string,
  offers: readonly ModelOffer[],
): MeshError {
  const names = [
    ...new Set(
      offers
        .filter((offer) => offer.protocol === protocol)
        .map(({ model, device, foreign }) => (foreign ? `${model}@${device}` : model)),
    ),
  ];
  const offered =
    names.length === 0
      ? 'No device offers any now.'
      : `Offered now: ${names.slice(0, shownModels).join(', ')}${names.length > shownModels ? ' and others' : ''}.`;
  const where = choice.device === null ? 'No device' : `The device ${choice.device} does not exist, or`;
  const what = choice.model === null ? 'has a model for this' : `has the model ${choice.model}`;
  const not = choice.device === null ? what : what.replace(/^has/, 'has not');
  return new MeshError('capability_not_found', `${where} ${not}`, { hint: offered });
}

export interface ModelEntry {
  readonly id: string;
  readonly object: 'model';
  readonly created: number;
  readonly owned_by: string;
}

/** Each model once, then each with its device. */
export function listModels(offers: readonly ModelOffer[]): ModelEntry[] {
  const entries = new Map<string, ModelEntry>();
  const add = (id: string, owner: string): void => {
    // When a model was made, nobody here knows.
    if (!entries.has(id)) entries.set(id, { id, object: 'model', created: 0, owned_by: owner });
  };
  for (const { model, foreign } of offers) if (!foreign) add(model, 'cocoon');
  for (const { model, device } of offers) add(`${model}@${device}`, device);
  return [...entries.values()];
}
