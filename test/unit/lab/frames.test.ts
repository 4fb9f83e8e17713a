import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { encodeFrame, type Frame, FrameReader, type Json } from '../../../lib/lab/frames.ts';

const frame: fc.Arbitrary<Frame> = fc.oneof(
  fc.constant<Frame>({ kind: 'started' }),
  fc.string({ unit: 'binary' }).map((text): Frame => ({ kind: 'progress', text })),
  fc.string().map((message): Frame => ({ kind: 'failure', message })),
  fc.jsonValue({ noUnicodeString: false }).map((value): Frame => ({ kind: 'result', value: plain(value as Json) })),
);

/** JSON has no negative zero. */
function plain(value: Json): Json {
  return JSON.parse(JSON.stringify(value)) as Json;
}

describe("the port's frames", () => {
  it('arrive whole and in order, wherever the chunks end', () => {
    fc.assert(
      fc.property(fc.array(frame), fc.integer({ min: 1, max: 40 }), (frames, size) => {
        const bytes = Buffer.from(frames.map(encodeFrame).join(''));
        const reader = new FrameReader();
        const arrived: Frame[] = [];
        for (let at = 0; at < bytes.length; at += size) arrived.push(...reader.push(bytes.subarray(at, at + size)));
        expect(arrived).toEqual(frames);
      }),
    );
  });

  it.each([
    'no JSON',
    '{"kind":"result"',
    '{"kind":"unknown"}',
    '{"kind":"progress"}',
    '{"kind":"progress","text":1}',
    '{"kind":"failure"}',
    '{"kind":"result"}',
    'null',
    '[]',
    '7',
  ])('are refused if they are not frames: %s', (line) => {
    expect(() => new FrameReader().push(Buffer.from(`${line}\n`))).toThrow(SyntaxError);
  });
});
