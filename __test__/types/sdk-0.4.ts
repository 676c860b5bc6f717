/** An application of the published SDK. */
import { SandboxAgent, type SessionPersistDriver } from "sandbox-agent";
import pg, { type PoolConfig } from "pg";
import { PostgresSessionPersistDriver, SQLiteSessionPersistDriver } from "../../index.js";

const persist = new SQLiteSessionPersistDriver({ filename: "./sandbox-agent.db" });
const driver: SessionPersistDriver = persist;
export const sdk = SandboxAgent.connect({ baseUrl: "http://127.0.0.1:2468", persist });
export const stored = driver.listEvents({ sessionId: "s", limit: 5 });

const shared = new PostgresSessionPersistDriver({
  connectionString: process.env.DATABASE_URL,
  schema: "public",
});
export const sharedDriver: SessionPersistDriver = shared;
export const sharedSdk = SandboxAgent.connect({
  baseUrl: "http://127.0.0.1:2468",
  persist: shared,
});

// What an application has for node-postgres fits as it is.
declare const poolConfig: PoolConfig;
export const alike = [
  new PostgresSessionPersistDriver({ poolConfig }),
  new PostgresSessionPersistDriver({ pool: new pg.Pool(poolConfig) }),
  new PostgresSessionPersistDriver({ poolConfig: { password: async () => "token", max: 3 } }),
];
export const closed: Promise<void> = shared.close();
