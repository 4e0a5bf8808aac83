/** What a device says of itself, signed by its own key, so that signaling can neither rename nor dress it. */

import * as z from 'zod/mini';
import {
  capabilityField,
  deviceKind,
  nameField,
  ownerIdField,
  peerIdField,
  serviceField,
  signedFields,
  timeField,
} from './fields.ts';
import { MeshError } from './errors.ts';
import type { SigningKey } from './identity.ts';
import { publicKeyOf } from './identity.ts';
import { limits } from './limits.ts';
import { peekObject, signObject, verifyObject } from './signed-object.ts';

/** Gives no right, so unlike the others it may say more than we know; what must not be overlooked is in `crit`. */
const deviceRecordSchema = z.object({
  ...signedFields,
  peer_id: peerIdField,
  kind: deviceKind,
  name: nameField,
  /** Rises with each change; the highest one counts. */
  seq: z.int().check(z.nonnegative()),
  services: z.array(serviceField).check(z.maxLength(limits.maxServices)),
  capabilities: z.array(capabilityField).check(z.maxLength(limits.maxCapabilities)),
  /** Free text such as `office` or `eu-west`. */
  location: z.optional(z.string().check(z.maxLength(128))),
  /** The owner it was written for: what a guest may see. Absent in the one for the device's own owner. */
  audience: z.optional(ownerIdField),
  iat: timeField,
});
export type DeviceRecord = z.infer<typeof deviceRecordSchema>;

export type DeviceContent = Omit<DeviceRecord, 'v' | 'crit' | 'peer_id'>;

export async function signDeviceRecord(key: SigningKey, content: DeviceContent): Promise<string> {
  const record = { v: 1, crit: [], peer_id: key.peerId, ...content };
  return signObject('device-record', deviceRecordSchema, record, key);
}

/** @throws MeshError bad_message | wrong_type | bad_signature | unknown_constraint */
export async function verifyDeviceRecord(recordJws: string, peerId: string): Promise<DeviceRecord> {
  if (peekObject('device-record', deviceRecordSchema, recordJws).peer_id !== peerId)
    throw new MeshError('bad_signature', 'A device record belongs to another device');
  return verifyObject('device-record', deviceRecordSchema, recordJws, publicKeyOf(peerId));
}
