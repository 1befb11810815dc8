"""Takes the seeds of the fuzz targets from the vectors: `python3 seeds.py` in this folder writes the same files again.

What stands behind a signature, a MAC or a sum in a vector is taken out of it, because the targets authenticate it anew
(`tests/src/decoders/`). Files that it doesn't make (crashes that were mended) are left alone. Needs `cryptography` for
the names of parties only.
"""

import base64
import hashlib
import json
import pathlib
import re
import zlib

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

HERE = pathlib.Path(__file__).resolve().parent
VECTORS = HERE.parent / "vectors"
BYTES = 16 * 1024  # larger vectors make slow seeds


def seed(target, name, content):
    content = content.encode() if isinstance(content, str) else content
    if len(content) <= BYTES:
        folder = HERE / "seeds" / target
        folder.mkdir(parents=True, exist_ok=True)
        (folder / re.sub(r"[^a-z0-9_-]+", "_", name.lower())).write_bytes(content)


def one_in(count, name):
    """Whether to take this one of many. By its name, so that a new vector doesn't change which others are taken."""
    return zlib.crc32(name.encode()) % count == 0


def vectors(file):
    return json.loads((VECTORS / file).read_text())


def frames():
    for verdict, them in vectors("wire/frames.json").items():
        for vector in them if verdict != "about" else []:
            seed(f"{vector['from']}_frame", vector["name"], bytes.fromhex(vector["hex"]))


def logins():
    login = vectors("wire/login.json")
    for vector in login["good"] + login["bad"]:
        fields = [vector["nonce"], "01", f"{vector['version']:04x}", vector["mailbox"], vector["signature"]]
        seed("login", vector["name"], bytes.fromhex("".join(fields)))
    for number, vector in enumerate(login["names"] + login["bad_names"]):
        url = vector["url"]
        seed("relay_url", f"{number:02}", url)
        seed("relay_name", f"{number:02}", re.sub("^[A-Za-z]*://|/.*", "", url))
        if number % 8 == 0:
            seed("relay_name", f"{number:02}_url", url)


def keys():
    keys = vectors("wire/keys.json")
    for vector in keys["good"]:
        seed("key_text", vector["name"], vector["public_text"])
        seed("key_text", vector["name"] + "_secret", vector["secret_text"])
        seed("key_bytes", vector["name"], bytes.fromhex(vector["public"]))
    for vector in keys["bad_texts"][::4]:
        seed("key_text", vector["name"], vector["text"])
    for vector in keys["bad_points"][::2]:
        seed("key_bytes", vector["name"], bytes.fromhex(vector["public"]))
    seed("key_bytes", "one_byte_short", bytes(range(31)))
    seed("key_bytes", "one_byte_long", bytes(range(33)))


def envelopes():
    envelopes = vectors("wire/envelopes.json")
    for vector in envelopes["good"] + envelopes["bad"]:
        if "envelope" in vector and len(vector["envelope"]) <= 2 * 2048:
            seed("envelope", vector["name"], bytes.fromhex(vector["envelope"]))
    seed("envelope", "of_1023_bytes", bytes(1023))

    def inside(name, content, length, rest):
        seed("envelope_inside", name, bytes([content]) + length.to_bytes(4, "big") + rest)

    words = b"a message of the group"
    inside("mls", 1, len(words), words)
    inside("pairing", 2, len(words), words)
    inside("pairing_of_nothing", 2, 0, b"")
    inside("filling_the_smallest", 1, 971, bytes(range(1, 256)) * 3 + bytes(range(1, 207)))
    inside("first_of_the_second_length", 1, 972, bytes(range(1, 256)) * 3 + bytes(range(1, 208)))
    inside("content_0", 0, len(words), words)
    inside("content_3", 3, len(words), words)
    inside("padding_not_zero", 1, len(words) - 1, words)
    inside("length_one_beyond_the_end", 1, 972, words)
    inside("length_of_4_gib", 1, 2**32 - 1, words)
    inside("not_the_smallest_length", 1, 1, words[:1] + bytes(1200))
    seed("envelope_inside", "empty", b"")


def payload_of(statement):
    match = re.match(r'\{"payloadType":"application/vnd\.countersign\.([a-z]+)\+json","payload":"([^"]*)"', statement)
    return match and (match[1], base64.b64decode(match[2], validate=True))


