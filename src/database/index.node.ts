/** The public names of what opens databases. */

export type { DatabaseUse } from './open-database.node.ts';
export { openDatabase } from './open-database.node.ts';
export type { SchemaVersion } from './schema-version.node.ts';
export { recordSchemaVersion } from './schema-version.node.ts';
export { databaseError } from './serial-driver.node.ts';
export type { Slot } from './statements.node.ts';
export { Statements } from './statements.node.ts';
