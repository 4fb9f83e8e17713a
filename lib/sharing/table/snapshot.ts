import { isPowerOfTwo } from '../../base/arguments.ts';
import { hex, hexRange, KvmError } from '../../base/errors.ts';
import { counted } from '../../base/text.ts';
import { ERRNO } from '../../uapi/errno.ts';
import {
  HEADER,
  HOST_IS_LITTLE_ENDIAN,
  LITTLE_ENDIAN_GUEST,
  LOG_PAGE,
  MAGIC,
  REGION,
  REGION_FLAG,
  shapeOf,
  type TableShape,
  textOf,
  VERSION,
} from './layout.ts';
import { TableMemory } from './table-memory.ts';

/** A region as the table tells it, checked. */
export interface TableRegion {
  readonly start: number;
  readonly end: number;
  readonly size: number;
  readonly offset: number;
  /** Inode of the memfd; 0 when the memory can't be given to others. */
  readonly memory: bigint;
  readonly memoryBytes: number;
  readonly readOnly: boolean;
  readonly kind: 'ram' | 'device';
  readonly ownerFd: number;
  readonly name: string;
}

/** Tries to read a table that changes meanwhile. */
const MOST_TRIES = 1000;
/** Bytes that are copied for it, however large it is. */
const MOST_COPIED = 0x4000_0000;
const MOST_BYTES = 2n ** 53n;
/** What the version reads on a machine of the other byte order. */
const OTHER_ORDER = VERSION << 24;

const bad = (explanation: string): KvmError => new KvmError(ERRNO.EPROTO, { syscall: 'attach', explanation });

/** What a header tells. It is read once, since whoever has the table can write it. */
export interface TableHeader {
  readonly shape: TableShape;
  readonly pageSize: number;
  readonly littleEndian: boolean;
  readonly ownerPid: number;
}

/** The header, if all of it fits and lies inside the file. @throws KvmError EPROTO saying what is wrong */
export function checkedHeader(header: DataView, fileBytes: number): TableHeader {
  const magic = Buffer.from(header.buffer, header.byteOffset, MAGIC.length).toString('latin1');
  if (magic !== MAGIC) throw bad('the descriptor is no table of an address space: it does not begin with KVMBSPC1');
  const version = TableMemory.u32(header, HEADER.VERSION);
  if (version === OTHER_ORDER) {
    throw bad(
      `the table is of a ${HOST_IS_LITTLE_ENDIAN ? 'big' : 'little'}-endian machine, and this is the other kind`,
    );
  }
  if (version !== VERSION) throw bad(`the table is of version ${version}, and this is for version ${VERSION}`);
  const u32 = (offset: number) => TableMemory.u32(header, offset);
  const pageSize = u32(HEADER.PAGE_SIZE);
  if (!isPowerOfTwo(pageSize) || pageSize < LOG_PAGE) throw bad(`pages of ${pageSize} bytes are of no machine`);
  const u64 = (offset: number) => TableMemory.u64(header, offset);
  const [maxRegions, maxConsumers] = [u32(HEADER.MAX_REGIONS), u32(HEADER.MAX_CONSUMERS)];
  const logBytes = u64(HEADER.LOG_BYTES);
  if (logBytes > MOST_BYTES) throw bad(`the dirty log would have ${hex(logBytes)} bytes`);
  const shape = shapeOf(maxRegions, maxConsumers, Number(logBytes));
  const told: readonly [string, number, bigint][] = [
    ['the size of the table', shape.tableBytes, u64(HEADER.TABLE_BYTES)],
    ['the offset of the regions', shape.regionsOffset, u64(HEADER.REGIONS_OFFSET)],
    ['the offset of the consumers', shape.consumersOffset, u64(HEADER.CONSUMERS_OFFSET)],
    ['the offset of the dirty log', shape.logOffset, u64(HEADER.LOG_OFFSET)],
    ['the size of the dirty log', shape.logBytes, logBytes],
  ];
  for (const [what, right, value] of told) {
    if (BigInt(right) !== value) throw bad(`${what} is told as ${hex(value)}, and must be ${hex(right)}`);
  }
  if (shape.tableBytes !== fileBytes) {
    throw bad(`the table has ${hex(shape.tableBytes)} bytes, and its file ${hex(fileBytes)}`);
  }
  const littleEndian = (u32(HEADER.FLAGS) & LITTLE_ENDIAN_GUEST) !== 0;
  return { shape, pageSize, littleEndian, ownerPid: u32(HEADER.OWNER_PID) };
}

