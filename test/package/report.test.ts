import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { type Browser, chromium, type Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readCapture } from '../../lib/cli/capture.ts';
import type { ReportData } from '../../lib/cli/report/data.ts';
import { html } from '../../lib/cli/report/html.ts';
import { heatOf, layer, type PageRun } from '../../lib/cli/report/layers.ts';
import { reportOfCapture } from '../../lib/cli/report/of-capture.ts';
import { reportPage } from '../../lib/cli/report/page/build.mjs';

const captures = fileURLToPath(new URL('../captures/', import.meta.url));
const program = ['chromium', 'chromium-browser', 'google-chrome'].find(
  (name) => spawnSync(name, ['--version']).status === 0,
);
const skipped = program === undefined ? ': skipped, there is no Chromium on this machine' : '';

const TIB = 2 ** 40;

/** A guest of 1 TiB with dirty pages in three passes, and a key that changes with every page of the first GiB. */
function large(): ReportData {
  const passes = [0, 1, 2].map((pass) =>
    Array.from({ length: 80_000 }, (_, i): PageRun => [i * 3001 + pass * 7, 1 + pass, 1]),
  );
  const keys = Array.from({ length: 2 ** 18 }, (_, page): PageRun => [page, 1, (page % 16) << 4]);
  return {
    title: 'a large guest',
    about: ['<b>not bold</b> & "quoted" </script>'],
    pageSize: 4096,
    memory: {
      end: TIB,
      regions: [
        { gpa: 0, size: TIB / 2, name: 'low' },
        { gpa: TIB / 2 + 2 ** 36, size: TIB / 2 - 2 ** 36, name: 'high' },
      ],
      layers: [
        layer('dirty, all passes', 'heat', heatOf(passes)),
        ...passes.map((runs, i) => layer(`dirty, pass ${i + 1}`, 'count', runs)),
        layer('storage keys', 'key', keys),
      ],
    },
    spaces: [],
    tables: [],
  };
}

