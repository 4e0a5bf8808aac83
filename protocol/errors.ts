/**
 * The one error class of the mesh and the one table of its codes.
 *
 * Callers branch on `code`, never on text. Each code has a row here and a row in `docs/errors.md`
 * (a test compares both ways). A code that is no longer used stays, marked as retired.
 */

interface ErrorRow {
  /** The sentence shown when the thrower gives none. */
  readonly message: string;
  /** What the user can do next. */
  readonly hint?: string;
  /** HTTP status at a gateway or at signaling. */
  readonly status: number;
  /** Exit code of the CLI: 1 failed, 2 usage, 3 not found, 4 denied, 5 unreachable or timed out. */
  readonly exit: 1 | 2 | 3 | 4 | 5;
  /** May the same request succeed when it is simply sent again? */
  readonly retry?: true;
}

export const errorCodes = {
  // Usage and configuration
  usage: { message: 'The command was not understood', hint: 'See --help.', status: 400, exit: 2 },
  bad_service: {
    message: 'A service is written name:port, name:port:http, name:port:tcp or name:port:http:/health',
    hint: 'Example: --service grafana:3000:http:/api/health',
    status: 400,
    exit: 2,
  },
  bad_name: {
    message: 'A name has 1 to 31 lower-case letters, digits and single hyphens, and does not start with xn',
    hint: 'Choose another name, such as `gpu-box`.',
    status: 400,
    exit: 2,
  },
  bad_signaling_url: {
    message: 'The signaling address is not a ws:// or wss:// URL',
    hint: 'Example: ws://192.168.1.10:7400/ws',
    status: 400,
    exit: 2,
  },
  bad_config: {
    message: 'config.toml could not be read',
    hint: 'Correct the line that the message names, or move the file away.',
    status: 400,
    exit: 2,
  },
  bad_ice_servers: {
    message: 'COCOON_ICE_SERVERS is not a list of stun:, turn: or turns: URLs',
    hint: 'Example: `stun:192.0.2.1:3478`.',
    status: 400,
    exit: 2,
  },
  unknown_engine: {
    message: 'The WebRTC engine is not one of auto, libdatachannel, werift',
    hint: 'Correct COCOON_WEBRTC_ENGINE.',
    status: 400,
    exit: 2,
  },
  engine_unavailable: {
    message: 'The WebRTC engine cannot be loaded on this machine',
    hint: 'Set COCOON_WEBRTC_ENGINE=auto to use another engine.',
    status: 500,
    exit: 1,
  },
  port_in_use: {
    message: 'The port is in use by another program',
    hint: 'Stop that program or choose another port.',
    status: 500,
    exit: 1,
  },
  already_running: {
    message: 'A cocoon is already running with this home',
    hint: 'Use its commands, stop it first, or choose another --home.',
    status: 409,
    exit: 1,
  },
  not_running: {
    message: 'No cocoon is running with this home',
    hint: 'Start one with `cocoon up` or `cocoon run`.',
    status: 503,
    exit: 5,
  },
  key_unreadable: {
    message: 'A key file cannot be read',
    hint: 'Check its owner and its mode; it must be readable by you alone (0600).',
    status: 500,
    exit: 1,
  },
  key_exposed: {
    message: 'A key file can be read by others',
    hint: 'Run chmod 600 on it. If others may have read it, make a new identity.',
    status: 500,
    exit: 1,
  },
  key_corrupt: {
    message: 'A key file does not hold a key',
    hint: 'Restore the file from a backup, or copy the secret again; the message says what is wrong with it.',
    status: 500,
    exit: 1,
  },
  database_corrupt: {
    message: 'The database is damaged',
    hint: 'Move it away and restore a backup; it was left as it is.',
    status: 500,
    exit: 1,
  },
  database_newer: {
    message: 'The database was written by a newer version',
    hint: 'Update cocoon.',
    status: 500,
    exit: 1,
  },
  database_in_use: {
    message: 'The database holds the tasks of another device',
    hint: 'Name another one in COCOON_DATABASE_URL. Only if that device is gone for good: `delete from task_home`, see `operating.md`.',
    status: 409,
    exit: 1,
  },
  storage_failed: {
    message: 'The store could not be written',
    hint: 'Check free space and the rights of the folder.',
    status: 500,
    exit: 1,
  },
  storage_full: {
    message: 'There is no room left for the store',
    hint: 'Free some space; nothing that was stored is lost.',
    status: 507,
    exit: 1,
  },

  // Outside bytes
  bad_message: {
    message: 'A message does not follow its schema',
    hint: 'The sender has a defect or another version: update both sides.',
    status: 400,
    exit: 1,
  },
  message_too_large: {
    message: 'A message is larger than its limit',
    hint: 'Send less at once; see the limits in `protocol.md`.',
    status: 413,
    exit: 1,
  },
  unsupported: {
    message: 'The message is of a kind this version does not know',
    hint: 'Update the side that does not know it.',
    status: 400,
    exit: 1,
  },
  protocol_violation: {
    message: 'The other side broke the protocol',
    hint: 'The session was closed. Update both sides if it comes again.',
    status: 502,
    exit: 1,
  },
  bad_sdp: {
    message: 'A session description needs exactly one sha-256 fingerprint',
    hint: 'The connection was refused. Somebody in between may have changed it.',
    status: 400,
    exit: 1,
  },
  downgrade: {
    message: 'A better common version was offered than the one in use',
    hint: 'The connection was refused. Somebody in between removed a better version or carrier.',
    status: 400,
    exit: 4,
  },
  version_mismatch: {
    message: 'The two sides have no protocol version in common',
    hint: 'Update the older one.',
    status: 400,
    exit: 1,
  },

  // Identity, ownership, tokens
  bad_signature: {
    message: 'A signature does not fit',
    hint: 'It was refused. If it comes from your own device, enroll that device again.',
    status: 401,
    exit: 4,
  },
  wrong_type: {
    message: 'A signed object was shown in the place of another kind',
    hint: 'It was refused.',
    status: 401,
    exit: 4,
  },
  unknown_constraint: {
    message: 'A signed object carries a version, scope, right or constraint this version does not know',
    hint: 'Update cocoon.',
    status: 401,
    exit: 4,
  },
  token_malformed: {
    message: 'That is not a setup token',
    hint: 'Copy the whole token, or make one with `cocoon generate-token`.',
    status: 400,
    exit: 2,
  },
  token_invalid: {
    message: 'The setup token was changed or is not genuine',
    hint: 'Ask for a new one.',
    status: 401,
    exit: 4,
  },
  token_expired: {
    message: 'The setup token has expired',
    hint: 'Ask for a new one.',
    status: 401,
    exit: 4,
  },
  token_not_yet_valid: {
    message: 'The setup token is not valid yet',
    hint: 'Check the clocks of both devices.',
    status: 401,
    exit: 4,
  },
  clock_wrong: {
    message: 'The clocks of this device and of signaling are too far apart',
    hint: 'Set the clocks of both machines by the network (NTP): tokens and memberships have dates.',
    status: 503,
    exit: 5,
  },
  token_used: {
    message: 'The setup token was used before',
    hint: 'A token works once. Ask for a new one.',
    status: 409,
    exit: 4,
  },
  token_wrong_signaling: {
    message: 'The setup token belongs to another signaling server',
    hint: 'Use the --signaling address that was printed with the token.',
    status: 401,
    exit: 4,
  },
  already_owned: {
    message: 'This device already belongs to an owner',
    hint: 'Use another --home, or leave that owner first.',
    status: 409,
    exit: 4,
  },
  owner_key_offline: {
    message: 'No device that holds the owner secret can be reached',
    hint: 'Start one of the named devices.',
    status: 503,
    exit: 5,
    retry: true,
  },
  membership_invalid: {
    message: 'The membership does not prove what it claims',
    hint: 'If the owner rotated its secret, start a device that holds the new one, or give it to this one with `cocoon secret use`. Else enroll the device again with a new token.',
    status: 401,
    exit: 4,
  },
  membership_expired: {
    message: 'The membership has ended',
    hint: 'Enroll the device again with a new token.',
    status: 401,
    exit: 4,
  },
  owner_not_found: {
    message: 'No such owner has access here',
    hint: 'See `cocoon owners list`.',
    status: 404,
    exit: 3,
  },
  oidc_required: {
    message: 'This signaling server lets in whoever its identity provider knows',
    hint: 'Put a fresh ID token into COCOON_OIDC_TOKEN.',
    status: 401,
    exit: 4,
  },
  oidc_unavailable: {
    message: 'The identity provider of the signaling server cannot be asked',
    hint: 'Try again later; whoever runs the server finds the reason in its log.',
    status: 503,
    exit: 5,
    retry: true,
  },
  audit_broken: {
    message: 'The audit log was changed after it was written',
    hint: 'The lines before the one that is named can be trusted; keep a copy of the file.',
    status: 500,
    exit: 1,
  },
  revoked: {
    message: 'The right was revoked',
    hint: 'The key of this device is not trusted any more: start with a fresh --home and a new token.',
    status: 403,
    exit: 4,
  },
  denied: { message: 'You may not do that', hint: 'Ask the owner for the right.', status: 403, exit: 4 },
  local_only: {
    message: 'That can only be done on the device itself',
    hint: 'Run the command on that device.',
    status: 403,
    exit: 4,
  },
  name_changed: {
    message: 'The name belongs to another device than before',
    hint: 'If you replaced the device, accept the new one with `cocoon devices --accept NAME`.',
    status: 409,
    exit: 4,
  },

  // Signaling
  signaling_unreachable: {
    message: 'The signaling server cannot be reached',
    hint: 'Check the address and that it is running; live sessions go on without it.',
    status: 503,
    exit: 5,
    retry: true,
  },
  sign_in_failed: {
    message: 'The signaling server did not accept this device',
    hint: 'See the code beside it; check that the clock is right.',
    status: 401,
    exit: 4,
  },
  unauthorized: {
    message: 'A valid token is needed',
    hint: "Send the token in `Authorization: Bearer`; the gateway's is in `gateway.token`.",
    status: 401,
    exit: 4,
  },
  rate_limited: {
    message: 'Too many requests',
    hint: 'Wait a little and try again.',
    status: 429,
    exit: 1,
    retry: true,
  },
  ticket_invalid: {
    message: 'The introduction is not valid',
    hint: 'Try again; check the clocks of both devices and of the server.',
    status: 401,
    exit: 4,
  },
  ticket_used: {
    message: 'The introduction was used before',
    hint: 'Try again; a new introduction is made.',
    status: 409,
    exit: 4,
  },
  shutting_down: {
    message: 'The server is shutting down',
    hint: 'Try again; another server or a restart answers.',
    status: 503,
    exit: 5,
    retry: true,
  },

  // Carriers, proof, session
  connect_timeout: {
    message: 'No connection to the device could be made in time',
    hint: 'Run `cocoon doctor` on both devices.',
    status: 504,
    exit: 5,
    retry: true,
  },
  carrier_lost: {
    message: 'The connection to the device was lost',
    hint: 'Try again; a new connection is made by itself.',
    status: 502,
    exit: 5,
    retry: true,
  },
  proof_failed: {
    message: 'The other side did not prove who it is',
    hint: 'The connection was refused. See `cocoon logs` for which check failed.',
    status: 502,
    exit: 4,
  },
  proof_timeout: {
    message: 'The other side did not prove who it is in time',
    hint: 'Try again; see `cocoon doctor` if it stays.',
    status: 504,
    exit: 5,
  },
  self_connect: {
    message: 'The other side is this device itself',
    hint: 'Name another device.',
    status: 400,
    exit: 2,
  },
  glare: {
    message: 'Both sides connected at once; the other connection is used',
    hint: 'The request goes over the other connection.',
    status: 503,
    exit: 5,
    retry: true,
  },
  session_closed: {
    message: 'The session was closed',
    hint: 'Try again; a new session is made.',
    status: 503,
    exit: 5,
    retry: true,
  },
  stream_reset: {
    message: 'The other side ended the stream',
    hint: 'See the code of the reset in the message.',
    status: 502,
    exit: 1,
  },
  credit_overflow: {
    message: 'The other side sent more than it was allowed',
    hint: 'The session was closed. Update the other side.',
    status: 502,
    exit: 1,
  },
  too_many_streams: {
    message: 'Too many streams are open',
    hint: 'Finish some requests first.',
    status: 503,
    exit: 1,
    retry: true,
  },
  replaced: {
    message: 'The session was replaced by a newer one',
    hint: 'Try again; the newer session is used.',
    status: 503,
    exit: 5,
    retry: true,
  },

  // Requests
  not_found: {
    message: 'There is no such thing, or it is not yours',
    hint: 'Check the spelling; see `cocoon devices`.',
    status: 404,
    exit: 3,
  },
  device_not_found: {
    message: 'No device of that name is known, or it is not yours',
    hint: 'See `cocoon devices`.',
    status: 404,
    exit: 3,
  },
  device_offline: {
    message: 'The device is offline',
    hint: 'Start it; `cocoon devices` shows who is online.',
    status: 503,
    exit: 5,
    retry: true,
  },
  service_not_found: {
    message: 'The device offers no such service',
    hint: 'See `cocoon devices`.',
    status: 404,
    exit: 3,
  },
  service_refused: {
    message: 'The service refused the connection',
    hint: 'Check that it runs and listens on its port.',
    status: 502,
    exit: 1,
  },
  service_exists: {
    message: 'A service of that name exists already',
    hint: 'Remove that service first, or choose another name.',
    status: 409,
    exit: 1,
  },
  bad_gateway: {
    message: 'The service broke off its answer',
    hint: 'See the log of the service.',
    status: 502,
    exit: 1,
  },
  gateway_timeout: {
    message: 'The service did not answer in time',
    hint: 'See whether the service is busy.',
    status: 504,
    exit: 5,
  },
  method_not_allowed: {
    message: 'CONNECT and TRACE cannot be proxied',
    hint: 'Use another method; `cocoon forward` carries any protocol.',
    status: 405,
    exit: 2,
  },
  wrong_service_type: {
    message: 'The service is not of the type this needs',
    hint: 'Use `cocoon forward` for a tcp service.',
    status: 400,
    exit: 2,
  },
  header_too_large: {
    message: 'The request head is too large',
    hint: 'Send fewer or shorter header fields.',
    status: 431,
    exit: 1,
  },
  foreign_host: {
    message: 'The Host header is not one of this gateway',
    hint: 'Use the address that the daemon printed.',
    status: 403,
    exit: 4,
  },
  foreign_origin: {
    message: 'The Origin is not allowed here',
    hint: "Open the page from the gateway's own address.",
    status: 403,
    exit: 4,
  },
  overloaded: {
    message: 'The device is busy',
    hint: 'Try again in a moment.',
    status: 503,
    exit: 5,
    retry: true,
  },

  // Tasks and queries
  bad_task: {
    message: 'The task is not as a task has to be',
    hint: 'Correct the field that the message names.',
    status: 400,
    exit: 2,
  },
  task_not_found: {
    message: 'There is no task with that id',
    hint: 'See `cocoon tasks list --all`; a task of another device is named with --device.',
    status: 404,
    exit: 3,
  },
  task_conflict: {
    message: 'The task was changed by somebody else meanwhile',
    hint: 'Look at the task as it is now, and decide again.',
    status: 409,
    exit: 1,
  },
  bad_status_change: {
    message: 'A task cannot go from its status to that one',
    hint: 'A task that has ended stays as it is; add a new one.',
    status: 409,
    exit: 1,
  },
  bad_cursor: {
    message: 'The cursor does not belong to this query',
    hint: 'Start again without a cursor.',
    status: 400,
    exit: 2,
  },
  bad_filter: {
    message: 'The filter was not understood',
    hint: 'Correct the field that the message names.',
    status: 400,
    exit: 2,
  },
  cannot_run: {
    message: 'The task cannot run on this device',
    hint: 'Add it on a device that has what is missing.',
    status: 409,
    exit: 1,
  },
  command_refused: {
    message: 'The device does not run this command',
    hint: 'Its user allows commands in its config.toml.',
    status: 403,
    exit: 4,
  },
  capability_off: {
    message: 'The device does not offer this capability',
    hint: 'It was started with --disable-capability, or is of an older version.',
    status: 404,
    exit: 3,
  },

  // Capabilities
  capability_not_found: {
    message: 'No device of yours offers this capability',
    hint: 'See `cocoon devices` for what is offered.',
    status: 404,
    exit: 3,
  },
  provider_failed: {
    message: 'The provider of the capability failed',
    hint: 'See `cocoon logs` of the device that answered.',
    status: 502,
    exit: 1,
  },
  bad_payload: {
    message: 'The payload is not as the capability takes it',
    hint: 'Correct the field that the message names.',
    status: 400,
    exit: 2,
  },
  bad_answer: {
    message: 'The provider of the capability gave an answer that breaks its own rules',
    hint: 'See `cocoon logs` of the device that answered.',
    status: 502,
    exit: 1,
  },
  model_unavailable: {
    message: 'The configured model does not load',
    hint: 'Correct what the message names; `cocoon doctor` says more.',
    status: 503,
    exit: 1,
  },
  text_too_long: {
    message: 'A text is longer than the model takes',
    hint: 'Send shorter texts, or ask for them to be cut off.',
    status: 400,
    exit: 2,
  },
  plugin_failed: {
    message: 'The plugin failed',
    hint: 'See `cocoon plugins list` and `cocoon logs`.',
    status: 502,
    exit: 1,
  },
  bad_manifest: {
    message: 'The manifest of a plugin is not as it has to be',
    hint: 'Correct the field that the message names.',
    status: 400,
    exit: 2,
  },

  // All others
  timeout: {
    message: 'It took too long',
    hint: 'Try again, or allow more time.',
    status: 504,
    exit: 5,
    retry: true,
  },
  cancelled: { message: 'It was cancelled', hint: 'Nothing.', status: 499, exit: 1 },
  internal: { message: 'Something went wrong inside', hint: 'See `cocoon logs`.', status: 500, exit: 1 },
} as const satisfies Record<string, ErrorRow>;

