/** The interface as SDK 0.2 and 0.3 declare it. */
import { PostgresSessionPersistDriver, SQLiteSessionPersistDriver } from "../../index.js";

interface SessionRecord {
  id: string;
  agent: string;
  agentSessionId: string;
  lastConnectionId: string;
  createdAt: number;
  destroyedAt?: number;
  sessionInit?: { cwd: string; mcpServers: object[] };
}
interface SessionEvent {
  id: string;
  eventIndex: number;
  sessionId: string;
  createdAt: number;
  connectionId: string;
  sender: "client" | "agent";
  payload: { jsonrpc: "2.0"; method: string } | { jsonrpc: "2.0"; id: number; result: unknown };
}
interface Page<T> {
  items: T[];
  nextCursor?: string;
}
interface SessionPersistDriver {
  getSession(id: string): Promise<SessionRecord | null>;
  listSessions(request?: { cursor?: string; limit?: number }): Promise<Page<SessionRecord>>;
  updateSession(session: SessionRecord): Promise<void>;
  listEvents(request: {
    sessionId: string;
    cursor?: string;
    limit?: number;
  }): Promise<Page<SessionEvent>>;
  insertEvent(event: SessionEvent): Promise<void>;
}

export const driver: SessionPersistDriver = new SQLiteSessionPersistDriver();
export const sharedDriver: SessionPersistDriver = new PostgresSessionPersistDriver();
