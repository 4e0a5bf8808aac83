/** Vectors of texts: how they are stored and sent, and the space that needs no model. Runs in Node and in the browser. */

export { lexicalFeatures, lexicalSpace, lexicalVector, lexicalVectorOf, lexicalWords, maxLexicalWords, stem } from './lexical.ts';
export { stopWords } from './stop-words.ts';
export { packVector, unpackVector } from './vector-bytes.ts';
