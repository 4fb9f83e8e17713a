/** What a report shows: plain data, which the page that shows it has inside. Addresses beyond 2^53 are text, in hex. */
export interface ReportData {
  readonly title: string;
  /** Facts in short lines, above all else. */
  readonly about: readonly string[];
  readonly pageSize: number;
  readonly memory?: MemoryData;
  readonly hpt?: HptData;
  readonly spaces: readonly SpaceData[];
  /** Tables of counts. */
  readonly tables: readonly TableData[];
}

/** Guest physical memory to scale. */
export interface MemoryData {
  /** First guest physical address that nothing lies at or above. */
  readonly end: number;
  readonly regions: readonly RegionData[];
  readonly layers: readonly LayerData[];
}

export interface RegionData {
  readonly gpa: number;
  readonly size: number;
  readonly name: string;
}

/** What is known of each page, as a row of the map. */
export interface LayerData {
  readonly name: string;
  /** `count`: of so many pages of a cell it is true. `key`: the cell's storage key. `heat`: in so many passes. */
  readonly kind: 'count' | 'key' | 'heat';
  /** Pages of a cell: more than one where there would be too many runs. */
  readonly step: number;
  /** Largest value there is. */
  readonly most: number;
  /** First cell, number of cells, value; and again. Ascending; cells between them are 0, or have no key. */
  readonly runs: readonly number[];
}

/** A hashed page table. */
export interface HptData {
  readonly order: number;
  /** Groups of a cell. */
  readonly step: number;
  /** Valid entries of each cell, 0 to 8 times `step`. */
  readonly cells: readonly number[];
  /** Of each valid entry its slot, and what it says; absent where they are too many. */
  readonly entries?: readonly (readonly [slot: number, says: string])[];
}

/** An address space, to be unfolded level by level. */
export interface SpaceData {
  readonly name: string;
  readonly nodes: readonly NodeData[];
  /** Why it ends early. */
  readonly cut?: string;
}

export interface NodeData {
  /** First virtual address, and bytes, in hex. */
  readonly va: string;
  readonly size: string;
  /** The level, and the entry in words. */
  readonly level: string;
  readonly says: string;
  /** The entry itself. */
  readonly entry?: string;
  /** Guest physical address of the first byte, where it maps memory. */
  readonly pa?: number;
  /** The slot of the hashed page table that says it; its words are there. */
  readonly slot?: number;
  readonly nodes?: readonly NodeData[];
}

export interface TableData {
  readonly name: string;
  readonly head: readonly string[];
  readonly rows: readonly (readonly (string | number)[])[];
}
