import { checkWord } from './argument-errors.ts';

/**
 * A memslot as the ioctls and dirty rings name it, in one u32: the address space in the upper half, the slot's id in the
 * lower one.
 */
export const slotWord = (asId: number, id: number): number =>
  ((checkWord(asId, 'asId') << 16) | checkWord(id, 'id')) >>> 0;

/** The address space of a slot word. */
export const asIdOf = (word: number): number => checkWord(word, 'word') >>> 16;

/** The slot id of a slot word. */
export const slotIdOf = (word: number): number => checkWord(word, 'word') & 0xffff;
