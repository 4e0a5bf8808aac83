import { after, before } from 'node:test';
import { Postgres } from '../test/doubles/postgres.ts';
import { storeContract } from './store.contract.ts';

let postgres: Postgres;
before(async () => {
  postgres = await Postgres.start();
});
after(() => postgres[Symbol.asyncDispose]());

storeContract('PostgreSQL', { newUrl: () => postgres.newUrl(), servers: 2 });