def statements():
    for vector in vectors("approval/statements.json"):
        small = len(vector["input"]) < 2048
        if vector["expect"] in ("ok", "spelling", "kind", "signature", "signer") and small:
            seed("statement", vector["name"], vector["input"])
        if vector["expect"] in ("ok", "payload", "signer") and len(vector["input"]) < 7000:
            kind, payload = payload_of(vector["input"])
            # A roster is long: of the bad ones some are enough.
            if kind != "roster" or vector["expect"] == "ok" or small or one_in(3, vector["name"]):
                seed(kind, vector["name"], payload)
    for number, vector in enumerate(vectors("approval/decisions.json")["statements"]):
        kind, payload = payload_of(vector)
        if kind in ("decision", "request"):
            seed(kind, f"decided_{number:02}", payload)
    for kind in ("device", "roster", "request", "decision", "permit", "outcome", "grant", "revocation", "policy"):
        for name, payload in {"empty": "", "null": "null", "array": "[1]", "nested": "[" * 300}.items():
            seed(kind, name, payload)


def policies():
    policies = vectors("approval/policies.json")
    for vector in policies["good"] + policies["bad"]:
        seed("policy", vector["name"], vector["input"])


def messages():
    for vector in vectors("approval/messages.json"):
        seed("message", vector["name"], bytes.fromhex(vector["input"]))