describe.skipIf(program === undefined)(`the page of a report, in Chromium${skipped}`, () => {
  const folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-report-'));
  const template = reportPage();
  let browser: Browser;

  beforeAll(async () => {
    const which = spawnSync('sh', ['-c', `command -v ${program}`], { encoding: 'utf8' }).stdout.trim();
    browser = await chromium.launch({ executablePath: which, args: ['--no-sandbox'] });
  }, 60_000);
  afterAll(async () => {
    await browser.close();
    rmSync(folder, { recursive: true });
  });

  /** Opens a report; nothing may be fetched, and nothing thrown. */
  async function open(data: ReportData, colorScheme: 'light' | 'dark' = 'light'): Promise<Page> {
    const file = join(folder, 'report.html');
    writeFileSync(file, html(template, data));
    const page = await browser.newPage({ colorScheme, viewport: { width: 1000, height: 800 } });
    page.on('pageerror', (error) => expect.fail(error.message));
    page.on('request', (request) => expect(request.url()).toBe(pathToFileURL(file).href));
    await page.goto(pathToFileURL(file).href);
    await page.waitForSelector('body[data-ready=yes]');
    return page;
  }

  const find = async (page: Page, address: string, where = 'physical'): Promise<string[]> => {
    await page.selectOption('#search select', where);
    await page.keyboard.press('/');
    await page.fill('#search input', address);
    await page.keyboard.press('Enter');
    return await page.locator('#found > li').allTextContents();
  };

  /** The colour of a point of a canvas. What runs in the page is text: its types are not those of Node. */
  const pixel = (page: Page, index: number, x: number, y: number): Promise<number[]> =>
    page.evaluate(`(() => {
      const canvas = document.querySelectorAll('canvas')[${index}];
      const ratio = devicePixelRatio;
      return [...canvas.getContext('2d').getImageData(${x} * ratio, ${y} * ratio, 1, 1).data];
    })()`);
  const background = (page: Page): Promise<string> => page.evaluate('getComputedStyle(document.body).backgroundColor');

  it('shows a captured s390x guest: its banner is found by its physical and by its virtual address', async () => {
    const capture = await readCapture(join(captures, 's390x-linux-6.12-edat'), process);
    const data = reportOfCapture(capture, 's390x-linux-6.12-edat');
    const page = await open(data);
    const { linux_banner: banner } = capture.json as unknown as { linux_banner: { va: string; abs: string } };
    const [va, abs] = [banner.va, banner.abs].map((address) => `0x${BigInt(address).toString(16)}`);
    const byPhysical = await find(page, abs!);
    expect(byPhysical.join('\n')).toContain(`is ${va} in `);
    const kernel = data.spaces.findIndex(({ name }) => name.includes('CPU 0, home'));
    const byVirtual = await find(page, va!, String(kernel));
    expect(byVirtual[0]).toBe(`${va} in ${data.spaces[kernel]!.name} is guest physical ${abs}`);
    // Unfolded level by level down to the page.
    const marked = page.locator('.marked');
    expect(await marked.count()).toBe(1);
    expect(await page.locator('details[open]').count()).toBeGreaterThanOrEqual(2);
    await page.close();
  });

  it('shows a captured ppc64 guest: the group of a page, and its entries', async () => {
    const data = reportOfCapture(await readCapture(join(captures, 'ppc64-hpt-linux-6.12'), process), 'ppc64');
    const page = await open(data, 'dark');
    const found = await find(page, '0xc000000001000000', '0');
    expect(found[0]).toBe('0xc000000001000000 in Virtual pages by segment is guest physical 0x1000000');
    const entries = await page.locator('ol > li').allTextContents();
    expect(entries).toHaveLength(8);
    expect(entries.some((line) => line.startsWith('HPTE ') && line.includes('at 0x1000000'))).toBe(true);
    await page.close();
  });

  it('shows a guest of 1 TiB, and nothing of it is taken for markup', async () => {
    const page = await open(large());
    expect(await page.locator('#about > li').allTextContents()).toEqual(['<b>not bold</b> & "quoted" </script>']);
    // Pass 1 has page 3001, pass 2 and 3 have 3008 and 3015.
    const found = await find(page, `0x${(3001 * 4096).toString(16)}`);
    expect(found[0]).toContain('page 0xbb9, low + 0xbb9000');
    expect(found.join('\n')).toMatch(/dirty in 1 of/);
    expect(await find(page, '576G')).toContain('Guest physical 0x9000000000: page 0x9000000, high + 0x0');
    expect((await find(page, '512G'))[0]).toContain('no memory');
    expect(await find(page, '1T')).toEqual(['0x10000000000 is beyond the end of memory, 0x10000000000']);
    expect((await find(page, 'nonsense'))[0]).toMatch(/is no address/);
    await page.close();
  });

  it('says in itself that it cannot be shown, where its data was damaged', async () => {
    const file = join(folder, 'damaged.html');
    writeFileSync(file, html(template, large()).replace(/(<script id="data"[^>]*>).{40}/, '$1'));
    const page = await browser.newPage();
    await page.goto(pathToFileURL(file).href);
    await page.waitForSelector('#about > li');
    expect(await page.locator('#about > li').allTextContents()).toEqual([
      expect.stringMatching(/^This report cannot be shown: .+/),
    ]);
    await page.close();
  });

  it('is moved and zoomed by keyboard', async () => {
    const page = await open(large());
    const map = page.locator('canvas').first();
    await map.focus();
    const ticks = () => page.locator('svg .tick text').allTextContents();
    const all = await ticks();
    for (let i = 0; i < 12; i++) await page.keyboard.press('+');
    const closer = await ticks();
    expect(closer).not.toEqual(all);
    await page.keyboard.press('ArrowRight');
    const right = await ticks();
    expect(Number(right[0])).toBeGreaterThan(Number(closer[0]));
    for (const tick of right) expect(tick).toMatch(/^0x[0-9a-f]+00$/);
    await page.keyboard.press('0');
    expect(await ticks()).toEqual(all);
    await page.keyboard.press('Enter');
    // The middle of 1 TiB is where nothing is.
    expect((await page.locator('#found > li').allTextContents())[0]).toContain('no memory');
    await page.close();
  });

  it('takes a slash for the search, wherever it is pressed, and says how heat is drawn', async () => {
    const page = await open(large());
    expect(await page.locator('section > p').first().textContent()).toContain(
      'dirty, all passes: the stronger, the more of them found the page dirty, up to 1.',
    );
    expect((await find(page, 'nonsense'))[0]).toBe(
      '"nonsense" is no address: hex, with or without 0x, or a number with K, M, G or T',
    );
    await page.keyboard.press('/');
    await page.keyboard.type('5000');
    await page.keyboard.press('Enter');
    expect((await page.locator('#found > li').allTextContents())[0]).toMatch(
      /^Guest physical 0x5000: page 0x5, low \+ 0x5000/,
    );
    await page.close();
  });

  it('draws what there is: memory, holes, heat, in both themes', async () => {
    const page = await open(large());
    const [ground, memory] = [await pixel(page, 0, 600, 4), await pixel(page, 0, 160 + 100, 4)];
    expect(memory).not.toEqual(ground);
    const light = await background(page);
    await page.click('#theme');
    const dark = await background(page);
    expect(dark).not.toBe(light);
    expect(await pixel(page, 0, 160 + 100, 4)).not.toEqual(memory);
    // All keys of the first GiB at once, then one of them.
    const keys = page.locator('canvas').nth(1);
    await keys.focus();
    const picture = (): Promise<string> => page.evaluate("document.querySelectorAll('canvas')[1].toDataURL()");
    const before = await picture();
    await find(page, '0x1000');
    expect(await picture()).not.toBe(before);
    await page.close();
  });
});

it('the page of a report is one file', () => {
  const text = html(reportPage(), { title: 'x', about: [], pageSize: 4096, spaces: [], tables: [] });
  // One file: nothing in it is fetched.
  expect(text).not.toMatch(/<(?:link|script|img)[^>]*(?:src|href)=/);
  expect(text).not.toContain('/*DATA*/');
});
