/**
 * A TCP relay between a driver and its server, for trouble on the way. It knows bytes only, with
 * two exceptions: the end of a PostgreSQL answer, and a refusal. It holds back nobody who sends too fast: what a
 * test sends fits in memory.
 */
import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";
import type { TestContext } from "node:test";
import { addressOf, atPort, databaseUrl, freshSchema } from "./postgres.ts";

/** `ReadyForQuery`: the last message of an answer, but for a byte with the transaction's state. */
const READY_FOR_QUERY = Buffer.from([0x5a, 0, 0, 0, 5]);
const isComplete = (answer: Buffer) =>
  answer.subarray(-READY_FOR_QUERY.length - 1, -1).equals(READY_FOR_QUERY);

/** What a pooler or a server may say in place of letting somebody in. */
export type Refusal = { severity?: string; state: string; message: string };

/** `ErrorResponse`. */
function errorResponse({ severity = "FATAL", state, message }: Refusal): Buffer {
  const fields = Buffer.from(`S${severity}\0V${severity}\0C${state}\0M${message}\0\0`);
  const length = Buffer.alloc(4);
  length.writeInt32BE(fields.length + length.length);
  return Buffer.concat([Buffer.from("E"), length, fields]);
}

type Match = (bytes: Buffer) => boolean;
type Swallow = { match: Match; resolve: () => void };

/** A socket that is just being shut down can't be reset: Node 20 would never let go of it. */
function reset(socket: Socket): void {
  if (socket.writableEnded) socket.destroy();
  else socket.resetAndDestroy();
}

class Connection {
  readonly #relay: Relay;
  readonly #client: Socket;
  readonly #server: Socket;
  /** What the client has sent since the server last answered. */
  #request = Buffer.alloc(0);
  #answer = Buffer.alloc(0);
  #swallow: Swallow | undefined;

