/**
 * One of everything that is signed or sent, made from fixed seeds: what the kept vectors and the tests are made
 * of. It runs in the browser too, so that both platforms can be held to the same bytes. No product code uses it.
 */

import { SignJWT } from 'jose';
import { concat, sha256, toBase64Url, utf8 } from './bytes.ts';
import { encode, encodeJson } from './codec.ts';
import { signDeviceRecord } from './device-record.ts';
import { FrameFlag, FrameType, ResetCode, frameHeadBytes, writeFrameHead, writeU64 } from './frame.ts';
import { createSetupToken, readSetupToken, redeem, signReceipt } from './grant.ts';
import type { Redemption } from './grant.ts';
import { SignatureLabel, signLabelled, signingKeyFromSeed } from './identity.ts';
import type { MembershipProof } from './membership.ts';
import { signMembership } from './membership.ts';
import type { OwnerSecret } from './owner.ts';
import { ownerKeys, rotateOwner } from './owner.ts';
import type { Hello } from './peer-messages.ts';
import { helloSchema } from './peer-messages.ts';
import { signRevocation } from './revocation.ts';
import { adminRights, coOwnerRights, memberRights } from './rights.ts';
import type { ShareProof } from './share.ts';
import { signShare, verifyShare } from './share.ts';
import type { ClientMessage, DeviceEntry, ServerMessage } from './signaling-messages.ts';
import { clientMessageSchema, serverMessageSchema, signInParts } from './signaling-messages.ts';
import { signTicket } from './ticket.ts';
import { sessionVersions } from './versions.ts';

/** Seconds since 1970 at which everything happens: 2026-01-01. */
export const sampleNow = 1_767_225_600;
export const sampleUrl = 'ws://192.0.2.10:7400/ws';

/** 32 bytes that say which they are. */
export function sampleSeed(name: string): Promise<Uint8Array> {
  return sha256(utf8(`cocoon sample ${name}`));
}

async function sampleKey(name: string) {
  return signingKeyFromSeed(await sampleSeed(name));
}

/** A secret and its recovery code, by the formula that `docs/protocol.md` gives. */
export async function sampleSecret(name: string): Promise<{ secret: OwnerSecret; recoveryCode: string }> {
  const recoverySeed = await sampleSeed(`${name} recovery`);
  const recoveryKey = await signingKeyFromSeed(recoverySeed);
  const checksum = (await sha256(recoverySeed)).slice(0, 4);
  return {
    secret: {
      seed: await sha256(await sampleSeed(`${name} secret`)),
      recoveryKeyHash: await sha256(recoveryKey.publicKey),
    },
    recoveryCode: `cocoon-recovery-1.${toBase64Url(concat(recoverySeed, checksum))}`,
  };
}

