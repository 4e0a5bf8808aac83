/** `cocoon/plugin/testing`: what the tests of a plugin import. */

export * from '@cocoon-mesh/plugins/plugin-testing.node.ts';
