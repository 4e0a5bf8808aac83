/** The public names of the wire. Siblings import these, or a file by its name. */

export * from './bytes.ts';
export * from './capability-query.ts';
export * from './clock.ts';
export * from './codec.ts';
export * from './describe-messages.ts';
export * from './device-record.ts';
export * from './errors.ts';
export * from './fields.ts';
export * from './frame.ts';
export * from './grant.ts';
export * from './http-messages.ts';
export * from './identity.ts';
export * from './limits.ts';
export * from './membership.ts';
export * from './owner.ts';
export * from './owner-messages.ts';
export * from './peer-messages.ts';
export * from './problem.ts';
export * from './revocation.ts';
export * from './rights.ts';
export * from './share.ts';
export * from './signaling-messages.ts';
export * from './signed-object.ts';
export * from './stream-rights.ts';
export * from './ticket.ts';
export * from './versions.ts';
