import { after, before } from 'node:test';
import { Postgres } from '../test/doubles/postgres.ts';
import { shareStoreContract } from './share-store.contract.ts';
import { storeContract } from './store.contract.ts';

let postgres: Postgres;
before(async () => {
  postgres = await Postgres.start();
});
after(() => postgres[Symbol.asyncDispose]());

storeContract('PostgreSQL', { newUrl: () => postgres.newUrl(), servers: 2 });
shareStoreContract('PostgreSQL', { newUrl: () => postgres.newUrl(), servers: 2 });
