/**
 * SCTP packets as they go over DTLS (RFC 9260 section 3, RFC 8261): checksum, chunks in, chunks out. Parsing
 * never throws and always moves forward; what the chunks mean is the matter of the association.
 */

/** Chunk types of RFC 9260 section 3.2 and RFC 6525; the numbers are the wire's. */
export const ChunkType = {
  data: 0,
  init: 1,
  initAck: 2,
  sack: 3,
  heartbeat: 4,
  heartbeatAck: 5,
  abort: 6,
  shutdown: 7,
  shutdownAck: 8,
  cookieEcho: 10,
  cookieAck: 11,
  reconfig: 130,
} as const;

export const DataFlag = { end: 1, begin: 2 } as const;

export const packetHeaderBytes = 12;
export const dataHeaderBytes = 16;

export interface Chunk {
  readonly type: number;
  readonly flags: number;
  readonly body: Buffer;
}

export interface Packet {
  readonly verificationTag: number;
  readonly chunks: readonly Chunk[];
}

/** Null for a packet with a wrong checksum, wrong lengths or no chunk: it is dropped whole. */
export function parsePacket(bytes: Buffer): Packet | null {
  if (bytes.length < packetHeaderBytes + 4 || bytes.readUInt32LE(8) !== checksum(bytes, bytes.length))
    return null;
  const chunks: Chunk[] = [];
  for (let offset = packetHeaderBytes; offset < bytes.length;) {
    if (offset + 4 > bytes.length) return null;
    const length = bytes.readUInt16BE(offset + 2);
    // Shorter than its own head: the next chunk would be this one again, for ever.
    if (length < 4 || offset + length > bytes.length) return null;
    chunks.push({
      type: bytes[offset] ?? 0,
      flags: bytes[offset + 1] ?? 0,
      body: bytes.subarray(offset + 4, offset + length),
    });
    offset += padded(length);
  }
  return { verificationTag: bytes.readUInt32BE(4), chunks };
}

export interface Parameter {
  readonly type: number;
  readonly value: Buffer;
}

/** Stops at the first malformed parameter. */
export function parseParameters(bytes: Buffer): Parameter[] {
  const parameters: Parameter[] = [];
  for (let offset = 0; offset + 4 <= bytes.length;) {
    const length = bytes.readUInt16BE(offset + 2);
    if (length < 4 || offset + length > bytes.length) break;
    parameters.push({
      type: bytes.readUInt16BE(offset),
      value: bytes.subarray(offset + 4, offset + length),
    });
    offset += padded(length);
  }
  return parameters;
}

export function writeParameters(parameters: readonly Parameter[]): Buffer {
  const parts = parameters.map(({ type, value }) => {
    const part = Buffer.alloc(padded(4 + value.length));
    part.writeUInt16BE(type, 0);
    part.writeUInt16BE(4 + value.length, 2);
    value.copy(part, 4);
    return part;
  });
  return Buffer.concat(parts);
}

/** Fills one packet after the other in the same memory. Take what `finish` gives before the next `begin`. */
export class PacketWriter {
  readonly #bytes: Buffer;
  #length = packetHeaderBytes;

  constructor(mtu: number) {
    this.#bytes = Buffer.alloc(mtu);
    this.#bytes.writeUInt16BE(sctpPort, 0);
    this.#bytes.writeUInt16BE(sctpPort, 2);
  }

  set ports({ source, destination }: { source: number; destination: number }) {
    this.#bytes.writeUInt16BE(source, 0);
    this.#bytes.writeUInt16BE(destination, 2);
  }

  get empty(): boolean {
    return this.#length === packetHeaderBytes;
  }

  /** Bytes left for chunks. */
  get room(): number {
    return this.#bytes.length - this.#length;
  }

  begin(verificationTag: number): void {
    this.#bytes.writeUInt32BE(verificationTag, 4);
    this.#length = packetHeaderBytes;
  }

