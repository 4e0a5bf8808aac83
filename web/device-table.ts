/**
 * The table of devices: shows what the mesh knows and turns clicks into requests. The own devices come first, then
 * the cocoons of each other owner under that owner's id. Text only, never markup.
 */

import type { Device } from '@cocoon-mesh/mesh';

const columns = 5;

export interface DeviceActions {
  devices(): readonly Device[];
  ping(device: Device): Promise<string>;
  open(device: Device, service: string): Promise<void>;
  /** The name belongs to this device from now on. */
  accept(device: Device): Promise<void>;
}

export class DeviceTable {
  readonly #table: HTMLTableElement;
  readonly #actions: DeviceActions;
  /** Last round trip by PeerId; survives redrawing. */
  readonly #pings = new Map<string, string>();

  constructor(table: HTMLTableElement, actions: DeviceActions) {
    this.#table = table;
    this.#actions = actions;
  }

  show(devices: readonly Device[]): void {
    const groups = Map.groupBy(devices, ({ foreign, owner }) => (foreign ? owner : null));
    for (const body of this.#table.querySelectorAll('tbody')) body.remove();
    this.#table.append(...[...groups].map(([owner, group]) => this.#group(owner, group)));
  }

  #group(owner: string | null, devices: readonly Device[]): HTMLTableSectionElement {
    const body = document.createElement('tbody');
    if (owner !== null) {
      body.dataset['owner'] = owner;
      body.append(heading(`Shared with you by ${owner}`));
    }
    body.append(...devices.map((device) => this.#row(device)));
    return body;
  }

  #row(device: Device): HTMLTableRowElement {
    const row = document.createElement('tr');
    row.dataset['name'] = device.name;
    row.dataset['peer'] = device.peerId;
    row.dataset['online'] = String(device.online);
    row.dataset['foreign'] = String(device.foreign);
    const title = device.self ? `${device.name} (this browser)` : device.name;
    row.append(
      cell(title),
      this.#state(device),
      cell(device.path ?? '–'),
      this.#services(device),
      this.#ping(device),
    );
    return row;
  }

  #state(device: Device): HTMLTableCellElement {
    const state = cell(device.online ? 'online' : 'offline');
    if (device.problem === null) return state;
    const why = document.createElement('p');
    why.className = 'problem';
    why.textContent = `Not used: ${device.problem}. If you replaced the device, accept the new one.`;
    const accept = button('Accept', `Accept this ${device.name}`, () => this.#actions.accept(device));
    state.append(why, accept);
    return state;
  }

  #services(device: Device): HTMLTableCellElement {
    const services = cell('');
    for (const service of device.services) {
      if (service.type !== 'http' || !isUsable(device)) {
        services.append(`${service.name} `);
        continue;
      }
      services.append(
        button(service.name, `Fetch ${service.name} of ${device.name}`, () =>
          this.#actions.open(device, service.name),
        ),
      );
    }
    return services;
  }

  #ping(device: Device): HTMLTableCellElement {
    const ping = cell('');
    if (!isUsable(device) || !device.online) return ping;
    const shown = document.createElement('output');
    shown.value = this.#pings.get(device.peerId) ?? '';
    const ask = async (): Promise<void> => {
      shown.value = '…';
      this.#pings.set(device.peerId, await this.#actions.ping(device));
      // The row may have been drawn anew meanwhile.
      this.show(this.#actions.devices());
    };
    ping.append(button('Ping', `Ping ${device.name}`, ask), shown);
    return ping;
  }
}

/** Nobody is to click on a name and reach another device than the one it meant before. */
function isUsable({ self, problem }: Device): boolean {
  return !self && problem === null;
}

function heading(text: string): HTMLTableRowElement {
  const row = document.createElement('tr');
  const title = document.createElement('th');
  title.scope = 'rowgroup';
  title.colSpan = columns;
  title.textContent = text;
  row.append(title);
  return row;
}

function cell(text: string): HTMLTableCellElement {
  const made = document.createElement('td');
  made.textContent = text;
  return made;
}

function button(text: string, label: string, action: () => Promise<void>): HTMLButtonElement {
  const made = document.createElement('button');
  made.type = 'button';
  made.textContent = text;
  made.setAttribute('aria-label', label);
  made.addEventListener('click', () => void action());
  return made;
}
