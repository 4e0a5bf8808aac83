/**
 * The door every session description and candidate passes, theirs and ours. What is read here is written
 * anew from the few fields a data channel needs, so that no engine (one of them native code that aborts the
 * process on surprises) ever sees text chosen by the other side. Formats: RFC 8866 (SDP), RFC 8841
 * (data channels), RFC 8122 (fingerprints), RFC 8839 (ICE). Whose certificate it is, is the proof's matter.
 */

import type { Bytes } from '@cocoon-mesh/protocol';
import { fromHex, limits, MeshError, toHex } from '@cocoon-mesh/protocol';

export type SdpType = 'offer' | 'answer';

/** One data-channel section, with everything else left behind. */
export interface Description {
  readonly type: SdpType;
  readonly iceUfrag: string;
  readonly icePassword: string;
  /** SHA-256 of the certificate, 32 bytes. */
  readonly fingerprint: Bytes;
  /** DTLS role (RFC 8842): an offer leaves it open or asks to be the client, an answer takes one. */
  readonly setup: 'actpass' | 'active' | 'passive';
  readonly mid: string;
  readonly sctpPort: number;
  /** Largest message its sender accepts, in bytes; never below `limits.maxCarrierMessageBytes`. */
  readonly maxMessageBytes: number;
  /** Usable candidates that came inside the text; `formatDescription` leaves them out. */
  readonly candidates: readonly Candidate[];
}

export interface Candidate {
  readonly foundation: string;
  readonly component: number;
  readonly priority: number;
  /** An IP address, or the `.local` name behind which browsers hide one. */
  readonly address: string;
  readonly port: number;
  readonly type: 'host' | 'srflx' | 'prflx' | 'relay';
  /** `raddr` and `rport`, where given. */
  readonly related?: { readonly address: string; readonly port: number };
}

const sectionPattern = /^m=application ([1-9]\d{0,4}) UDP\/DTLS\/SCTP webrtc-datachannel$/;
const fingerprintPattern = /^(\S+) ((?:[0-9a-f]{2}:)*[0-9a-f]{2})$/i;
const icePattern = /^[A-Za-z0-9+/]+$/;
const midPattern = /^[A-Za-z0-9_-]{1,16}$/;
const mdnsPattern = /^[0-9a-f-]{8,64}\.local$/i;
const candidatePattern =
  /^candidate:([A-Za-z0-9+/]{1,32}) (1) udp (\d{1,10}) (\S{1,72}) (\d{1,5}) typ (host|srflx|prflx|relay)((?: \S+ \S*)*)$/i;
const relatedPattern = /^ raddr (\S{1,72}) rport (\d{1,5})(?: |$)/i;

/**
 * Exactly one fingerprint line, of sha-256, may appear: engines differ in which of several they check, so
 * even two equal ones are refused. The same holds for every other field that is read.
 * @throws MeshError bad_sdp
 */
export function parseDescription(sdp: string, type: SdpType): Description {
  const lines = splitLines(sdp);
  const port = single(
    lines.filter((line) => line.startsWith('m=')),
    'media section',
  );
  if (!sectionPattern.test(port) || Number(sectionPattern.exec(port)?.[1]) > 65_535)
    throw bad('the media section is not a data channel over UDP');
  const attribute = (name: string): string | undefined => {
    const found = lines.filter((line) => line.startsWith(`a=${name}:`));
    return found.length === 0 ? undefined : single(found, name).slice(name.length + 3);
  };
  return {
    type,
    iceUfrag: iceField(attribute('ice-ufrag'), 4, 'ice-ufrag'),
    icePassword: iceField(attribute('ice-pwd'), 22, 'ice-pwd'),
    fingerprint: parseFingerprint(attribute('fingerprint')),
    setup: parseSetup(attribute('setup'), type),
    mid: parseMid(attribute('mid')),
    sctpPort: parseSctpPort(attribute('sctp-port')),
    maxMessageBytes: parseMaxMessageBytes(attribute('max-message-size')),
    candidates: parseCandidates(lines),
  };
}

/** The description as every engine of ours and every browser reads it; candidates are sent on their own. */
export function formatDescription(description: Description): string {
  return [
    'v=0',
    'o=- 1 1 IN IP4 0.0.0.0',
    's=-',
    't=0 0',
    `a=group:BUNDLE ${description.mid}`,
    'm=application 9 UDP/DTLS/SCTP webrtc-datachannel',
    'c=IN IP4 0.0.0.0',
    `a=ice-ufrag:${description.iceUfrag}`,
    `a=ice-pwd:${description.icePassword}`,
    'a=ice-options:trickle',
    `a=fingerprint:sha-256 ${formatFingerprint(description.fingerprint)}`,
    `a=setup:${description.setup}`,
    `a=mid:${description.mid}`,
    `a=sctp-port:${description.sctpPort}`,
    `a=max-message-size:${description.maxMessageBytes}`,
    '',
  ].join('\r\n');
}

/** Null for anything that is not a UDP candidate of component 1 with a plausible address. */
export function parseCandidate(line: string): Candidate | null {
  if (line.length > limits.maxCandidateBytes || !isPlainText(line)) return null;
  const match = candidatePattern.exec(line.startsWith('a=') ? line.slice(2) : line);
  if (!match) return null;
  const [, foundation = '', component, priority, address = '', port, type = '', rest = ''] = match;
  if (!isAddress(address) || !isPort(Number(port)) || Number(priority) > 0xffff_ffff) return null;
  const related = relatedPattern.exec(rest);
  return {
    foundation,
    component: Number(component),
    priority: Number(priority),
    address,
    port: Number(port),
    type: type.toLowerCase() as Candidate['type'],
    ...(related?.[1] !== undefined && isIpAddress(related[1]) && Number(related[2]) <= 65_535
      ? { related: { address: related[1], port: Number(related[2]) } }
      : {}),
  };
}

