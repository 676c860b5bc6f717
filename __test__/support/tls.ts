/** Certificates of a private authority, made with the `openssl` command, and a server with them. */
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { connect, createServer, type AddressInfo } from "node:net";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { TLSSocket } from "node:tls";

const DAYS = "30";
const CONFIGURATION = `
[req]
distinguished_name = name
prompt = no
[name]
[authority]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign, cRLSign
[server]
basicConstraints = critical, CA:false
extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost, IP:127.0.0.1
[nameless]
basicConstraints = critical, CA:false
[both]
basicConstraints = critical, CA:true
subjectAltName = DNS:localhost, IP:127.0.0.1
[client]
basicConstraints = critical, CA:false
extendedKeyUsage = clientAuth
`;

/** Paths of PEM files. */
export interface Certificates {
  authority: string;
  serverCertificate: string;
  serverKey: string;
  clientCertificate: string;
  clientKey: string;
}

/**
 * Makes an authority, a certificate of it for a server at localhost and 127.0.0.1, and one for
 * the client `postgres`, in a folder of the caller's.
 */
export function makeCertificates(folder: string): Certificates {
  const path = (name: string) => join(folder, name);
  const openssl = (...args: string[]) =>
    execFileSync("openssl", args, { cwd: folder, stdio: ["ignore", "ignore", "pipe"] });
  const configuration = path("openssl.cnf");
  writeFileSync(configuration, CONFIGURATION);

  /** A key, and a certificate for it that the authority signs, or itself if it is that. */
  const make = (name: string, subject: string) => {
    const key = path(`${name}.key`);
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key);
    const request = path(`${name}.csr`);
    const subjectOptions = ["-subj", `/CN=${subject}`, "-config", configuration];
    openssl("req", "-new", "-key", key, "-out", request, ...subjectOptions);
    const signer =
      name === "authority"
        ? ["-signkey", key]
        : ["-CA", path("authority.crt"), "-CAkey", path("authority.key"), "-CAcreateserial"];
    const extensions = ["-extfile", configuration, "-extensions", name];
    const output = ["-days", DAYS, "-out", path(`${name}.crt`)];
    openssl("x509", "-req", "-in", request, ...signer, ...extensions, ...output);
  };
  make("authority", "Private authority");
  make("server", "localhost");
  make("client", "postgres");
  return {
    authority: path("authority.crt"),
    serverCertificate: path("server.crt"),
    serverKey: path("server.key"),
    clientCertificate: path("client.crt"),
    clientKey: path("client.key"),
  };
}

/** Certificates for localhost that sign themselves, each odd in its own way. */
export const ODD_CERTIFICATES = {
  "X.509 version 1": { days: "30", extensions: "" },
  expired: { days: "-1", extensions: "server" },
  "a common name alone": { days: "30", extensions: "nameless" },
  "marked as an authority's": { days: "30", extensions: "both" },
};

/** One of these, with its key, as PEM. */
export function makeOddCertificate(folder: string, kind: keyof typeof ODD_CERTIFICATES) {
  const { days, extensions } = ODD_CERTIFICATES[kind];
  const [key, request] = [join(folder, "odd.key"), join(folder, "odd.csr")];
  const openssl = (...args: string[]) =>
    execFileSync("openssl", args, { cwd: folder, stdio: ["ignore", "pipe", "pipe"] }).toString();
  const configuration = join(folder, "openssl.cnf");
  writeFileSync(configuration, CONFIGURATION);
  openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key);
  const subject = ["-subj", "/CN=localhost", "-config", configuration];
  openssl("req", "-new", "-key", key, "-out", request, ...subject);
  const extended = extensions ? ["-extfile", configuration, "-extensions", extensions] : [];
  const cert = openssl("x509", "-req", "-in", request, "-signkey", key, "-days", days, ...extended);
  return { key: readFileSync(key, "utf8"), cert };
}

/** The port of a relay to a server, which it speaks plainly with, that talks TLS to its clients. */
export async function startTlsFront(
  t: TestContext,
  identity: { key: string; cert: string },
  upstream: { host: string; port: number },
): Promise<number> {
  const front = createServer((client) => {
    client.on("error", () => client.destroy());
    // What a client begins with is its request for TLS.
    client.once("data", () => {
      client.write("S");
      const secure = new TLSSocket(client, { isServer: true, ...identity });
      const server = connect(upstream);
      for (const [from, to] of [
        [secure, server],
        [server, secure],
      ] as const) {
        from.on("error", () => to.destroy());
        from.on("close", () => to.destroy());
        from.pipe(to);
      }
    });
  });
  front.listen(0, "127.0.0.1");
  await once(front, "listening");
  t.after(() => front.close());
  return (front.address() as AddressInfo).port;
}

/** Options of `startPostgres` for a server that talks TLS only; on request only to its clients. */
export function tlsOnly(certificates: Certificates, { clientCertificate = false } = {}) {
  const demand = clientCertificate ? " clientcert=verify-full" : "";
  return {
    config: {
      ssl: "on",
      ssl_ca_file: "authority.crt",
      ssl_cert_file: "server.crt",
      ssl_key_file: "server.key",
    },
    files: {
      "authority.crt": readFileSync(certificates.authority, "utf8"),
      "server.crt": readFileSync(certificates.serverCertificate, "utf8"),
      "server.key": readFileSync(certificates.serverKey, "utf8"),
      "pg_hba.conf": `hostssl all all all trust${demand}\n`,
    },
  };
}
