import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { concat, fromHex, toHex, utf8 } from './bytes.ts';
import { encode } from './codec.ts';
import { MeshError } from './errors.ts';
import {
  decodeServiceOpen,
  encodeBody,
  encodeBodyPrefix,
  encodeConnected,
  encodeEnd,
  encodeInformational,
  encodeProxyError,
  encodeRequestHead,
  encodeResponseHead,
  encodeServiceOpen,
  type HttpRecord,
  type HttpRecordDecoder,
  maxHeadRecordBytes,
  proxyErrorSchema,
  RecordKind,
  requestDecoder,
  type RequestHead,
  responseDecoder,
  tcpDecoder,
} from './http-messages.ts';
import { limits } from './limits.ts';

const request: RequestHead = { method: 'GET', target: '/a?b', headers: ['Host', 'x', 'X-Bytes', '\x80\xff'] };
const response = { status: 200, reason: 'OK', headers: ['A', '1', 'a', '2'] };

test('the records of a request come back as they were sent, however they are cut', () => {
  const bytes = concat(encodeRequestHead(request), encodeBody(utf8('some bytes')), encodeEnd(['X-T', '1']));
  for (let cut = 1; cut < bytes.length; cut++) {
    const decoder = requestDecoder();
    const records = readAll(decoder, [bytes.subarray(0, cut), bytes.subarray(cut)]);
    assert.deepEqual(records[0], { kind: 'head', head: request });
    assert.deepEqual(bodyOf(records), utf8('some bytes'));
    assert.deepEqual(records.at(-1), { kind: 'end', trailers: ['X-T', '1'] });
    assert.ok(decoder.complete);
  }
});

test('the records of a response come back, interim ones too', () => {
  const early = { status: 103, reason: 'Early', headers: ['Link', '<a>'] };
  const records = readAll(responseDecoder(), [
    encodeInformational(early),
    encodeResponseHead(response),
    encodeBodyPrefix(3),
    utf8('abc'),
    encodeEnd([]),
  ]);
  assert.deepEqual(records, [
    { kind: 'informational', head: early },
    { kind: 'head', head: response },
    { kind: 'body', bytes: utf8('abc') },
    { kind: 'end', trailers: [] },
  ]);
});

test('the vectors of the wire stay as they are', () => {
  assert.equal(toHex(encodeEnd([])), '04000000');
  assert.equal(toHex(encodeConnected()), '06000000');
  assert.equal(toHex(encodeBody(utf8('hi'))), '030000026869');
  assert.equal(
    toHex(encodeRequestHead({ method: 'GET', target: '/', headers: ['Host', 'x'] })),
    '01000027de0003a66d6574686f64a3474554a6746172676574a12fa76865616465727392a4486f7374a178',
  );
  const [record] = readAll(requestDecoder(), [
    fromHex('0100002583a66d6574686f64a3474554a6746172676574a12fa76865616465727392a4486f7374a178'),
  ]);
  assert.deepEqual(record, { kind: 'head', head: { method: 'GET', target: '/', headers: ['Host', 'x'] } });
});

test('a body that breaks off is not complete', () => {
  const decoder = requestDecoder();
  readAll(decoder, [encodeRequestHead(request), encodeBodyPrefix(9), utf8('abc')]);
  assert.equal(decoder.complete, false);
});

test('after a head with upgrade, and after connected, everything is raw', () => {
  const upgrade = { ...request, upgrade: 'websocket' };
  const raw = Uint8Array.of(9, 9, 9, 9, 9);
  const records = readAll(requestDecoder(), [concat(encodeRequestHead(upgrade), raw)]);
  assert.deepEqual(records, [
    { kind: 'head', head: upgrade },
    { kind: 'raw', bytes: raw },
  ]);
  assert.deepEqual(readAll(tcpDecoder(), [encodeConnected(), raw]), [
    { kind: 'connected' },
    { kind: 'raw', bytes: raw },
  ]);
});

test('an error ends a response wherever it stands, and speaks only of the request', () => {
  const denied = encodeProxyError(new MeshError('service_refused', 'not there'));
  for (const before of [[], [encodeResponseHead(response)]]) {
    const decoder = responseDecoder();
    const last = readAll(decoder, [...before, denied]).at(-1);
    assert.ok(last?.kind === 'error' && last.error.code === 'service_refused');
    assert.ok(decoder.complete);
  }
  for (const code of ['unauthorized', 'owner_key_offline', 'no such code', 'toString']) {
    const payload = encode(proxyErrorSchema, { code, message: '' });
    const bytes = concat(Uint8Array.of(RecordKind.error, 0, 0, payload.length), payload);
    const [record] = readAll(responseDecoder(), [bytes]);
    assert.ok(record?.kind === 'error' && record.error.code === 'bad_gateway');
  }
});

test('records out of their order are violations', () => {
  const head = encodeRequestHead(request);
  const body = encodeBody(utf8('x'));
  const refused: [() => HttpRecordDecoder<never> | HttpRecordDecoder<RequestHead>, Uint8Array[]][] = [
    [requestDecoder, [body]],
    [requestDecoder, [encodeEnd([])]],
    [requestDecoder, [head, head]],
    [requestDecoder, [head, encodeEnd([]), body]],
    [requestDecoder, [head, encodeInformational({ status: 100, reason: '', headers: [] })]],
    [requestDecoder, [encodeProxyError(new MeshError('bad_gateway'))]],
    [requestDecoder, [head, encodeConnected()]],
    [requestDecoder, [head, encodeBodyPrefix(0)]],
    [requestDecoder, [Uint8Array.of(0, 0, 0, 0)]],
    [tcpDecoder, [encodeEnd([])]],
    [tcpDecoder, [encodeConnected().fill(1, 3)]],
  ];
  for (const [decoder, pieces] of refused) {
    assert.throws(() => readAll<RequestHead>(decoder(), pieces), { name: 'MeshError' });
  }
});

