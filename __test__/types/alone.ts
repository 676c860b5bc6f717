/** The types by themselves: what they offer, and what they refuse. */
import {
  SQLiteSessionPersistDriver,
  type PersistError,
  type SessionEvent,
  type SessionRecord,
  type SQLiteSessionPersistDriverOptions,
} from "../../index.js";

const options: SQLiteSessionPersistDriverOptions = { durability: "normal", busyTimeoutMs: 5 };
export const driver = new SQLiteSessionPersistDriver(options);

export async function use(event: SessionEvent, session: SessionRecord): Promise<string[]> {
  await driver.updateSession(session);
  await driver.insertEvent(event);
  await driver.insertEvent(event.sessionId, event);
  const found: SessionRecord | undefined = await driver.getSession("s");
  const { items, nextCursor } = await driver.listEvents({ sessionId: "s" });
  driver[Symbol.dispose]();
  driver.close();
  return [found?.agent ?? "", nextCursor ?? "", ...items.map(({ id }) => id)];
}

export const isBusy = (error: PersistError) => error.code === "ERR_PERSIST_BUSY";

// @ts-expect-error an option that doesn't exist
new SQLiteSessionPersistDriver({ fileName: "a.db" });
// @ts-expect-error a durability that doesn't exist
new SQLiteSessionPersistDriver({ durability: "off" });
// @ts-expect-error a session id is missing
void driver.listEvents({});
// @ts-expect-error a code that doesn't exist
export const isWrong = (error: PersistError) => error.code === "ERR_BUSY";
