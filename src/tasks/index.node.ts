/** The public names of tasks. */

export type { HomeDevice } from './task-home.node.ts';
export type {
  FoundTask,
  ListedTask,
  PageRequest,
  RunEnd,
  TaskNews,
  TaskPage,
  TaskStoreOptions,
} from './task-store.node.ts';
export { TaskStore, openTaskStore } from './task-store.node.ts';
export type { CommandPolicy } from './command-policy.ts';
export { checkCommand, parseCommandPolicy } from './command-policy.ts';
export type { DeviceFactsOptions } from './device-facts.node.ts';
export { deviceFacts } from './device-facts.node.ts';
export type { DeviceFacts } from './requirements.ts';
export { missingRequirements, parseRequirement } from './requirements.ts';
export type { RunnableTasks, RunnerOptions } from './runner.node.ts';
export { TaskRunner } from './runner.node.ts';
export type { LogPiece, ReadOptions } from './task-log.node.ts';
