/** The table of devices: shows what the mesh knows and turns clicks into requests. Text only, never markup. */

import type { Device } from '@cocoon-mesh/mesh';

export interface DeviceActions {
  ping(device: Device): Promise<string>;
  open(device: Device, service: string): Promise<void>;
}

export class DeviceTable {
  readonly #body: HTMLTableSectionElement;
  readonly #actions: DeviceActions;
  /** Last round trip by PeerId; survives redrawing. */
  readonly #pings = new Map<string, string>();

  constructor(table: HTMLTableElement, actions: DeviceActions) {
    this.#body = table.tBodies[0] ?? table.createTBody();
    this.#actions = actions;
  }

  show(devices: readonly Device[]): void {
    this.#body.replaceChildren(...devices.map((device) => this.#row(device)));
  }

  #row(device: Device): HTMLTableRowElement {
    const row = document.createElement('tr');
    row.dataset['name'] = device.name;
    row.dataset['peer'] = device.peerId;
    row.dataset['online'] = String(device.online);
    const title = device.self ? `${device.name} (this browser)` : device.name;
    row.append(
      cell(title),
      cell(device.problem ?? (device.online ? 'online' : 'offline')),
      cell(device.path ?? '–'),
      this.#services(device),
      this.#ping(device),
    );
    return row;
  }

  #services(device: Device): HTMLTableCellElement {
    const services = cell('');
    for (const service of device.services) {
      if (service.type !== 'http' || device.self) {
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
    if (device.self || !device.online) return ping;
    const shown = document.createElement('output');
    shown.value = this.#pings.get(device.peerId) ?? '';
    const ask = async (): Promise<void> => {
      shown.value = '…';
      const text = await this.#actions.ping(device);
      this.#pings.set(device.peerId, text);
      shown.value = text;
    };
    ping.append(button('Ping', `Ping ${device.name}`, ask), shown);
    return ping;
  }
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
