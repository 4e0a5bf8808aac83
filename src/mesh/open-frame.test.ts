import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fromHex, toHex } from '@cocoon-mesh/protocol';
import { ProtocolNames } from './open-frame.ts';

test('a name goes and comes back, known or not', () => {
  const names = new ProtocolNames();
  for (let round = 0; round < 2; round++) {
    for (let i = 0; i < 20; i++) {
      const encoded = names.encode(`/cocoon/ä${i}/1`);
      assert.equal(names.decode(encoded, 0, encoded.length), `/cocoon/ä${i}/1`);
    }
  }
  assert.equal(toHex(names.encode('/p')), '022f70');
});

test('a known name is not found where only its beginning is', () => {
  const names = new ProtocolNames();
  names.encode('/pq');
  assert.equal(names.decode(fromHex('022f7071'), 0, 4), '/p');
  assert.throws(() => names.decode(fromHex('032f7071'), 0, 3));
});