  constructor(relay: Relay, client: Socket, server: Socket) {
    this.#relay = relay;
    this.#client = client;
    this.#server = server;
    for (const socket of [client, server]) {
      socket.setNoDelay(true);
      socket.on("error", () => this.cut());
    }
    client.on("data", (bytes) => this.#fromClient(bytes)).on("end", () => server.end());
    server.on("data", (bytes) => this.#fromServer(bytes)).on("end", () => this.#serverEnded());
  }

  /** Ends it on both sides as a broken network does, with a reset. */
  cut(): void {
    reset(this.#client);
    reset(this.#server);
    this.#swallow?.resolve();
  }

  /** Ends it for the client alone: the server isn't told, and goes on with what it was sent. */
  cutClient(): void {
    reset(this.#client);
  }

  /** Keeps what arrives from being read, on both sides. */
  pause(): void {
    this.#client.pause();
    this.#server.pause();
  }

  resume(): void {
    this.#client.resume();
    this.#server.resume();
  }

  #fromClient(bytes: Buffer): void {
    if (this.#relay.delayMs > 0) setTimeout(() => this.#server.write(bytes), this.#relay.delayMs);
    else this.#server.write(bytes);
    if (!this.#relay.swallow || this.#swallow) return;
    this.#request = Buffer.concat([this.#request, bytes]);
    if (!this.#relay.swallow.match(this.#request)) return;
    this.#swallow = this.#relay.swallow;
    this.#relay.swallow = undefined;
  }

  #fromServer(bytes: Buffer): void {
    if (!this.#swallow) {
      this.#request = Buffer.alloc(0);
      this.#client.write(bytes);
      return;
    }
    this.#answer = Buffer.concat([this.#answer, bytes]);
    if (isComplete(this.#answer)) this.cut();
  }

  #serverEnded(): void {
    if (this.#swallow) this.cut();
    else this.#client.end();
  }
}

export class Relay {
  /** The URL of the database, by way of the relay. */
  url = "";
  port = 0;
  /** How long what a client sends takes to the server. Constant while there are connections. */
  delayMs = 0;
  /** How many clients have connected so far. */
  accepted = 0;
  /** Whether new clients are let in and then told nothing. */
  isSilent = false;
  /** How the next clients are refused, each in turn; the others are let in. */
  refusals: Iterator<Refusal> | undefined;
  /** Whose answer is to be swallowed next. */
  swallow: Swallow | undefined;
  #target: string;
  #listener: Server | undefined;
  #connections = new Set<Connection>();
  /** Those with a server, with or without a client. */
  #open = new Set<Connection>();
  #isBlackHole = false;
  #cutting: NodeJS.Timeout | undefined;

  constructor(target: string) {
    this.#target = target;
  }

  async listen(): Promise<void> {
    this.#listener = createServer({ allowHalfOpen: true }, (client) => this.#accept(client));
    this.#listener.listen(this.port, "127.0.0.1");
    await once(this.#listener, "listening");
    this.port = (this.#listener.address() as { port: number }).port;
    this.url = atPort(this.#target, this.port);
  }

  #accept(client: Socket): void {
    this.accepted += 1;
    if (this.isSilent) {
      client.on("error", () => {});
      return;
    }
    const refusal = this.refusals?.next();
    if (refusal && !refusal.done) {
      client.on("error", () => {});
      client.once("data", () => client.end(errorResponse(refusal.value)));
      return;
    }
    const server = connect({ ...addressOf(this.#target), allowHalfOpen: true });
    const connection = new Connection(this, client, server);
    this.#connections.add(connection);
    this.#open.add(connection);
    server.once("close", () => this.#open.delete(connection));
    client.once("close", () => this.#connections.delete(connection));
    if (this.#isBlackHole) connection.pause();
  }

  /** How many clients are connected. */
  get size(): number {
    return this.#connections.size;
  }

  /** Sends new connections to another server. */
  retarget(url: string): void {
    this.#target = url;
  }

  /** Resets all connections. */
  cutAll(): void {
    for (const connection of this.#connections) connection.cut();
  }

  /** Resets all connections for their clients alone, as a middlebox does that forgot them. */
  cutClients(): void {
    for (const connection of this.#connections) connection.cutClient();
  }

  /** Resets all connections every so often; 0 ends that. */
  cutEvery(ms: number): void {
    clearInterval(this.#cutting);
    if (ms > 0) this.#cutting = setInterval(() => this.cutAll(), ms).unref();
  }

  /**
   * Once: delivers the request that matches, waits until the server has answered it, drops the
   * answer and resets the connection. `match` sees all that the client has sent since it was last
   * answered. Resolves when it has happened. Not for encrypted connections.
   */
  swallowAnswerAndCut(match: Match): Promise<void> {
    return new Promise((resolve) => (this.swallow = { match, resolve }));
  }

  /** Whether new connections are refused. Those that are open stay. */
  async refuse(isRefusing: boolean): Promise<void> {
    if (isRefusing) this.#listener?.close();
    if (isRefusing) this.#listener = undefined;
    else if (!this.#listener) await this.listen();
  }

  /** Whether bytes vanish, without a word to either side. When not any more, they arrive. */
  blackHole(isBlackHole: boolean): void {
    this.#isBlackHole = isBlackHole;
    for (const connection of this.#connections) {
      if (isBlackHole) connection.pause();
      else connection.resume();
    }
  }

  /** As `blackHole`, for good, and only for connections that are open now; or for so many of them. */
  freezeOpen(count = Infinity): void {
    for (const connection of [...this.#connections].slice(0, count)) connection.pause();
  }

  /** Resets the connection that was opened first. */
  cutFirst(): void {
    for (const connection of [...this.#connections].slice(0, 1)) connection.cut();
  }

  async stop(): Promise<void> {
    this.cutEvery(0);
    await this.refuse(true);
    for (const connection of this.#open) connection.cut();
    this.cutAll();
  }
}

/** A relay to a database, stopped after the test. */
export async function relayTo(t: TestContext, url: string): Promise<Relay> {
  const relay = new Relay(url);
  await relay.listen();
  t.after(() => relay.stop());
  return relay;
}

/** The ways of a driver to the run's database: by a relay, and straight. */
export async function relayed(t: TestContext) {
  const schema = freshSchema(t);
  const relay = await relayTo(t, databaseUrl());
  return {
    relay,
    options: { connectionString: relay.url, schema },
    straight: { connectionString: databaseUrl(), schema },
  };
}