/** The regions of one generation. @throws KvmError EPROTO when they are wrong, EAGAIN when they change all the time */
export function readRegions(table: TableMemory): { generation: bigint; regions: readonly TableRegion[] } {
  const { maxRegions, regionsOffset, logBytes } = table.shape;
  let copied = 0;
  let tries = 0;
  for (; tries < MOST_TRIES && copied <= MOST_COPIED; tries++) {
    const generation = table.generation;
    const parity = Number(generation & 1n);
    const count = table.word(HEADER.REGION_COUNT + 4 * parity) >>> 0;
    const start = regionsOffset + parity * maxRegions * REGION.BYTES;
    const bytes = table.bytes.slice(start, start + Math.min(count, maxRegions) * REGION.BYTES);
    copied += bytes.length;
    // The owner writes here again only after it has published another generation.
    if (table.generation !== generation) continue;
    if (count > maxRegions) throw bad(`it has ${counted(count, 'region')}, and room for ${maxRegions}`);
    return { generation, regions: checkedRegions(bytes, count, logBytes * 8 * LOG_PAGE) };
  }
  throw new KvmError(ERRNO.EAGAIN, {
    syscall: 'attach',
    explanation: `the table changed ${counted(tries, 'time')} while it was read`,
  });
}

function checkedRegions(bytes: Uint8Array, count: number, end: number): TableRegion[] {
  const regions: TableRegion[] = [];
  for (let i = 0; i < count; i++) {
    const region = checkedRegion(bytes.subarray(i * REGION.BYTES, (i + 1) * REGION.BYTES), i, end);
    const before = regions.at(-1);
    if (before !== undefined && before.end > region.start) {
      throw bad(
        `region ${i} ${hexRange(region.start, region.size)} overlaps ${hexRange(before.start, before.size)}, or is out of order`,
      );
    }
    regions.push(region);
  }
  return regions;
}

function checkedRegion(bytes: Uint8Array, index: number, logEnd: number): TableRegion {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const u64 = (offset: number) => TableMemory.u64(view, offset);
  const [gpa, size, offset] = [u64(REGION.GPA), u64(REGION.SIZE), u64(REGION.OFFSET)];
  const [memory, memoryBytes] = [u64(REGION.MEMORY), u64(REGION.MEMORY_BYTES)];
  const flags = TableMemory.u32(view, REGION.FLAGS);
  const what = `region ${index} ${hexRange(gpa, size)}`;
  for (const [name, value] of Object.entries({ gpa, size, offset })) {
    if (value % BigInt(LOG_PAGE) !== 0n)
      throw bad(`${what}: its ${name}, ${hex(value)}, is not a multiple of ${LOG_PAGE}`);
  }
  if (size === 0n) throw bad(`${what} is empty`);
  if (gpa + size > BigInt(logEnd)) throw bad(`${what} ends beyond the dirty log, which ends at ${hex(logEnd)}`);
  if (memoryBytes > MOST_BYTES || offset + size > memoryBytes) {
    throw bad(`${what} shows ${hexRange(offset, size)} of a memory of ${hex(memoryBytes)} bytes`);
  }
  return {
    start: Number(gpa),
    end: Number(gpa + size),
    size: Number(size),
    offset: Number(offset),
    memory,
    memoryBytes: Number(memoryBytes),
    readOnly: (flags & REGION_FLAG.READ_ONLY) !== 0,
    kind: (flags & REGION_FLAG.DEVICE) === 0 ? 'ram' : 'device',
    ownerFd: TableMemory.u32(view, REGION.OWNER_FD) | 0,
    name: textOf(bytes.subarray(REGION.NAME, REGION.BYTES)),
  };
}