/** Keys, and the objects that each may sign. */
export async function sampleObjects() {
  const { secret, recoveryCode } = await sampleSecret('owner');
  const owner = await ownerKeys(secret);
  const otherOwner = await ownerKeys((await sampleSecret('other owner')).secret);
  const device = await sampleKey('device');
  const otherDevice = await sampleKey('other device');
  const signaling = {
    ticketKey: await sampleKey('ticket'),
    receiptKey: await sampleKey('receipt'),
    accessKey: await sampleKey('access'),
  };
  const oneTimeSeed = await sampleSeed('one time');
  const terms = {
    rights: memberRights,
    now: sampleNow,
    expires: sampleNow + 3600,
    signaling: sampleUrl,
    receiptKey: signaling.receiptKey.publicKey,
  };
  const { token, jti } = await createSetupToken(owner, { ...terms, scope: 'enroll' }, oneTimeSeed);
  const coOwn = {
    ...terms,
    scope: 'co-own',
    rights: coOwnerRights,
    until: sampleNow + 86_400,
    cocoon: device.peerId,
  } as const;
  const coOwnSeed = await sampleSeed('co-own');
  const {
    token: coOwnToken,
    jti: coOwnJti,
    grantHash: coOwnGrantHash,
  } = await createSetupToken(owner, coOwn, coOwnSeed);
  const redemption = await redeem(await readSetupToken(token), device, device.peerId);
  const receipt = await signReceipt(signaling.receiptKey, {
    jti,
    redeemer: device.peerId,
    now: sampleNow + 60,
  });
  const coOwnRedemption = await redeem(
    await readSetupToken(coOwnToken),
    otherOwner.key,
    otherOwner.id,
    otherOwner.records,
  );
  const coOwnReceipt = await signReceipt(signaling.receiptKey, {
    jti: coOwnJti,
    redeemer: otherOwner.id,
    now: sampleNow + 60,
  });
  const shareClaim: ShareProof & { kind: 'claim' } = {
    kind: 'claim',
    redemption: coOwnRedemption,
    receipt: coOwnReceipt,
  };
  const share = await signShare(owner, await verifyShare(shareClaim, sampleNow), 2, sampleNow + 120);
  const membership = await signMembership(owner, {
    peerId: device.peerId,
    serial: 3,
    kind: 'cocoon',
    rights: [...memberRights, ...adminRights],
    now: sampleNow + 120,
    granted: sampleNow,
    expires: sampleNow + 30 * 86_400,
    until: sampleNow + 60 * 86_400,
    jti,
  });
  const record = await signDeviceRecord(device, {
    kind: 'cocoon',
    name: 'laptop',
    seq: 7,
    services: [{ name: 'grafana', type: 'http' }],
    capabilities: [{ protocol: 'proxy.http', version: '1.0.0' }],
    location: 'office',
    iat: sampleNow,
  });
  const guestRecord = await signDeviceRecord(device, {
    kind: 'cocoon',
    name: 'laptop',
    seq: 7,
    services: [],
    capabilities: [],
    audience: otherOwner.id,
    iat: sampleNow,
  });
  const firstRevocation = await signRevocation(owner, [], {
    kind: 'device',
    subject: otherDevice.peerId,
    now: sampleNow,
  });
  const secondRevocation = await signRevocation(owner, [firstRevocation], {
    kind: 'token',
    subject: jti,
    now: sampleNow + 1,
  });
  const ticket = await signTicket(signaling.ticketKey, {
    jti: toBase64Url((await sampleSeed('ticket jti')).slice(0, 16)),
    owner: owner.id,
    offerer: device.peerId,
    answerer: otherDevice.peerId,
    nonce: toBase64Url((await sampleSeed('ticket nonce')).slice(0, 16)),
    scopes: ['session'],
    iat: sampleNow,
    exp: sampleNow + 60,
  });
  const access = await new SignJWT({ sub: owner.id, cnf: { kid: device.peerId } })
    .setProtectedHeader({ alg: 'EdDSA', typ: 'access', kid: 'sample' })
    .setIssuer('http://192.0.2.10:7400')
    .setAudience('http://192.0.2.10:7400')
    .setIssuedAt(sampleNow)
    .setExpirationTime(sampleNow + 900)
    .setJti('sample')
    .sign(signaling.accessKey.privateKey);
  const nextSecret = (await sampleSecret('owner, epoch 1')).secret;
  const rotated = await rotateOwner(owner.records, recoveryCode, nextSecret, [coOwnGrantHash]);
  const claim: MembershipProof & { kind: 'claim' } = { kind: 'claim', redemption, receipt };
  return {
    secret,
    recoveryCode,
    nextSecret,
    owner,
    otherOwner,
    rotated,
    device,
    otherDevice,
    signaling,
    token,
    jti,
    coOwnToken,
    coOwnJti,
    coOwnGrantHash,
    redemption,
    coOwnRedemption,
    coOwnReceipt,
    shareClaim,
    share: share as ShareProof & { kind: 'share' },
    receipt,
    claim,
    membership: membership as MembershipProof & { kind: 'membership' },
    record,
    guestRecord,
    revocations: [firstRevocation, secondRevocation],
    ticket,
    access,
  };
}
export type SampleObjects = Awaited<ReturnType<typeof sampleObjects>>;

/** The compact JWS of each kind. */
export function sampleSigned(sample: SampleObjects) {
  return {
    'owner-record': sample.owner.records[0] ?? '',
    grant: sample.redemption.grant,
    receipt: sample.receipt,
    membership: sample.membership.membership,
    share: sample.share.share,
    'device-record': sample.record,
    revocation: sample.revocations[0] ?? '',
    ticket: sample.ticket,
    access: sample.access,
  };
}

