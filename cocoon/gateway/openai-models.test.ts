import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { ModelDevice } from './openai-models.ts';
import { chooseModel, isChosen, listModels, modelNotFound, offersOf } from './openai-models.ts';

function device(name: string, protocol: string, ...models: string[]): ModelDevice {
  const features = models.map((model) => `model:${model}`);
  return { name, peerId: `peer-${name}`, capabilities: [{ protocol, features }] };
}

const offers = offersOf([
  device('gpu', 'llm.chat', 'small', '@cf/large', 'llama'),
  device('server', 'llm.chat', 'small'),
  device('box@ABCDEFGH', 'llm.chat', 'theirs'),
  device('laptop', 'embeddings', 'words'),
]);

describe('the models of all devices', () => {
  it('are listed once each, then with their devices; those of other owners only so', () => {
    const ids = listModels(offers).map(({ id }) => id);
    assert.equal(
      ids.join(' '),
      'small @cf/large llama words ' +
        'small@gpu @cf/large@gpu llama@gpu small@server theirs@box@ABCDEFGH words@laptop',
    );
  });

  it('are meant by their names, with a device or without, whatever has an @ itself', () => {
    for (const [asked, model, at] of [
      ['small', 'small', null],
      ['small@server', 'small', 'server'],
      ['small@peer-server', 'small', 'peer-server'],
      ['theirs@box@ABCDEFGH', 'theirs', 'box@ABCDEFGH'],
      ['@cf/large', '@cf/large', null],
      ['@cf/large@gpu', '@cf/large', 'gpu'],
      ['llama:latest', 'llama', null],
      ['llama:latest@gpu', 'llama', 'gpu'],
      ['new@away', 'new', 'away'],
    ] as const)
      assert.deepEqual(chooseModel(asked, offers), { model, device: at }, asked);
  });

  it('of other owners are used when their device is named', () => {
    const chosen = (asked: string): string[] =>
      offers.filter((offer) => isChosen(offer, chooseModel(asked, offers))).map((offer) => offer.device);
    assert.deepEqual(chosen('small'), ['gpu', 'server']);
    assert.deepEqual(chosen('theirs'), []);
    assert.deepEqual(chosen('theirs@box@ABCDEFGH'), ['box@ABCDEFGH']);
  });

  it('are named to whoever asks for one that is not there', () => {
    const { message, hint } = modelNotFound({ model: 'gpt-9', device: null }, 'llm.chat', offers);
    assert.equal(message, 'No device has the model gpt-9');
    assert.equal(hint, 'Offered now: small, @cf/large, llama, theirs@box@ABCDEFGH.');
    assert.match(modelNotFound({ model: 'x', device: 'gpu' }, 'llm.chat', []).hint, /No device offers any/);
  });
});
