/** An answer as its asker holds it: begun at once, read at the asker's pace, cancelled when it is left. */

import { MeshError } from '@cocoon-mesh/protocol';
import type { Content } from './provider.ts';
import type { AnswerSource, CapabilityAnswer } from './request.ts';

export type Begun = Pick<AnswerSource, 'device' | 'deviceId' | 'attempts'>;
export type Ended = Content & { readonly source: AnswerSource };

/** @param run yields chunks and returns the end; `began` is called before the first of them; its signal: it was left */
export function startAnswer(
  run: (left: AbortSignal, began: (device: Begun) => void) => AsyncGenerator<Content, Ended, undefined>,
): CapabilityAnswer {
  const left = new AbortController();
  const device = Promise.withResolvers<Begun>();
  const end = Promise.withResolvers<Ended>();
  // Nobody has to look at both.
  device.promise.catch(() => undefined);
  end.promise.catch(() => undefined);
  const running = run(left.signal, device.resolve);

  async function step(): Promise<IteratorResult<Content, undefined>> {
    try {
      const { done, value } = await running.next();
      if (done !== true) return { done: false, value };
      end.resolve(value);
    } catch (thrown) {
      device.reject(thrown);
      end.reject(thrown);
      throw thrown;
    }
    return { done: true, value: undefined };
  }

  let first: Promise<IteratorResult<Content, undefined>> | null = step();
  first.catch(() => undefined);
  let isOver = false;
  const chunks: AsyncIterator<Content, undefined> = {
    async next() {
      if (isOver) return { done: true, value: undefined };
      const next = first ?? step();
      first = null;
      try {
        const result = await next;
        isOver = result.done === true;
        return result;
      } catch (thrown) {
        isOver = true;
        throw thrown;
      }
    },
    async return() {
      isOver = true;
      const error = new MeshError('cancelled');
      left.abort(error);
      device.reject(error);
      end.reject(error);
      // A step may be under way; the signal ends it.
      void running.return(undefined as never).catch(() => undefined);
      return { done: true, value: undefined };
    },
  };
  return { device: device.promise, chunks: { [Symbol.asyncIterator]: () => chunks }, end: end.promise };
}

/** The whole answer. @throws MeshError as `chunks` */
export async function collect(
  answer: CapabilityAnswer,
): Promise<Ended & { readonly chunks: readonly Content[] }> {
  const chunks: Content[] = [];
  for await (const chunk of answer.chunks) chunks.push(chunk);
  return { ...(await answer.end), chunks };
}
