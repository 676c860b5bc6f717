/** Tests of what every driver does. */
import { test, type TestContext } from "node:test";

/** Makes tests, each with a driver of its own that is closed in the end. */
export const contractOf =
  <Driver extends { close(): unknown }>(create: (t: TestContext) => Driver) =>
  (title: string, body: (driver: Driver) => Promise<void>) =>
    test(title, async (t) => {
      const driver = create(t);
      try {
        await body(driver);
      } finally {
        await driver.close();
      }
    });
