/**
 * The environment as it was at the start. Variables that hold secrets are taken out of `process.env` at once:
 * whatever the program starts later must not inherit them, and a crash report must not show them.
 */

export type Environment = Readonly<Record<string, string | undefined>>;

const secretVariables = [
  'COCOON_SECRET',
  'COCOON_SETUP_TOKEN',
  'COCOON_OIDC_TOKEN',
  'COCOON_DATABASE_URL',
  'COCOON_LLM_API_KEY',
  'COCOON_ICE_SERVERS',
  'SIGNALING_DATABASE_URL',
  'SIGNALING_TURN_SECRET',
] as const;

export function takeEnvironment(): Environment {
  const taken = { ...process.env };
  for (const name of secretVariables) delete process.env[name];
  // Set by `bin/cocoon` for this process alone.
  delete process.env['NODE_COMPILE_CACHE'];
  return taken;
}
