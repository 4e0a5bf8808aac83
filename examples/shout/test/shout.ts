/** `cocoon plugins test examples/shout` */

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { startPlugin, testPlugin } from 'cocoon/plugin/testing';

const folder = new URL('..', import.meta.url).pathname;

testPlugin({
  folder,
  samples: [
    { protocol: 'text.shout', payload: { text: 'hello' }, answer: { text: 'HELLO!' } },
    {
      protocol: 'text.echo',
      payload: { text: 'ho', times: 3 },
      chunks: ['ho', 'ho', 'ho'],
      answer: { times: 3 },
    },
  ],
  queries: [{ name: 'shouted', rows: [] }],
});

it('marks what it shouts as the user wants it', async () => {
  const plugin = await startPlugin({ folder, settings: { mark: '?' } });
  try {
    assert.deepEqual((await plugin.request('text.shout', { text: 'really' })).payload, { text: 'REALLY?' });
    assert.deepEqual(await plugin.query('shouted'), [{ text: 'REALLY?' }]);
  } finally {
    await plugin.stop();
  }
});

it('refuses to shout nothing', async () => {
  const plugin = await startPlugin({ folder });
  try {
    await assert.rejects(plugin.request('text.shout', { text: ' ' }), { code: 'bad_payload' });
  } finally {
    await plugin.stop();
  }
});

it('stops echoing when nobody listens any more', async () => {
  const plugin = await startPlugin({ folder });
  try {
    let heard = 0;
    for await (const _ of plugin.stream('text.echo', { text: 'ho', times: 1_000_000_000 }))
      if (++heard === 10) break;
    assert.equal(heard, 10);
  } finally {
    await plugin.stop();
  }
});
