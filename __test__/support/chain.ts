/** Events as the SDK hands them over: one after another, each once the one before is stored. */
import type { PostgresSessionPersistDriver, SQLiteSessionPersistDriver } from "../../index.js";
import { event } from "./fixtures.ts";

type Driver = SQLiteSessionPersistDriver | PostgresSessionPersistDriver;

/** Each call is made in the turn in which the one before was settled. */
export async function chain(
  driver: Driver,
  sessionId: string,
  length: number,
  stored: (index: number) => unknown = () => {},
): Promise<void> {
  for (let index = 1; index <= length; index += 1) {
    await driver.insertEvent(sessionId, event(sessionId, index));
    stored(index);
    await driver.getSession(sessionId);
  }
}
