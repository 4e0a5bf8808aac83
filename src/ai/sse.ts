/** The data of server-sent events out of the body of an answer, read no faster than they are used. */

import { MeshError } from '@cocoon-mesh/protocol';
import { createParser } from 'eventsource-parser';

/**
 * Comments, which keep a connection alive, are left out.
 * @param maxLength characters of one event
 * @throws MeshError bad_answer: an event is longer, or the bytes are no text; and what reading throws
 */
export async function* readEvents(
  body: AsyncIterable<Uint8Array>,
  maxLength: number,
): AsyncGenerator<string> {
  let ready: string[] = [];
  let tooLong = false;
  const parser = createParser({
    onEvent: ({ data }) => ready.push(data),
    // The parser leaves out what it does not understand, as browsers do.
    onError: ({ type }) => (tooLong ||= type === 'max-buffer-size-exceeded'),
    maxBufferSize: maxLength,
  });
  for await (const text of decoded(body)) {
    parser.feed(text);
    const events = ready;
    ready = [];
    yield* events;
    if (tooLong) throw tooLongError(maxLength);
  }
  // Some servers leave out the empty line behind their last event.
  parser.feed('\n\n');
  yield* ready;
}

/** Lines of a body, without their ends and without empty ones. @throws MeshError bad_answer */
export async function* readLines(body: AsyncIterable<Uint8Array>, maxLength: number): AsyncGenerator<string> {
  let rest = '';
  for await (const text of decoded(body)) {
    const lines = (rest + text).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) if (line.trim() !== '') yield line;
    if (rest.length > maxLength) throw tooLongError(maxLength);
  }
  if (rest.trim() !== '') yield rest;
}

async function* decoded(body: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder('utf-8', { fatal: true });
  const decode = (bytes?: Uint8Array): string => {
    try {
      return bytes ? decoder.decode(bytes, { stream: true }) : decoder.decode();
    } catch (cause) {
      throw new MeshError('bad_answer', 'The model server sent bytes that are no text', { cause });
    }
  };
  for await (const bytes of body) yield decode(bytes);
  yield decode();
}

function tooLongError(maxLength: number): MeshError {
  return new MeshError('bad_answer', `The model server sent a piece of more than ${maxLength} characters`);
}
