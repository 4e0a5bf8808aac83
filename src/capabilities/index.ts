/** Capability requests to whichever device serves them best, and the answering end. Runs in Node and in the browser. */

export type { Content, Provider, ProviderCall, ProviderLoad, ProviderState } from './provider.ts';
export type { AnswerSource, CapabilityAnswer, CapabilityRequest, RequestCapability } from './request.ts';
