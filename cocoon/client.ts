/** `cocoon/client`: what programs of this machine import to ask the mesh. */

export * from '@cocoon-mesh/plugins/client.node.ts';
