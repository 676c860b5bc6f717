/** `using`, where the compiler knows it. */
import { PostgresSessionPersistDriver, SQLiteSessionPersistDriver } from "../../index.js";

export function scoped(): void {
  using driver = new SQLiteSessionPersistDriver();
  void driver.getSession("s");
}

export async function asyncScoped(): Promise<void> {
  await using driver = new PostgresSessionPersistDriver();
  void driver.getSession("s");
}
