/** The public names of the wire. Siblings import these, or a file by its name. */

export * from './bytes.ts';
export * from './clock.ts';
export * from './errors.ts';
export * from './frame.ts';
export * from './limits.ts';
