/**
 * Writes ONNX models: as much of onnx.proto3 as graphs for inference need. Numbers of fields are those of
 * https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3
 */

export const onnxTypes = { float32: 1, int8: 3, int64: 7, bool: 9 } as const;
export type OnnxType = keyof typeof onnxTypes;

/** A name for a dimension that differs from run to run. */
export type Dimension = number | string;

/** A number is an integer. */
export type Attribute = number | string | readonly number[] | { readonly float: number };

const irVersion = 8;
const attributeTypes = { float: 1, int: 2, string: 3, ints: 7 } as const;

export class OnnxGraph {
  readonly #name: string;
  readonly #opset: number;
  readonly #nodes: Message[] = [];
  readonly #tensors: Message[] = [];
  readonly #inputs: Message[] = [];
  readonly #outputs: Message[] = [];
  readonly #constants = new Map<string, string>();
  #names = 0;

  constructor(name: string, opset: number) {
    this.#name = name;
    this.#opset = opset;
  }

  /** @returns its name, as all others do */
  input(name: string, type: OnnxType, dimensions: readonly Dimension[]): string {
    this.#inputs.push(valueInfo(name, type, dimensions));
    return name;
  }

  output(name: string, type: OnnxType, dimensions: readonly Dimension[]): string {
    this.#outputs.push(valueInfo(name, type, dimensions));
    return name;
  }

  tensor(
    type: OnnxType,
    dimensions: readonly number[],
    data: Float32Array | Int8Array | BigInt64Array,
    name: string = this.#unique('tensor'),
  ): string {
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    const message = new Message();
    for (const dimension of dimensions) message.int(1, dimension);
    this.#tensors.push(message.int(2, onnxTypes[type]).text(8, name).bytes(9, bytes));
    return name;
  }

  float(value: number): string {
    return this.#constant(`float ${value}`, () => this.tensor('float32', [], Float32Array.of(value)));
  }

  /** A list of integers, or one alone. */
  int(value: number | readonly number[]): string {
    const list = typeof value === 'number' ? [value] : value;
    const dimensions = typeof value === 'number' ? [] : [list.length];
    return this.#constant(`int ${JSON.stringify(value)}`, () =>
      this.tensor('int64', dimensions, BigInt64Array.from(list.map(BigInt))),
    );
  }

  /** A node with one output. */
  op(
    type: string,
    inputs: readonly string[],
    attributes: Readonly<Record<string, Attribute>> = {},
    name?: string,
  ): string {
    const output = name ?? this.#unique(type);
    this.ops(type, inputs, [output], attributes);
    return output;
  }

  ops(
    type: string,
    inputs: readonly string[],
    outputs: readonly string[],
    attributes: Readonly<Record<string, Attribute>> = {},
  ): void {
    const node = new Message();
    for (const input of inputs) node.text(1, input);
    for (const output of outputs) node.text(2, output);
    node.text(3, this.#unique('node')).text(4, type);
    for (const [key, value] of Object.entries(attributes)) node.message(5, attribute(key, value));
    this.#nodes.push(node);
  }

  build(): Uint8Array {
    const graph = new Message();
    for (const node of this.#nodes) graph.message(1, node);
    graph.text(2, this.#name);
    for (const tensor of this.#tensors) graph.message(5, tensor);
    for (const input of this.#inputs) graph.message(11, input);
    for (const output of this.#outputs) graph.message(12, output);
    return new Message()
      .int(1, irVersion)
      .text(2, 'cocoon')
      .message(7, graph)
      .message(8, new Message().text(1, '').int(2, this.#opset))
      .build();
  }

  #constant(key: string, make: () => string): string {
    const known = this.#constants.get(key);
    if (known !== undefined) return known;
    const made = make();
    this.#constants.set(key, made);
    return made;
  }

  #unique(prefix: string): string {
    return `${prefix}_${this.#names++}`;
  }
}

function valueInfo(name: string, type: OnnxType, dimensions: readonly Dimension[]): Message {
  const shape = new Message();
  for (const dimension of dimensions)
    shape.message(
      1,
      typeof dimension === 'string' ? new Message().text(2, dimension) : new Message().int(1, dimension),
    );
  const tensorType = new Message().int(1, onnxTypes[type]).message(2, shape);
  return new Message().text(1, name).message(2, new Message().message(1, tensorType));
}

function attribute(name: string, value: Attribute): Message {
  const message = new Message().text(1, name);
  if (typeof value === 'number') return message.int(3, value).int(20, attributeTypes.int);
  if (typeof value === 'string') return message.text(4, value).int(20, attributeTypes.string);
  if ('float' in value) return message.float(2, value.float).int(20, attributeTypes.float);
  for (const item of value) message.int(8, item);
  return message.int(20, attributeTypes.ints);
}

/** A message of protocol buffers under construction: https://protobuf.dev/programming-guides/encoding/ */
class Message {
  readonly #pieces: Uint8Array[] = [];
  #length = 0;

  int(field: number, value: number): this {
    return this.#varint(field * 8).#varint(value);
  }

  float(field: number, value: number): this {
    const bytes = new DataView(new ArrayBuffer(4));
    bytes.setFloat32(0, value, true);
    return this.#varint(field * 8 + 5).#add(new Uint8Array(bytes.buffer));
  }

  text(field: number, value: string): this {
    return this.bytes(field, new TextEncoder().encode(value));
  }

  bytes(field: number, value: Uint8Array): this {
    return this.#varint(field * 8 + 2)
      .#varint(value.length)
      .#add(value);
  }

  message(field: number, value: Message): this {
    this.#varint(field * 8 + 2).#varint(value.#length);
    for (const piece of value.#pieces) this.#add(piece);
    return this;
  }

  build(): Uint8Array {
    const bytes = new Uint8Array(this.#length);
    let at = 0;
    for (const piece of this.#pieces) {
      bytes.set(piece, at);
      at += piece.length;
    }
    return bytes;
  }

  #varint(value: number): this {
    const bytes: number[] = [];
    let left = BigInt.asUintN(64, BigInt(value));
    do {
      const low = Number(left & 127n);
      left >>= 7n;
      bytes.push(left === 0n ? low : low | 128);
    } while (left !== 0n);
    return this.#add(Uint8Array.from(bytes));
  }

  #add(piece: Uint8Array): this {
    this.#pieces.push(piece);
    this.#length += piece.length;
    return this;
  }
}
