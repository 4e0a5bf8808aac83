/** The public names of the audit log. */

export type { AuditEntry, AuditFields, AuditValue } from './audit-line.node.ts';
export { AuditLog } from './audit-log.node.ts';
export type { AuditRead } from './read-audit.node.ts';
export { readAudit } from './read-audit.node.ts';
export type { VerifiedAudit } from './verify-audit.node.ts';
export { verifyAudit } from './verify-audit.node.ts';
