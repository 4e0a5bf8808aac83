/** Words that say little about what a text is about. Part of `cocoon-lexical-v1`: never changed without a new name. */

export const stopWords: ReadonlySet<string> = new Set(
  (
    'a about all also am an and any are as at be been but by can could did do does each for from had has have ' +
    'he here his her how i if in into is it its just may me might more most must my no not now of off on only ' +
    'or other our out over own same she should so some such than that the their then there these they this ' +
    'those to too under up us very was we were what when where which who why will with would you your'
  ).split(' '),
);
