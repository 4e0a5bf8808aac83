/** The public names of tasks. */

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
