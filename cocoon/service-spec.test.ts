import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { formatService, parseService } from './service-spec.ts';

describe('a service', () => {
  test('is name:port, with type and health path when they are given', () => {
    assert.deepEqual(parseService('web:3000'), { name: 'web', port: 3000, type: 'http' });
    assert.deepEqual(parseService('db:3000:tcp'), { name: 'db', port: 3000, type: 'tcp' });
    assert.deepEqual(parseService('web:80:http:/api/health?x=1:2'), {
      name: 'web',
      port: 80,
      type: 'http',
      health: '/api/health?x=1:2',
    });
    assert.deepEqual(parseService('web:80:/up'), { name: 'web', port: 80, type: 'http', health: '/up' });
  });

  test('on a port that usually speaks no HTTP is tcp, unless somebody says otherwise', () => {
    assert.equal(parseService('postgres:5432').type, 'tcp');
    assert.equal(parseService('postgres:5432:http').type, 'http');
  });

  test('is refused by name and by form, with what to write instead', () => {
    const wrong = [
      ['web', 'bad_service'],
      ['web:', 'bad_service'],
      ['web:0', 'bad_service'],
      ['web:70000', 'bad_service'],
      ['web:80:udp', 'bad_service'],
      ['web:80:http:health', 'bad_service'],
      ['web:80:tcp:/health', 'bad_service'],
      ['web:80:http:/a b', 'bad_service'],
      ['web:80:http:/a\r\nx: y', 'bad_service'],
      [':80', 'bad_name'],
      ['Web:80', 'bad_name'],
      ['a--b:80', 'bad_name'],
      ['xn-a:80', 'bad_name'],
      [`${'a'.repeat(32)}:80`, 'bad_name'],
    ] as const;
    for (const [text, code] of wrong)
      assert.throws(
        () => parseService(text),
        (error: { code: string; hint: string }) => error.code === code && error.hint !== '',
        text,
      );
  });

  test('is written as it is read', () => {
    for (const text of ['web:80:http', 'db:5432:tcp', 'web:80:http:/up'])
      assert.equal(formatService(parseService(text)), text);
  });
});
