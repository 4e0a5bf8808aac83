import { engineContract } from '../engine.contract.ts';
import { libdatachannelEngine } from './libdatachannel.node.ts';

engineContract('libdatachannel', {
  offerer: () => libdatachannelEngine(),
  answerer: () => libdatachannelEngine(),
});
