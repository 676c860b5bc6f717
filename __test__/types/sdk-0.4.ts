/** An application of the published SDK. */
import { SandboxAgent, type SessionPersistDriver } from "sandbox-agent";
import { SQLiteSessionPersistDriver } from "../../index.js";

const persist = new SQLiteSessionPersistDriver({ filename: "./sandbox-agent.db" });
const driver: SessionPersistDriver = persist;
export const sdk = SandboxAgent.connect({ baseUrl: "http://127.0.0.1:2468", persist });
export const stored = driver.listEvents({ sessionId: "s", limit: 5 });