export type ErrorCode = keyof typeof errorCodes;

export function isErrorCode(value: unknown): value is ErrorCode {
  return typeof value === 'string' && Object.hasOwn(errorCodes, value);
}

interface MeshErrorOptions {
  /** What to do next; overrides the table's. */
  readonly hint?: string;
  readonly cause?: unknown;
  /** When the same request may succeed, as far as whoever refused it can tell. */
  readonly retryAfterMs?: number;
}

/** What `--json` prints, what problem+json and error frames carry. */
export interface ErrorDescription {
  readonly code: ErrorCode;
  readonly message: string;
  readonly hint: string;
}

export class MeshError extends Error {
  override readonly name = 'MeshError';
  readonly code: ErrorCode;
  readonly hint: string;
  readonly retryAfterMs: number | null;

  constructor(code: ErrorCode, message?: string, options: MeshErrorOptions = {}) {
    const row: ErrorRow = errorCodes[code];
    super(message ?? row.message, 'cause' in options ? { cause: options.cause } : undefined);
    this.code = code;
    this.hint = options.hint ?? row.hint ?? '';
    this.retryAfterMs = options.retryAfterMs ?? null;
  }

  get status(): number {
    return errorCodes[this.code].status;
  }

  get exitCode(): number {
    return errorCodes[this.code].exit;
  }

  /** May the same request succeed when it is simply sent again? */
  get retry(): boolean {
    const row: ErrorRow = errorCodes[this.code];
    return row.retry === true;
  }

  toJSON(): ErrorDescription {
    return { code: this.code, message: this.message, hint: this.hint };
  }
}

/** Any thrown value as a MeshError: an abort becomes `cancelled` or `timeout`, the rest `fallback`. */
export function toMeshError(thrown: unknown, fallback: ErrorCode = 'internal'): MeshError {
  if (thrown instanceof MeshError) return thrown;
  const name = thrown instanceof Error || thrown instanceof DOMException ? thrown.name : '';
  if (name === 'TimeoutError') return new MeshError('timeout', undefined, { cause: thrown });
  if (name === 'AbortError') return new MeshError('cancelled', undefined, { cause: thrown });
  return new MeshError(fallback, undefined, { cause: thrown });
}
