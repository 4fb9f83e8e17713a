/** Where the guest's sectors go: a page each, from one segment to another, and round again. */
export const FIRST_PAGE = 0x10;
export const END_PAGE = 0x80;

/** Where the guest counts the sectors that it has read. */
export const COUNTER = 0x7e00;

/** A boot sector for x86 whose code asks the firmware for sector 1 over and over (INT 13h), each time into the next page. */
export function bootSector(): Uint8Array {
  const code = [
    ...[0x31, 0xc0], // xor ax, ax
    ...[0x8e, 0xd8], // mov ds, ax
    0xfa, // cli
    ...[0xbe, 0x00, FIRST_PAGE], // mov si, FIRST_PAGE << 8
    // 8: the loop
    ...[0x8e, 0xc6], // mov es, si
    ...[0x31, 0xdb], // xor bx, bx
    ...[0xb8, 0x01, 0x02], // mov ax, 0x0201: read one sector
    ...[0xb9, 0x02, 0x00], // mov cx, 2: the second of the track
    ...[0xba, 0x80, 0x00], // mov dx, 0x80: of the first disk
    ...[0xcd, 0x13], // int 0x13
    ...[0xff, 0x06, COUNTER & 0xff, COUNTER >>> 8], // inc word [COUNTER]
    ...[0x81, 0xc6, 0x00, 0x01], // add si, 0x100: the next page
    ...[0x81, 0xfe, 0x00, END_PAGE], // cmp si, END_PAGE << 8
    ...[0x72, 0xe3], // jb loop
    ...[0xeb, 0xde], // jmp to the first page
  ];
  const sector = new Uint8Array(512);
  sector.set(code);
  sector.set([0x55, 0xaa], 510);
  return sector;
}
