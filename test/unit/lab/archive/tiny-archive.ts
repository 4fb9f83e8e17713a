import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { PackageFile } from '../../../../lib/lab/archive/suite-index.ts';

/** An archive on this machine, with whatever faults a test gives it. */
export class TinyArchive {
  /** What it has, by path, such as `/debian/pool/main/a/a.deb`. */
  readonly files = new Map<string, Buffer>();
  /** Method, path and range of each request. */
  readonly requests: string[] = [];
  /** After so many bytes of a body the connection is closed. */
  breakAfter: number | undefined;
  /** Whether it can go on with a part of a file. */
  ranges = true;
  private readonly server: Server;

  private constructor(server: Server) {
    this.server = server;
  }

  static async start(): Promise<TinyArchive> {
    const server = createServer((request, response) => archive.answer(request, response));
    const archive = new TinyArchive(server);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return archive;
  }

  /** The address of its main archive. */
  get address(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}/debian`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }

  private answer({ method, url = '', headers }: IncomingMessage, response: ServerResponse): void {
    const path = decodeURIComponent(url);
    this.requests.push([method, path, headers.range ?? ''].join(' ').trim());
    const file = this.files.get(path);
    if (file === undefined) {
      response.writeHead(404).end();
      return;
    }
    const start = this.ranges ? Number(/^bytes=(\d+)-/.exec(headers.range ?? '')?.[1] ?? 0) : 0;
    const body = file.subarray(start);
    response.writeHead(start === 0 ? 200 : 206, {
      'content-length': body.length,
      ...(start === 0 ? {} : { 'content-range': `bytes ${start}-${file.length - 1}/${file.length}` }),
    });
    if (method === 'HEAD') response.end();
    else if (this.breakAfter === undefined || body.length <= this.breakAfter) response.end(body);
    else response.write(body.subarray(0, this.breakAfter), () => setTimeout(() => response.destroy(), 50));
  }
}

/** A package of a content that nobody unpacks. */
export function packageOf(name: string, content: Buffer, details: Partial<PackageFile> = {}): PackageFile {
  return {
    name,
    version: '1.0-1',
    architecture: 's390x',
    suite: 'trixie',
    bytes: content.length,
    sha256: sha256(content),
    paths: [`pool/main/${name[0]}/${name}/${name}_1.0-1_s390x.deb`],
    ...details,
  };
}

export function sha256(content: Buffer | string): string {
  return createHash('sha256').update(content).digest('hex');
}