const nonce = 'AAECAwQFBgcICQoLDA0ODw';
const serverNonce = 'EBESExQVFhcYGRobHB0eHw';

export async function sampleSignIn(sample: SampleObjects) {
  const content = { publicUrl: sampleUrl, clientNonce: nonce, serverNonce, time: sampleNow };
  return signLabelled(sample.device, SignatureLabel.signIn, signInParts(content));
}

/** To a cocoon of another owner, with everything that a HELLO may have. */
export function sampleHello({ membership, record, owner, share, revocations }: SampleObjects): Hello {
  return {
    versions: [...sessionVersions],
    carriers: ['webrtc'],
    engine: 'libdatachannel',
    instance: nonce,
    membership,
    record,
    share,
    signs: true,
    revocations: [{ owner: owner.id, epoch: 0, n: 2, entries: revocations }],
    max_streams: 1024,
    resume: { session: serverNonce, generation: 2, received: 300 },
  };
}

/** Every message of a client, in the order of use. */
export async function sampleClientMessages(sample: SampleObjects): Promise<ClientMessage[]> {
  const { device, otherDevice, record, guestRecord, membership, redemption, owner, revocations } = sample;
  const { coOwnRedemption, share, shareClaim, rotated } = sample;
  const signature = toBase64Url(await sampleSignIn(sample));
  return [
    { type: 'sign_in', peer_id: device.peerId, nonce },
    { type: 'sign_in_proof', signature, record, membership },
    { type: 'sign_in_proof', signature, record, redemption },
    { type: 'sign_in_proof', signature, record, membership, oidc_token: 'e30.e30.AAAA' },
    { type: 'record', record },
    { type: 'record', record: guestRecord },
    { type: 'membership', membership },
    { type: 'claim', id: 0, redemption: coOwnRedemption },
    { type: 'issue', peer_id: device.peerId, membership },
    { type: 'share', share },
    { type: 'share', share: shareClaim },
    { type: 'load', load: 0.25 },
    { type: 'lookup', id: 1, protocol: 'llm.chat', version: '^1.0.0' },
    { type: 'introduce', id: 2, peer_id: otherDevice.peerId },
    { type: 'signal', jti: nonce, payload: { kind: 'offer', sdp: 'v=0\r\n' } },
    { type: 'signal', jti: nonce, payload: { kind: 'answer', sdp: 'v=0\r\n' } },
    { type: 'signal', jti: nonce, payload: { kind: 'candidate', candidate: null } },
    { type: 'signal', jti: nonce, payload: { kind: 'failed', code: 'connect_timeout' } },
    { type: 'revocations', owner: owner.id, list: revocations },
    { type: 'revocations', owner: owner.id, records: rotated.records, list: [] },
    { type: 'ping', id: 3 },
  ];
}

/** Every message of the server, in the order of use. */
export function sampleServerMessages(sample: SampleObjects): ServerMessage[] {
  const { device, record, guestRecord, membership, receipt, ticket, access, signaling, owner } = sample;
  const { revocations, share, shareClaim, coOwnReceipt, rotated } = sample;
  const entry: DeviceEntry = {
    peer_id: device.peerId,
    online: true,
    load: 0,
    record,
    membership,
    last_seen: sampleNow,
  };
  const shared: DeviceEntry = { ...entry, record: guestRecord, share: shareClaim };
  const capability = { protocol: 'llm.chat', version: '1.0.0' };
  return [
    { type: 'challenge', nonce: serverNonce, time: sampleNow },
    {
      type: 'welcome',
      time_ms: sampleNow * 1000,
      ticket_key: toBase64Url(signaling.ticketKey.publicKey),
      receipt_key: toBase64Url(signaling.receiptKey.publicKey),
      access_token: access,
      receipt,
      membership,
      devices: [entry, shared],
      shares: [share],
      revocations: [
        { owner: owner.id, list: revocations },
        { owner: owner.id, records: rotated.records, list: [] },
      ],
    },
    { type: 'device', device: entry },
    { type: 'device', device: shared },
    { type: 'membership', membership },
    { type: 'share', share: shareClaim },
    { type: 'claimed', id: 0, receipt: coOwnReceipt },
    { type: 'lookup_result', id: 1, matches: [{ peer_id: device.peerId, capability, load: 0.5 }] },
    { type: 'introduction', id: 2, ticket, device: entry },
    { type: 'signal', jti: nonce, payload: { kind: 'offer', sdp: 'v=0\r\n' } },
    { type: 'revocations', owner: owner.id, list: revocations },
    { type: 'revocations', owner: owner.id, records: rotated.records, list: [] },
    { type: 'pong', id: 3 },
    { type: 'error', id: 4, code: 'rate_limited', message: 'Too many requests', retry_after_ms: 1000 },
    { type: 'goodbye', retry_after_ms: 500 },
  ];
}

