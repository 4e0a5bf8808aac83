/** What the server needs of a logger; pino's fits. Fields never hold a token, a key or a signature. */

type Write = (fields: Record<string, unknown>, message: string) => void;

export interface SignalingLog {
  readonly debug: Write;
  readonly info: Write;
  readonly warn: Write;
  readonly error: Write;
}
