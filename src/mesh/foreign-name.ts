/**
 * What devices are called. A device of my owner has its bare name; one of another owner is `name@` and the first
 * characters of that owner's id, so that it can never be taken for one of mine.
 */

const ownerPrefix = 'own_';
const shownLength = 8;

/** @param mine my owner's id */
export function shownName(name: string, owner: string, mine: string | null): string {
  return owner === mine ? name : `${name}@${shortOwner(owner)}`;
}

/** Eight characters of 43: for people; PeerIds and whole owner ids are told apart by machines. */
export function shortOwner(owner: string): string {
  return owner.slice(ownerPrefix.length, ownerPrefix.length + shownLength);
}

/** Does `text` say `name@owner` of this owner, in short or in full? */
export function namesForeign(text: string, name: string, owner: string): boolean {
  return text === `${name}@${shortOwner(owner)}` || text === `${name}@${owner}`;
}
