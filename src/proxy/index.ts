/** The public names of the proxy that run in Node and in the browser. */

export type { FetchOptions, FetchRequest, FetchResponse } from './fetch-through.ts';
export { fetchThrough } from './fetch-through.ts';
export { endToEnd, fieldPairs, fieldValues, withoutFields } from './raw-headers.ts';
export { requestError } from './record-stream.ts';