/** `candidate:…`, without `a=` and without extensions. */
export function formatCandidate(candidate: Candidate): string {
  const { foundation, component, priority, address, port, type, related } = candidate;
  const line = `candidate:${foundation} ${component} UDP ${priority} ${address} ${port} typ ${type}`;
  return related ? `${line} raddr ${related.address} rport ${related.port}` : line;
}

/** False for the `.local` names of browsers. Resolving those would ask the network for a stranger's name. */
export function isIpAddress(address: string): boolean {
  return isIpv4(address) || isIpv6(address);
}

export function isLoopback(address: string): boolean {
  return (isIpv4(address) && address.startsWith('127.')) || address === '::1';
}

function splitLines(sdp: string): readonly string[] {
  if (sdp.length > limits.maxSdpBytes) throw bad('it is too long');
  const lines = sdp.split(/\r\n|\n/);
  if (lines.at(-1) === '') lines.pop();
  if (lines[0] !== 'v=0') throw bad('it does not start with v=0');
  for (const line of lines) {
    if (!isPlainText(line)) throw bad('it has characters other than printable ASCII');
    if (!/^[a-z]=/.test(line)) throw bad('it has a line that is no field');
  }
  return lines;
}

/** Printable ASCII: then one character is one byte, and no line hides inside another. */
function isPlainText(text: string): boolean {
  return /^[\x20-\x7e]*$/.test(text);
}

function single(found: readonly string[], name: string): string {
  const [first] = found;
  if (first === undefined || found.length !== 1) throw bad(`it has ${found.length} of ${name}, not one`);
  return first;
}

function iceField(value: string | undefined, minLength: number, name: string): string {
  if (value === undefined || value.length < minLength || value.length > 256 || !icePattern.test(value))
    throw bad(`${name} is missing or malformed`);
  return value;
}

function parseFingerprint(value: string | undefined): Bytes {
  const [, hash, digits] = fingerprintPattern.exec(value ?? '') ?? [];
  if (hash?.toLowerCase() !== 'sha-256' || digits?.length !== 95)
    throw bad('it needs exactly one sha-256 fingerprint');
  return fromHex(digits.replaceAll(':', ''));
}

function formatFingerprint(fingerprint: Bytes): string {
  return (toHex(fingerprint).toUpperCase().match(/../g) ?? []).join(':');
}

function parseSetup(value: string | undefined, type: SdpType): Description['setup'] {
  if (type === 'offer' && (value === 'actpass' || value === 'active')) return value;
  if (type === 'answer' && (value === 'active' || value === 'passive')) return value;
  throw bad(`setup does not fit an ${type}`);
}

function parseMid(value: string | undefined): string {
  if (value === undefined || !midPattern.test(value)) throw bad('mid is missing or malformed');
  return value;
}

function parseSctpPort(value: string | undefined): number {
  const port = /^\d{1,5}$/.test(value ?? '') ? Number(value) : 0;
  if (!isPort(port)) throw bad('sctp-port is missing or malformed');
  return port;
}

/** RFC 8841: 64 KiB when it is not given, no limit when it is zero. */
function parseMaxMessageBytes(value: string | undefined): number {
  if (value === undefined) return 65_536;
  if (!/^\d{1,20}$/.test(value)) throw bad('max-message-size is malformed');
  // Above this number nothing changes for us, and engines that read it into 32 bits stay right.
  const bytes = Number(value) === 0 ? 262_144 : Math.min(Number(value), 262_144);
  if (bytes < limits.maxCarrierMessageBytes) throw bad('max-message-size is too small');
  return bytes;
}

function parseCandidates(lines: readonly string[]): readonly Candidate[] {
  return lines
    .filter((line) => line.startsWith('a=candidate:'))
    .map(parseCandidate)
    .filter((candidate) => candidate !== null);
}

function isPort(port: number): boolean {
  return port >= 1 && port <= 65_535;
}

function isAddress(address: string): boolean {
  return isIpAddress(address) || mdnsPattern.test(address);
}

function isIpv4(address: string): boolean {
  const parts = address.split('.');
  return parts.length === 4 && parts.every((part) => /^(0|[1-9]\d{0,2})$/.test(part) && Number(part) <= 255);
}

function isIpv6(address: string): boolean {
  const halves = address.split('::');
  if (halves.length > 2) return false;
  const groups = halves.flatMap((half) => (half === '' ? [] : half.split(':')));
  // The last 32 bits may be written as IPv4.
  const last = groups.at(-1);
  const v4Tail = last !== undefined && last.includes('.') && !address.endsWith('::');
  if (v4Tail && !isIpv4(last)) return false;
  const hex = v4Tail ? groups.slice(0, -1) : groups;
  const count = hex.length + (v4Tail ? 2 : 0);
  return (
    hex.every((group) => /^[0-9a-f]{1,4}$/i.test(group)) && (halves.length === 2 ? count < 8 : count === 8)
  );
}

function bad(detail: string): MeshError {
  return new MeshError('bad_sdp', `The session description is not usable: ${detail}`);
}
