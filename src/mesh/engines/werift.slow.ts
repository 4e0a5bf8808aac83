import { engineContract } from '../engine.contract.ts';
import { libdatachannelEngine } from './libdatachannel.node.ts';
import { weriftEngine } from './werift.node.ts';

const werift = () => weriftEngine();
const libdatachannel = () => libdatachannelEngine();

engineContract('werift', { offerer: werift, answerer: werift });
engineContract('werift to libdatachannel', { offerer: werift, answerer: libdatachannel });
engineContract('libdatachannel to werift', { offerer: libdatachannel, answerer: werift });
