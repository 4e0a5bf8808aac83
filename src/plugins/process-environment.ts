/** What the process of a plugin is told of the machine: nothing that is a secret, nothing that is ours. */

/** Where programs, the user's files, the language and certificates are. Anything else is for `settings`. */
const passed: ReadonlySet<string> = new Set([
  'PATH',
  'HOME',
  'USER',
  'LOGNAME',
  'SHELL',
  'LANG',
  'LANGUAGE',
  'TZ',
  'TMPDIR',
  'TMP',
  'TEMP',
  'SYSTEMROOT',
  'LD_LIBRARY_PATH',
  'CUDA_VISIBLE_DEVICES',
  'SSL_CERT_FILE',
  'SSL_CERT_DIR',
  'NODE_EXTRA_CA_CERTS',
]);

export function processEnvironment(
  environment: Readonly<Record<string, string | undefined>>,
): Record<string, string> {
  const taken = Object.entries(environment).filter(
    (entry): entry is [string, string] =>
      entry[1] !== undefined && (passed.has(entry[0]) || entry[0].startsWith('LC_')),
  );
  return Object.fromEntries(taken);
}
