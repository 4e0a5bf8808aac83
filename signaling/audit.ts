/**
 * What the server notes for good: who was refused, which tokens were used, whom it introduced, what it learned of
 * owners. Ids, codes and source addresses, and nothing that anybody could use. The log itself is handed in; tests
 * and benches go without.
 */

/** The names stand in logs for good: one is never given another meaning. */
export type SignalingEvent =
  | 'sign_in.refused'
  | 'token.redeemed'
  | 'redemption.refused'
  | 'introduction'
  | 'introduction.refused'
  | 'revocations.learned'
  | 'owner.rotated'
  | 'share.stored';

export interface SignalingAudit {
  /** Must not throw. With a `code` it is a refusal, of which a log writes only so many. */
  append(
    event: SignalingEvent,
    fields: Readonly<Record<string, string | number | boolean | null | undefined>>,
  ): void;
}

export const noAudit: SignalingAudit = { append: () => undefined };
