// Opens and seals envelopes (PROTOCOL.md, section 6) with an HPKE library that we didn't write. Not here: keys' texts and
// everything inside an envelope. Each line on stdin is a question in JSON, bytes in base64; each line on stdout its answer:
//
//   {"op":"open","secret":…,"mailbox":…,"envelope":…}            {"content":1,"message":…} or {"refused":"why"}
//   {"op":"seal","key":…,"mailbox":…,"content":1,"message":…}    {"envelope":…} or {"refused":"why"}

import { createInterface } from "node:readline";
import { Chacha20Poly1305 } from "@hpke/chacha20poly1305";
import { CipherSuite, DhkemX25519HkdfSha256, HkdfSha256 } from "@hpke/core";

const SUITE = new CipherSuite({
  kem: new DhkemX25519HkdfSha256(),
  kdf: new HkdfSha256(),
  aead: new Chacha20Poly1305(),
});
const INFO = Buffer.from("countersign/v1 envelope");
const LENGTHS = [1024, 2048, 4096, 16384, 65536];
const ENC = 32;
const SEAL = 48; // enc and the authentication tag
const HEADER = 5; // content and length

/** The smallest length of an envelope that holds so long a message. */
function lengthFor(message) {
  const length = LENGTHS.find((each) => message <= each - SEAL - HEADER);
  if (length === undefined) throw new Error("message too long");
  return length;
}

function aad(mailbox, length) {
  const bytes = Buffer.alloc(36);
  mailbox.copy(bytes);
  bytes.writeUInt32BE(length, 32);
  return bytes;
}

async function open({ secret, mailbox, envelope }) {
  if (!LENGTHS.includes(envelope.length)) throw new Error("not an envelope's length");
  const recipientKey = await SUITE.kem.importKey("raw", secret, false);
  const plain = Buffer.from(
    await SUITE.open(
      { recipientKey, enc: envelope.subarray(0, ENC), info: INFO },
      envelope.subarray(ENC),
      aad(mailbox, envelope.length),
    ),
  );
  const content = plain.readUInt8(0);
  const length = plain.readUInt32BE(1);
  if (content !== 1 && content !== 2) throw new Error("unknown content");
  if (lengthFor(length) !== envelope.length) throw new Error("longer than its message needs");
  if (plain.subarray(HEADER + length).some((byte) => byte !== 0)) throw new Error("padding isn't zero");
  return { content, message: plain.subarray(HEADER, HEADER + length).toString("base64") };
}

async function seal({ key, mailbox, content, message }) {
  const length = lengthFor(message.length);
  const plain = Buffer.alloc(length - SEAL);
  plain.writeUInt8(content, 0);
  plain.writeUInt32BE(message.length, 1);
  message.copy(plain, HEADER);
  const recipientPublicKey = await SUITE.kem.deserializePublicKey(key);
  const { ct, enc } = await SUITE.seal({ recipientPublicKey, info: INFO }, plain, aad(mailbox, length));
  return { envelope: Buffer.concat([Buffer.from(enc), Buffer.from(ct)]).toString("base64") };
}

const OPERATIONS = { open, seal };

for await (const line of createInterface({ input: process.stdin })) {
  let answer;
  try {
    const { op, content, ...fields } = JSON.parse(line);
    const bytes = Object.entries(fields).map(([name, text]) => [name, Buffer.from(text, "base64")]);
    answer = await OPERATIONS[op]({ content, ...Object.fromEntries(bytes) });
  } catch (error) {
    answer = { refused: String(error.message || error.name) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
