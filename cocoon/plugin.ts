/** `cocoon/plugin`: what a plugin imports. */

export * from '@cocoon-mesh/plugins/plugin-api.ts';