  chunk(type: number, flags: number, body: Uint8Array): void {
    const start = this.#length;
    this.#head(start, type, flags, 4 + body.length);
    this.#bytes.set(body, start + 4);
    this.#pad(start, 4 + body.length);
  }

  data(flags: number, tsn: number, sequence: number, protocol: number, payload: Uint8Array): void {
    const bytes = this.#bytes;
    const start = this.#length;
    const length = dataHeaderBytes + payload.length;
    this.#head(start, ChunkType.data, flags, length);
    write32(bytes, start + 4, tsn);
    write32(bytes, start + 8, sequence);
    write32(bytes, start + 12, protocol);
    bytes.set(payload, start + dataHeaderBytes);
    this.#pad(start, length);
  }

  finish(): Buffer {
    this.#bytes.writeUInt32LE(checksum(this.#bytes, this.#length), 8);
    return this.#bytes.subarray(0, this.#length);
  }

  #head(start: number, type: number, flags: number, length: number): void {
    this.#bytes[start] = type;
    this.#bytes[start + 1] = flags;
    this.#bytes[start + 2] = length >>> 8;
    this.#bytes[start + 3] = length;
  }

  #pad(start: number, length: number): void {
    const end = start + padded(length);
    for (let i = start + length; i < end; i++) this.#bytes[i] = 0;
    this.#length = end;
  }
}

/** The SCTP port of WebRTC (RFC 8841). */
export const sctpPort = 5000;

export function padded(length: number): number {
  return (length + 3) & ~3;
}

function write32(bytes: Uint8Array, offset: number, value: number): void {
  bytes[offset] = value >>> 24;
  bytes[offset + 1] = value >>> 16;
  bytes[offset + 2] = value >>> 8;
  bytes[offset + 3] = value;
}

/** CRC32c (RFC 9260 appendix A), eight bytes a step. The checksum field itself counts as zero. */
export function checksum(bytes: Uint8Array, length: number): number {
  let crc = update(0xffff_ffff, bytes, 0, 8);
  crc = update(crc, noChecksum, 0, 4);
  return ~update(crc, bytes, packetHeaderBytes, length) >>> 0;
}

const noChecksum = new Uint8Array(4);
/** Table k: the effect of a byte that is followed by k zero bytes. */
const [t0, t1, t2, t3, t4, t5, t6, t7] = crcTables();

function update(seed: number, bytes: Uint8Array, start: number, end: number): number {
  let crc = seed;
  let i = start;
  for (; i + 8 <= end; i += 8) {
    crc ^=
      (bytes[i] as number) |
      ((bytes[i + 1] as number) << 8) |
      ((bytes[i + 2] as number) << 16) |
      ((bytes[i + 3] as number) << 24);
    crc =
      (t7[crc & 0xff] as number) ^
      (t6[(crc >>> 8) & 0xff] as number) ^
      (t5[(crc >>> 16) & 0xff] as number) ^
      (t4[crc >>> 24] as number) ^
      (t3[bytes[i + 4] as number] as number) ^
      (t2[bytes[i + 5] as number] as number) ^
      (t1[bytes[i + 6] as number] as number) ^
      (t0[bytes[i + 7] as number] as number);
  }
  for (; i < end; i++) crc = (crc >>> 8) ^ (t0[(crc ^ (bytes[i] as number)) & 0xff] as number);
  return crc;
}

type Eight<T> = readonly [T, T, T, T, T, T, T, T];

function crcTables(): Eight<Int32Array> {
  const tables = Array.from({ length: 8 }, () => new Int32Array(256));
  const [first] = tables as unknown as Eight<Int32Array>;
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f6_3b78 : crc >>> 1;
    first[byte] = crc;
  }
  for (let byte = 0; byte < 256; byte++) {
    let crc = first[byte] as number;
    for (const table of tables.slice(1)) {
      crc = (crc >>> 8) ^ (first[crc & 0xff] as number);
      table[byte] = crc;
    }
  }
  return tables as unknown as Eight<Int32Array>;
}
