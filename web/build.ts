/** `npm ci` builds the page by this; `npm run build:web` again after a change. */

import { build } from 'vite';

await build({ configFile: `${import.meta.dirname}/vite.config.ts`, logLevel: 'warn' });
