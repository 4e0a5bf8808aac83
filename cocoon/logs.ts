/**
 * The daemon's log: NDJSON by pino into a file of the home. What is secret is never handed to it; should it be,
 * by an error of ours, a last filter takes out whatever looks like a token, a secret or a recovery code.
 */

import { pino } from 'pino';
import type { LogLevel } from './config.ts';
import { LogFile } from './log-file.ts';

export type Log = (level: LogLevel, message: string, fields?: Record<string, unknown>) => void;

export interface OpenLog {
  readonly log: Log;
  readonly close: () => void;
}

/** Everything of ours that is worth stealing begins like this (grant.ts, owner.ts, identity-key.ts). */
const secretPattern = /cocoon-(?:token|secret|recovery|identity)-1\.[A-Za-z0-9_-]+|#token=[^"\s]+/g;

/** @param also told of every line that is written, for a terminal */
export function openLog(
  path: string,
  level: LogLevel,
  also: (level: LogLevel, message: string) => void,
): OpenLog {
  const file = new LogFile(path);
  const logger = pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    { write: (line: string) => file.write(withoutSecrets(line)) },
  );
  return {
    log(at, message, fields = {}) {
      logger[at](fields, message);
      if (logger.isLevelEnabled(at)) also(at, withoutSecrets(message));
    },
    close: () => file.close(),
  };
}

export function withoutSecrets(text: string): string {
  return text.replace(secretPattern, '[removed]');
}
