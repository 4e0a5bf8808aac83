import assert from 'node:assert/strict';
import { test } from 'node:test';
import { namePattern } from '@cocoon-mesh/protocol';
import { browserName } from './device-name.ts';

test('every browser gets a legal device name that says what it is', () => {
  const names = {
    'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36':
      'chrome-linux',
    'Mozilla/5.0 (Macintosh; Intel Mac OS X 14_5) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Safari/605.1.15':
      'safari-mac',
    'Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:128.0) Gecko/20100101 Firefox/128.0': 'firefox-windows',
    'Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 Version/17.5 Mobile Safari/604.1':
      'safari-ios',
    '': 'browser-tab',
  };
  for (const [agent, name] of Object.entries(names)) {
    assert.equal(browserName(agent), name);
    assert.match(name, namePattern);
  }
});
