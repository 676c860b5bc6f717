/** Certificates of a private authority, made with the `openssl` command, and a server with them. */
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

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
