/** Capability requests to whichever device serves them best, and the answering end. Runs in Node and in the browser. */

export type { Content, Provider, ProviderCall, ProviderLoad, ProviderState } from './provider.ts';
export type { AnswerSource, CapabilityAnswer, CapabilityRequest, RequestCapability } from './request.ts';
export { collect } from './answer-under-way.ts';
export { CapabilityServer } from './capability-server.ts';
export { Descriptions } from './descriptions.ts';
export { DeviceStates } from './device-states.ts';
export { LocalCapabilities } from './local-capabilities.ts';
export type { OwnCapability } from './local-capabilities.ts';
export { CapabilityRouter } from './router.ts';
export type { InsteadOf } from './request.ts';
