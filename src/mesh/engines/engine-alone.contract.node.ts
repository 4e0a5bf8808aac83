/**
 * Connects an engine with itself where there is loopback and nothing else, beside a name server of its own
 * that counts what it is asked. For the contract suite, which runs it in fresh namespaces and reads its one line.
 */

import { createSocket } from 'node:dgram';
import { lookup } from 'node:dns/promises';
import { once } from 'node:events';
import { networkInterfaces } from 'node:os';
import { link, listen } from '../engine-pair.contract.ts';
import { selectEngine } from './select.node.ts';

let queries = 0;
const nameServer = createSocket('udp4').on('message', (query, from) => {
  queries++;
  // The question again as its answer, marked "no such name".
  const answer = Buffer.from(query);
  answer.writeUInt16BE(0x8183, 2);
  nameServer.send(answer, from.port, from.address);
});
nameServer.bind(53, '127.0.0.1');
await once(nameServer, 'listening');

const { engine } = await selectEngine(process.argv[2]);
const linked = await link(engine, engine);
const there = listen(linked.answerer);
linked.offerer.send(new Uint8Array(10));
await there.until((listener) => listener.messages.length === 1);
await Promise.all([linked.pair.offerer.gathered, linked.pair.answerer.gathered]);
// Looked up by the system, were it let through: it must not be.
linked.pair.offerer.connection.addCandidate('candidate:1 1 udp 1 0123abcd-beef.local 9 typ host');
await linked[Symbol.asyncDispose]();

const asked = queries;
await lookup('control.example').catch(() => undefined);
const result = { interfaces: Object.keys(networkInterfaces()), asked, counted: queries > asked };
nameServer.close();
console.log(JSON.stringify(result));
