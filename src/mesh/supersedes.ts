/** Which of two things that an owner said about the same device or share counts: the later one. */

interface Word {
  readonly epoch: number;
  readonly serial: number;
  /** A claimed chain, which bears no serial. */
  readonly provisional: boolean;
  readonly granted: number;
  readonly jti: string | null;
  readonly expires: number | null;
}

/**
 * Does `next` take the place of `known`? What the owner signed itself goes by epoch and serial. A chain yields to
 * what was signed for its own token or after it, so that nobody shows an old chain to escape a narrower
 * membership; the chain of a token that was made later is a new word of the owner.
 */
export function supersedes(next: Word, known: Word): boolean {
  if (next.provisional && known.provisional) return isLaterChain(next, known);
  if (next.provisional) return next.jti !== known.jti && next.granted >= known.granted;
  if (known.provisional) return !supersedes(known, next);
  return next.epoch > known.epoch || (next.epoch === known.epoch && next.serial > known.serial);
}

function isLaterChain(next: Word, known: Word): boolean {
  if (next.jti !== known.jti) return next.granted > known.granted;
  // Signaling gave a second receipt for the same token.
  return (next.expires ?? Infinity) > (known.expires ?? Infinity);
}