export interface FrameVector {
  readonly name: string;
  readonly type: FrameType;
  readonly flags: number;
  readonly streamId: number;
  readonly payload: Uint8Array;
}

export function sampleFrames(): FrameVector[] {
  const u64 = (value: number): Uint8Array => {
    const bytes = new Uint8Array(8);
    writeU64(bytes, 0, value);
    return bytes;
  };
  const code = (value: ResetCode): Uint8Array => Uint8Array.of(value >>> 8, value);
  const name = utf8('/cocoon/tcp/1');
  const open = concat(Uint8Array.of(name.length), name, Uint8Array.of(0x80));
  const { none, fin, minimum, pong } = FrameFlag;
  const frame = (label: string, type: FrameType, flags: number, streamId: number, payload: Uint8Array) => ({
    name: label,
    type,
    flags,
    streamId,
    payload,
  });
  return [
    frame('HELLO of 3 bytes', FrameType.hello, none, 0, Uint8Array.of(0, 0x80, 0xc0)),
    frame('OPEN /cocoon/tcp/1 with an empty map', FrameType.open, none, 1, open),
    frame('DATA hello', FrameType.data, none, 1, utf8('hello')),
    frame('DATA hello, the last', FrameType.data, fin, 2, utf8('hello')),
    frame('DATA nothing, the last', FrameType.data, fin, 0xffff_ffff, new Uint8Array()),
    frame('DATA charged to the minimum', FrameType.data, minimum, 3, utf8('x')),
    frame('CREDIT of the session', FrameType.credit, none, 0, u64(8 * 1024 * 1024)),
    frame('CREDIT above 32 bits', FrameType.credit, none, 5, u64(2 ** 32 + 1)),
    frame('CREDIT at its highest', FrameType.credit, none, 5, u64(Number.MAX_SAFE_INTEGER)),
    frame('RESET cancel', FrameType.reset, none, 7, code(ResetCode.cancel)),
    frame('PING', FrameType.ping, none, 0, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8)),
    frame('PONG', FrameType.ping, pong, 0, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8)),
    frame('ACK 300', FrameType.ack, none, 0, u64(300)),
    frame('GOAWAY shutting down', FrameType.goaway, none, 0, code(ResetCode.shuttingDown)),
  ];
}

export function encodeFrame({ type, flags, streamId, payload }: FrameVector): Uint8Array {
  const bytes = new Uint8Array(frameHeadBytes + payload.length);
  writeFrameHead(bytes, 0, type, flags, payload.length, streamId);
  bytes.set(payload, frameHeadBytes);
  return bytes;
}

/** Each message as it goes over the wire in both encodings. */
export async function sampleEncodings(sample: SampleObjects) {
  const client = await sampleClientMessages(sample);
  const server = sampleServerMessages(sample);
  const hello = sampleHello(sample);
  return {
    client: client.map((message) => ({
      message,
      msgpack: encode(clientMessageSchema, message),
      json: encodeJson(clientMessageSchema, message),
    })),
    server: server.map((message) => ({
      message,
      msgpack: encode(serverMessageSchema, message),
      json: encodeJson(serverMessageSchema, message),
    })),
    hello: { message: hello, msgpack: encode(helloSchema, hello) },
  };
}

/** A redemption by somebody else of the same token, as whoever copied it could make. */
export async function secondRedemption({ token, otherDevice }: SampleObjects): Promise<Redemption> {
  return redeem(await readSetupToken(token), otherDevice, otherDevice.peerId);
}