def pairings():
    for vector in vectors("approval/links.json"):
        link = vector["input"]
        seed("invite_link", vector["name"], link)
        if vector["expect"] != "damaged" and re.fullmatch("countersign:1[A-Za-z0-9_-]{100,}", link):
            encoded = link.removeprefix("countersign:1")
            try:
                body = base64.b64decode(encoded + "=" * (-len(encoded) % 4), b"-_", validate=True)[:-4]
                seed("invite_body", vector["name"], body)
            except ValueError:
                pass
    pairing = vectors("approval/pairings.json")
    for step in ("join", "challenge", "reveal", "answer"):
        message = bytes.fromhex(pairing[step])
        body = message[:-32]
        seed(step, "good", message)
        seed(step, "good_behind_the_mac", body)
        seed(step, "cut_short", body[:-1])
        seed(step, "one_byte_long", body + b"\0")
        seed(step, "of_type_5", b"\5" + body[1:])
        seed(step, "zeros", bytes([body[0]]) + bytes(len(body) - 1))
        seed(step, "empty", b"")
        for at in range(1, len(body), len(body) // 5):
            seed(step, f"changed_at_{at:03}", body[:at] + bytes([body[at] ^ 0x41]) + body[at + 1 :])
    for vector in pairing["bad"]:
        seed(vector["step"], vector["name"], bytes.fromhex(vector["input"]))


def checkpoints():
    for path in sorted((VECTORS / "transcript").glob("checkpoint-*.txt")):
        text = path.read_bytes()
        seed("checkpoint", path.stem, text)
        seed("checkpoint_body", path.stem, text.split(b"\n\n")[0] + b"\n" if b"\n\n" in text else text)
    body = (VECTORS / "transcript/checkpoint-good.txt").read_text().split("\n\n")[0] + "\n"
    for name, other in {
        "size_with_a_plus": re.sub(r"\n(\d+)\n", r"\n+\1\n", body),
        "size_beyond_u64": re.sub(r"\n(\d+)\n", r"\n18446744073709551616\n", body),
        "size_of_u64_max": re.sub(r"\n(\d+)\n", r"\n18446744073709551615\n", body),
        "no_root": body.rsplit("\n", 2)[0] + "\n",
        "root_without_padding": body.replace("=\n", "\n"),
        "an_empty_line": body.replace("\n", "\n\n", 1),
        "empty": "",
    }.items():
        seed("checkpoint_body", name, other)


def party(seed):
    """The csid1 text of the identity whose seed is this byte 32 times (BIP 173)."""
    alphabet = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
    secret = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    key = secret.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    bits = "".join(f"{byte:08b}" for byte in key) + "0000"
    data = [int(bits[at : at + 5], 2) for at in range(0, 260, 5)]
    hrp = "csid"
    checksum = 1
    for value in [ord(c) >> 5 for c in hrp] + [0] + [ord(c) & 31 for c in hrp] + data + [0] * 6:
        top, checksum = checksum >> 25, (checksum & 0x1FFFFFF) << 5 ^ value
        for bit, term in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            checksum ^= term if top >> bit & 1 else 0
    data += [((checksum ^ 1) >> 5 * (5 - at)) & 31 for at in range(6)]
    return hrp + "1" + "".join(alphabet[value] for value in data)


def script(text, quoted, seeds):
    """The lines of the target `transcript` that say what this export says, or None if one isn't an entry."""
    digests, lines = {}, []
    for line in text.splitlines()[1:-1]:
        match = re.fullmatch(r'\{"index":\d+,"statement":(.*)\}', line)
        kind, payload = match and payload_of(match[1]) or (None, b"\n")
        signer = re.search(r'"keyid":"([^"]*)"', line)
        if b"\n" in payload or not signer or signer[1] not in seeds:
            return None
        signed = f"application/vnd.countersign.{kind}+json"
        signed = f"DSSEv1 {len(signed)} {signed} {len(payload)} ".encode() + payload
        said = payload.decode()
        for digest, index in digests.items():
            said = said.replace(digest, f"@{index}@")
        if quoted:
            said = re.sub(r'"checkpoint":"[^"\\]*\\n(\d+)\\n[^"]*"', r'"checkpoint":"^\1^"', said)
        digests[hashlib.sha256(signed).hexdigest()] = len(digests)
        lines.append(f"{seeds[signer[1]]} {kind} {said}\n")
    return lines


def transcripts():
    seeds = {party(seed): seed for seed in range(1, 60)}
    for path in sorted((VECTORS / "transcript").glob("*.jsonl")):
        text = path.read_bytes().decode()
        taken = path.stem.startswith("good") or one_in(3, path.stem)
        if taken:
            seed("export", path.stem, text)
        if path.stem.startswith("bad-file"):
            continue
        lines = script(text, "quoting" not in path.stem, seeds)
        if lines and len(lines) > 20:
            seed("transcript", "good-beginning-of-a-season", "".join(lines[:11]))
        elif lines and (taken or one_in(2, path.stem)):
            seed("transcript", path.stem, "".join(lines))
    for path in sorted((VECTORS / "transcript").glob("proof-*.json")):
        seed("proof", path.stem, path.read_bytes())


COMMAND = """command
  executable  /usr/bin/git
  sha256      f1a80fd2a4b9d1b11d2ff60a5b6e0bd8b4d5e0d4ab0d4f9b2b3d2a3f7b1f6c01
  inode       fd01:1a2b
  argv[0]     git
  argv[1]     (empty)
  argv[2]     \\u{28}empty)
  argv[3]     caf\u00e9 \\u{20}\\u{20}\\xff\\u{1b}[2J\\\\
  env         A=
  env         LANG\\u{3d}=C.UTF-8
  directory   /srv/site
  inode       fd01:2
  stdin       none
  limits      wall 30000 ms, output 1048576 bytes, memory 0 bytes
  user        uid 1000
"""
HASH = "ab" * 32
SCRIPT = (
    COMMAND.replace("  argv[0]", f"  interpreter /usr/my\\u{{20}}bin/sh sha256 {HASH} inode fd01:3\n  argv[0]")
    .replace("none", f"sha256 {HASH}, 4 bytes")
    .replace("  limits", f"  operand     argv[2] /srv/site/x sha256 {HASH} inode fd01:4\n  limits")
    + "  mark        runner\n  mark        writable\n"
)
TOOL = f"tool call\n  server      files\n  tool        (empty)\n  schema      {HASH}\n  arguments   {{}}\n"
SECRET = "use of a secret\n  name        token\n  host        a.example\n  method      GET\n  path        /\\u{20}\n"


def shown():
    device = "{} {} leaf {} created 1795183200000 digest {}".format
    leaf = base64.b64encode(bytes([7]) * 32).decode()
    gate = device(party(1), "gate", leaf, "ab" * 32)
    alice = device(party(2), "phone", leaf, "cd" * 32)
    change = (
        f"roster change\n  gate        {gate}\n  person      alice admin\n  device        {alice}\n"
        "  person      dora auditor\n  quorum      command 2, roster 3\n  policy      none\n  relay       wss://relay.example.org\n"
    )
    bare = COMMAND.replace("  env         A=\n", "").replace("LANG\\u{3d}=C.UTF-8", "(empty)")
    for name, text in {
        "command": COMMAND,
        "command_without_environment": bare,
        "roster": change,
        "roster_with_a_policy": change.replace("policy      none", "policy[0]   # a\n  policy[1]   (empty)"),
        "roster_with_policy_lines_out_of_order": change.replace("policy      none", "policy[1]   # a"),
        "script": SCRIPT,
        "script_with_an_unknown_mark": SCRIPT.replace("runner", "walker"),
        "script_with_an_inode_in_upper_case": SCRIPT.replace("fd01:3", "FD01:3"),
        "script_with_a_raw_space": SCRIPT.replace("\\u{20}bin", " bin"),
        "tool": TOOL,
        "tool_without_a_schema": TOOL.replace("schema", "scheme"),
        "secret": SECRET,
        "secret_in_upper_case": SECRET.replace("token", "Token"),
        "command_with_a_line_more": COMMAND + "  user        uid 0\n",
        "command_without_its_last_line_feed": COMMAND[:-1],
        "command_with_arguments_out_of_order": COMMAND.replace("argv[1]", "argv[2]"),
        "command_with_a_loose_backslash": COMMAND.replace("\\\\", "\\"),
        "command_with_a_leading_zero": COMMAND.replace("uid 1000", "uid 01000"),
        "command_with_a_plus": COMMAND.replace("wall 30000", "wall +30000"),
        "command_with_a_number_beyond_u64": COMMAND.replace("30000", "18446744073709551616"),
        "command_with_a_raw_escape": COMMAND.replace("\\u{1b}", "\x1b"),
        "command_with_a_stdin": COMMAND.replace("none", "inherited"),
        "roster_with_an_unknown_role": change.replace("auditor", "owner"),
        "roster_with_a_device_of_nobody": change.replace("  person      alice admin\n", ""),
        "empty": "",
    }.items():
        seed("rendered", name, text)

    limits = (30000).to_bytes(8, "big") + (1 << 20).to_bytes(8, "big") + bytes(4)
    numbers = b"\3\2\0\xfd\1\x1a\x2b" + limits + (1000).to_bytes(4, "big") + b"\0"
    strings = {
        "plain": b"git\0push\0--tags\0LANG\0C.UTF-8\0PATH\0/usr/bin\0/usr/bin/git\0/srv/site",
        "said_to_be_empty": b"(empty)\0\0(empty)\0(empty)\0(empty)\0\0\0(empty)\0(empty)",
        "spaces": b" \0  \0a  b\0 x \0 \0=\0==\0/ \0 /",
        "escapes": b"\\\0\\u{20}\0\\x20\0\\\\\0\\u{\0\\\0}\0/\\\0/\\x",
        "not_text": b"\xff\0\xc3\0\xed\xa0\x80\0\xf4\x90\x80\x80\0\x80\0\xc0\xaf\0\xfe\0/\xff\0/\xe2\x82",
        "lines": b"a\nb\0a\r\nb\0\n\0\n  user        uid 0\0x\0\t\0y\0/\x1b[2J\0/\x7f",
        "unseen": "\u202e\0\u200b\0\ufeff\0\u3164\0\u2066\0\u00ad\0\u115f\0/\u0301\0/\u2028".encode(),
        "of_many_scripts": "\u0416\0\u4e2d\0\u05d0\0\u0627\0\u0967\0\u1f600\0\U0001f600\0/\U0001e900\0/\ufb1d".encode(),
    }
    for name, bytes_ in strings.items():
        seed("rendering", name, numbers + bytes_)
        seed("escaping", name, bytes_.replace(b"\0", b"\n"))
    seed("rendering", "nothing", b"")
    seed("rendering", "every_number_at_its_largest", b"\5\0" + b"\xff" * 30 + strings["plain"])
    seed("escaping", "nothing", b"")
    seed("escaping", "empty", "(empty)")
    seed("escaping", "longer_than_a_line", "\u4e2d\u6587 words " * 40)
    seed("escaping", "zero", b"\0")
    for name, text in {
        "plain": "git push",
        "empty": "(empty)",
        "not_empty": "\\u{28}empty)",
        "nothing": "",
        "backslash": "\\\\",
        "bytes": "\\xff\\xfe",
        "spaces": "\\u{20}a\\u{20}\\u{20}b\\u{20}",
        "letters": "caf\u00e9 \u0416\u4e2d",
        "unseen": "\\u{202e}\\u{200b}\\u{1f600}",
        "half": "\\",
        "half_of_a_byte": "\\xf",
        "byte_that_is_text": "\\x41",
        "upper_case": "\\xFF",
        "leading_zero": "\\u{020}",
        "with_a_plus": "\\u{+20}",
        "byte_with_a_plus": "\\x+f",
        "surrogate": "\\u{d800}",
        "beyond_unicode": "\\u{110000}",
        "beyond_u32": "\\u{100000000}",
        "open": "\\u{20",
        "across_a_character": "\\x\u00e9",
        "raw_escape": "\x1b[2J",
        "raw_space": " a",
    }.items():
        seed("escaped", name, text)


def questions():
    command = {"argv": ["git", "push", {"base64": "//4="}], "directory": "/srv/site", "env": [["LANG", "C.UTF-8"]]}
    limits = {"stdin": "eWVzCg==", "wall_ms": 30000, "output_bytes": 2, "memory_bytes": 0}
    tool = {"server": "files", "tool": "read", "schema": HASH, "arguments": "{}"}
    secret = {"name": "token", "host": "a.example", "method": "GET", "path": "/"}
    ask = {"what": {"command": command}}
    who = {"agent": "butler/maid", "under": ["chief"], "user": "Erin \u202e", "conversation": "#ops", "platform": "matrix"}
    more = who | {"reason": "the tests are green", "expires_ms": 1, "ticket": "ab" * 16}
    for name, question in {
        "ask": {"ask": ask},
        "ask_with_everything": {"ask": {"what": {"command": command | limits}} | more},
        "ask_for_a_tool": {"ask": {"what": {"tool": tool}}},
        "ask_for_a_secret": {"ask": {"what": {"secret": secret}}},
        "request": {"request": ask | more},
        "explain": {"explain": ask | who},
        "attach": {"attach": {"id": "abcd"}},
        "wait": {"wait": {"id": HASH, "timeout_ms": 0}},
        "cancel": {"cancel": {"id": "abcd"}},
        "redeem": {"redeem": {"id": HASH} | ask},
        "events": {"events": {}},
        "tools": {"tools": who | {"tools": [{"server": "files", "tool": "read"}, {"server": "", "tool": "/"}]}},
        "grants": {"grants": {}},
        "invite": {"invite": {"person": "alice", "role": "admin", "minutes": 10, "quorum": None}},
        "invite_with_a_quorum": {
            "invite": {"person": "a", "role": "auditor", "minutes": 1, "quorum": {"command": 2, "roster": 2}}
        },
        "remove_person": {"propose": {"change": {"remove_person": "bob"}}},
        "remove_device": {"propose": {"change": {"remove_device": party(3)}}},
        "quorum": {"propose": {"change": {"quorum": {"command": 1, "roster": 2}}}},
        "policy": {"propose": {"change": {"policy": "mode = \"deny\"\n"}}},
        "no_policy": {"propose": {"change": {"policy": None}}},
        "status": {"status": {}},
        "two_questions": {"status": {}, "attach": {"id": "abcd"}},
        "unknown_question": {"approve": {"id": "abcd"}},
        "unknown_field": {"ask": ask | {"uid": 0}},
        "zero_byte": {"ask": {"what": {"command": command | {"argv": ["a\0b"]}}}},
        "text_as_base64": {"ask": {"what": {"command": command | {"argv": [{"base64": "Z2l0"}]}}}},
        "negative_number": {"ask": {"what": {"command": command | {"wall_ms": -1}}}},
        "argv_as_one_text": {"ask": {"what": {"command": command | {"argv": "git push"}}}},
        "two_actions": {"ask": {"what": {"command": command, "tool": tool}}},
        "arguments_as_object": {"ask": {"what": {"tool": tool | {"arguments": {}}}}},
    }.items():
        seed("question", name, json.dumps(question, ensure_ascii=False))
    seed("question", "empty", "")
    seed("question", "nested", "[" * 300)
    seed("question", "two_lines", '{"status":{}}\n{"status":{}}')


for make in (frames, logins, keys, envelopes, statements, policies, messages, pairings, checkpoints, transcripts, shown, questions):
    make()