test('heads that could mean something else on a wire are refused in both directions', () => {
  const heads: Partial<RequestHead>[] = [
    { method: 'GET /' },
    { method: '' },
    { target: 'http://elsewhere/' },
    { target: '/a b' },
    { target: '/a\r\nX: 1' },
    { target: '' },
    { headers: ['A'] },
    { headers: ['A', 'b\r\nC: d'] },
    { headers: ['A', 'b\0'] },
    { headers: ['A:', 'b'] },
    { headers: ['', 'b'] },
    { headers: ['A', '\u0100'] },
    { upgrade: 'a\r\nb' },
  ];
  for (const head of heads) {
    assert.throws(
      () => encodeRequestHead({ ...request, ...head }),
      { code: 'bad_message' },
      JSON.stringify(head),
    );
  }
  for (const status of [99, 100, 101, 103, 1000, 200.5]) {
    assert.throws(() => encodeResponseHead({ ...response, status }), { code: 'bad_message' }, String(status));
  }
  for (const status of [99, 101, 200]) {
    assert.throws(() => encodeInformational({ ...response, status }), { code: 'bad_message' });
  }
});

test('64 KiB of any header bytes fit a head, and a record beyond the limit is refused before it is read', () => {
  const headers = ['X-Large', '\xff'.repeat(64 * 1024)];
  assert.ok(encodeRequestHead({ ...request, headers }).length > 128 * 1024);
  const length = maxHeadRecordBytes + 1;
  const decoder = requestDecoder();
  decoder.push(Uint8Array.of(RecordKind.head, length >>> 16, (length >>> 8) & 255, length & 255));
  assert.throws(() => decoder.next(), { code: 'header_too_large' });
});

test('a head that comes byte by byte is put together', () => {
  const large = { ...request, headers: ['X', 'y'.repeat(5000)] };
  const bytes = encodeRequestHead(large);
  const pieces = Array.from(bytes, (_, i) => bytes.subarray(i, i + 1));
  assert.deepEqual(readAll(requestDecoder(), pieces), [{ kind: 'head', head: large }]);
});

test('an OPEN header names a service', () => {
  assert.deepEqual(decodeServiceOpen(encodeServiceOpen({ service: 'web' })), { service: 'web' });
  assert.throws(() => decodeServiceOpen(utf8('junk')), { code: 'bad_message' });
  assert.throws(() => decodeServiceOpen(new Uint8Array(limits.maxOpenHeaderBytes + 1)), {
    code: 'message_too_large',
  });
});

test('bytes of any kind give records or a MeshError, and nothing else', () => {
  const valid = concat(encodeRequestHead(request), encodeBody(utf8('x')), encodeEnd(['A', 'b']));
  const changed = fc
    .tuple(fc.nat(valid.length - 1), fc.nat(255))
    .map(([at, byte]) => Uint8Array.from(valid, (old, i) => (i === at ? byte : old)));
  const bytes = fc.oneof(fc.uint8Array({ maxLength: 300 }), changed);
  const cuts = fc.array(fc.nat(300), { maxLength: 5 });
  fc.assert(
    fc.property(bytes, cuts, fc.nat(2), (input, at, which) => {
      const decoder = [requestDecoder, responseDecoder, tcpDecoder][
        which
      ]?.() as HttpRecordDecoder<RequestHead>;
      const points = [0, ...at.map((cut) => Math.min(cut, input.length)).sort((a, b) => a - b), input.length];
      try {
        readAll(
          decoder,
          points.slice(1).map((end, i) => input.subarray(points[i], end)),
        );
      } catch (thrown) {
        assert.ok(thrown instanceof MeshError, String(thrown));
      }
    }),
    { seed: 20261121, numRuns: 3000 },
  );
});

test('any head that is sent is read as the same head', () => {
  const token = fc.stringMatching(/^[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,20}$/);
  const value = fc.string({ unit: fc.nat(0xff).map((code) => String.fromCharCode(code)) });
  const clean = value.map((text) => text.replace(/[^\t\x20-\x7e\x80-\xff]/g, ''));
  const headers = fc.array(fc.tuple(token, clean), { maxLength: 20 }).map((pairs) => pairs.flat());
  const target = clean.map((text) => `/${text.replace(/[\t ]/g, '')}`);
  fc.assert(
    fc.property(fc.record({ method: token, target, headers }, { noNullPrototype: true }), (head) => {
      assert.deepEqual(readAll(requestDecoder(), [encodeRequestHead(head)]), [{ kind: 'head', head }]);
    }),
    { seed: 20261121, numRuns: 500 },
  );
});

function readAll<Head extends { readonly upgrade?: string | undefined }>(
  decoder: HttpRecordDecoder<Head>,
  pieces: readonly Uint8Array[],
): HttpRecord<Head>[] {
  const records: HttpRecord<Head>[] = [];
  for (const piece of pieces) {
    decoder.push(piece);
    for (let record = decoder.next(); record; record = decoder.next()) records.push(record);
  }
  return records;
}

function bodyOf(records: readonly HttpRecord<RequestHead>[]): Uint8Array {
  return concat(...records.map((record) => (record.kind === 'body' ? record.bytes : new Uint8Array())));
}
