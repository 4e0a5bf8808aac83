/**
 * `node --import …/cocoon/register.ts`: `cocoon/client`, `cocoon/plugin` and `cocoon/plugin/testing` are found from
 * any folder, without a package in it.
 */

import '@cocoon-mesh/plugins/child/module-hook.node.ts';
