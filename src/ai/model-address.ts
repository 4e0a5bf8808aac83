/** Where servers of models are, and what their models are called: as users write it, and as it is meant. */

const ollamaPort = 11434;

/** `0.0.0.0`, on which it listens everywhere, is asked on this machine. */
export function ollamaUrl(host: string): string {
  const trimmed = host.trim();
  const withScheme = /^https?:\/\//i.test(trimmed)
    ? trimmed
    : `http://${trimmed === '' ? '127.0.0.1' : trimmed}`;
  if (!URL.canParse(withScheme)) return `http://127.0.0.1:${ollamaPort}`;
  const url = new URL(withScheme);
  // A URL without a port has that of its scheme; a bare host has Ollama's.
  if (url.port === '' && !/^https?:/i.test(trimmed)) url.port = String(ollamaPort);
  if (url.hostname === '0.0.0.0') url.hostname = '127.0.0.1';
  if (url.hostname === '[::]') url.hostname = '[::1]';
  return `${url.origin}${url.pathname.replace(/\/+$/, '')}`;
}

/** A setting that names a server by its address. */
export function isUrl(setting: string): boolean {
  return /^https?:\/\//i.test(setting.trim());
}

/** Base URLs end in `/v1` or the like; a bare host is taken for that of `/v1`. Null: not for fetch. */
export function openAiUrl(provider: string): string | null {
  if (!URL.canParse(provider)) return null;
  const url = new URL(provider);
  if (url.username !== '' || url.password !== '') return null;
  const path = url.pathname.replace(/\/+$/, '');
  return `${url.origin}${path === '' ? '/v1' : path}`;
}

const usualTag = ':latest';

/** `llama3.2:latest` is `llama3.2` wherever Ollama is asked. */
export function shortName(name: string): string {
  return name.endsWith(usualTag) ? name.slice(0, -usualTag.length) : name;
}
