"""Signed statements and what each kind may say: PROTOCOL.md, sections 7 and 8. Not here: what follows from them (9, 10)."""

import functools
import hashlib
import re

from securesystemslib.dsse import Envelope
from securesystemslib.signer import Signature, SSlibKey

import policy
from keys import Wrong, need, party_key, read_base64, read_json, spelled, verify_strict

DAY = 24 * 60 * 60 * 1000
TIME_MAX = 2**53 - 1
STATEMENT_BYTES, PAYLOAD_BYTES = 52 << 10, 36 << 10
PEOPLE, DEVICES_OF_ONE, DEVICES_OF_ALL = 64, 8, 64

# --- Statement (7) ---------------------------------------------------------------------------------------------------

STATEMENT = re.compile(
    r'\{"payloadType":"([^"\\\x00-\x1f]*)","payload":"([^"\\]*)","signatures":\[\{"keyid":"([^"\\]*)","sig":"([^"\\]*)"\}\]\}'
)


@functools.lru_cache(maxsize=256)
def read_statement(text):
    """The verified payload of a signed statement, with "kind", "signer", "digest" and "text" added."""
    match = STATEMENT.fullmatch(text)
    need(match and len(text.encode()) <= STATEMENT_BYTES, "not the one text of a statement", "spelling")
    media, encoded, signer, sig = match.groups()
    payload, signature = read_base64(encoded, door="spelling"), read_base64(sig, 64, "spelling")
    try:
        key = party_key(signer)
    except Wrong as error:
        raise Wrong(f"keyid: {error}", "spelling") from error
    typed = re.fullmatch(r"application/vnd\.countersign\.(.*)\+json", media)
    need(typed, "not a type of ours", "spelling")
    kind = typed[1]
    need(kind in SCHEMAS, "unknown kind", "kind")
    need(len(payload) <= PAYLOAD_BYTES, "payload too large", "too_large")

    envelope = Envelope(payload, media, {signer: Signature(signer, signature.hex())})
    stock = SSlibKey(signer, "ed25519", "ed25519", {"public": key.hex()})
    verify_strict(key, signature, lambda: envelope.verify([stock], 1))

    try:
        statement = SCHEMAS[kind](read_json(payload))
    except Wrong as error:
        raise Wrong(f"{kind}: {error}") from error
    named = statement.get("party", statement.get("gate", signer))
    need(named == signer, "signed by another than it names", "signer")
    digest = hashlib.sha256(envelope.pae()).hexdigest()
    return statement | {"kind": kind, "signer": signer, "digest": digest, "text": text}


# --- Kinds (8): each checker takes a JSON value and gives back what is meant, or refuses -----------------------------


def integer(low, high):
    def check(value):
        need(type(value) is int and low <= value <= high, f"not a whole number from {low} to {high}")
        return value

    return check


def text(limit=1024):
    def check(value):
        need(type(value) is str and len(value.encode()) <= limit, f"not a text of up to {limit} bytes")
        return value

    return check


def pattern(expression):
    def check(value):
        need(type(value) is str and re.fullmatch(expression, value), f"not of the form {expression}")
        return value

    return check


def nullable(check):
    return lambda value: None if value is None else check(value)


def sequence(check, low, high):
    def checked(value):
        need(type(value) is list and low <= len(value) <= high, f"not {low} to {high} elements")
        return [check(each) for each in value]

    return checked


def record(fields):
    def check(value):
        need(type(value) is dict and value.keys() == fields.keys(), f"not exactly the fields {', '.join(fields)}")
        return {field: fields[field](value[field]) for field in fields}

    return check


def one_of(choices):
    def check(value):
        need(
            type(value) is dict and len(value) == 1 and value.keys() <= choices.keys(),
            f"not one of {', '.join(choices)}",
        )
        return {field: choices[field](value[field]) for field in value}

    return check


def word(*words):
    def check(value):
        need(type(value) in (str, int, type(None)) and value in words, f"not one of {words}")
        return value

    return check


def byte_string(value):
    if type(value) is dict:
        read = read_base64(record({"base64": text(PAYLOAD_BYTES)})(value)["base64"])
        try:
            read.decode()
        except UnicodeDecodeError:
            pass
        else:
            raise Wrong("valid UTF-8 written as base64")
    else:
        read = text(PAYLOAD_BYTES)(value).encode()
    need(0 not in read, "zero byte")
    return read


def path(value):
    read = byte_string(value)
    need(read.startswith(b"/"), "path isn't absolute")
    return read


def party(value):
    party_key(text()(value))
    return value


def bytes32(value):
    return read_base64(value, 32)


def certificate(value):
    """A signed device inside a payload; that its text is the one spelling was checked by `read_json`."""
    need(type(value) is dict, "not a signed device")
    device = read_statement(spelled(value))
    need(device["kind"] == "device", "not a signed device")
    return device


version = integer(1, 1)
time = integer(0, TIME_MAX)
u16, u32, u64, i32 = integer(0, 2**16 - 1), integer(0, 2**32 - 1), integer(0, 2**64 - 1), integer(-(2**31), 2**31 - 1)
name, digest, id16 = pattern("[a-z0-9][a-z0-9._-]{0,63}"), pattern("[0-9a-f]{64}"), pattern("[0-9a-f]{32}")
quorum = integer(1, 2**16 - 1)


def policy_text(value):
    need(type(value) is str, "not a policy's text")
    try:
        policy.read(value)
    except policy.Refused as error:
        raise Wrong(f"policy: {error}") from error
    return value


def flag(value):
    need(type(value) is bool, "neither true nor false")
    return value


ROSTER_CONTENTS = {
    "people": sequence(
        record({"name": name, "role": word("admin", "auditor"), "devices": sequence(certificate, 1, DEVICES_OF_ONE)}),
        0,
        PEOPLE,
    ),
    "quorum": record({"command": quorum, "roster": quorum}),
    "policy": nullable(policy_text),
    "relays": sequence(pattern("[!-~]{1,255}"), 0, PAYLOAD_BYTES),
    "gate_device": certificate,
}


def contents(roster):
    return {field: roster[field] for field in ROSTER_CONTENTS}


def check_roster_contents(roster, gate):
    """The rules of 8.2 that hold for a roster and for a proposed one."""
    people, devices = roster["people"], [device for person in roster["people"] for device in person["devices"]]
    need(roster["gate_device"]["party"] == gate, "gate device of another")
    need(len({person["name"] for person in people}) == len(people), "person twice")
    need(len(devices) <= DEVICES_OF_ALL, "too many devices")
    for field in ("party", "leaf"):
        keys = [device[field] for device in [*devices, roster["gate_device"]]]
        need(len(set(keys)) == len(keys), f"{field} twice")
    admins = sum(person["role"] == "admin" for person in people)
    largest = max(*roster["quorum"].values(), policy.largest_quorum(roster["policy"]))
    need(not admins or largest <= admins, "quorum beyond the admins")


def admins_devices(roster):
    """Which admin each device belongs to."""
    admins = [person for person in roster["people"] if person["role"] == "admin"]
    return {device["party"]: person["name"] for person in admins for device in person["devices"]}


def roster(value):
    read = record(
        {
            "v": version,
            "gate": party,
            "epoch": u32,
            "previous": nullable(digest),
            "basis": nullable(digest),
            "unenrolled": word("refuse", "allow"),
            "created": time,
        }
        | ROSTER_CONTENTS
    )(value)
    check_roster_contents(read, read["gate"])
    genesis = read["epoch"] == 0
    need(genesis == (read["previous"] is None), "previous doesn't fit the epoch")
    need(not genesis or read["basis"] is None and not read["people"], "genesis with people or basis")
    need(read["unenrolled"] == "refuse" or not admins_devices(read), "allows everything with an admin")
    return read


def ascending(values):
    return all(one < next for one, next in zip(values, values[1:]))


def words(*known):
    """Some of these, sorted, none twice."""

    def check(value):
        read = sequence(word(*known), 0, len(known))(value)
        need(ascending(read), "not sorted, or one twice")
        return read

    return check


def inode(value):
    return pattern("(0|[1-9a-f][0-9a-f]{0,15}):(0|[1-9a-f][0-9a-f]{0,15})")(value)


FILE = record({"path": path, "inode": inode, "sha256": digest})
INPUT = record({"sha256": digest, "bytes": integer(0, 1 << 20)})

COMMAND = record(
    {
        "executable": FILE,
        "interpreter": nullable(FILE),
        "argv": sequence(byte_string, 1, 1024),
        "env": sequence(sequence(byte_string, 2, 2), 0, 128),
        "directory": record({"path": path, "inode": inode}),
        "stdin": lambda value: INPUT(value) if type(value) is dict else word("none")(value),
        "operands": sequence(record({"argument": u32, "file": FILE}), 0, 64),
        "limits": record({"wall_ms": integer(0, DAY), "output_bytes": integer(0, 1 << 30), "memory_bytes": u64}),
        "uid": u32,
        "marks": words("odd", "runner", "setuid", "shell", "writable"),
    }
)


def command(value):
    read = COMMAND(value)
    names = [entry[0] for entry in read["env"]]
    operands = [operand["argument"] for operand in read["operands"]]
    need(sum(map(len, read["argv"])) <= 24 << 10, "arguments too long")
    need(sum(len(each) for entry in read["env"] for each in entry) <= 8 << 10, "environment too long")
    need(names == sorted(set(names)), "environment unsorted, or a name twice")
    need(all(each and b"=" not in each for each in names), "name in the environment that is empty or has an =")
    need(ascending([0, *operands, len(read["argv"])]), "operands that aren't arguments in their order")
    return read


TOOL = record({"server": text(), "tool": text(), "schema": digest, "arguments": text(24 << 10)})


def tool(value):
    # What the arguments hold is for the gate and the tool: here they are text.
    read = TOOL(value)
    need(read["server"] and "/" not in read["server"] and read["tool"], "a tool that a policy couldn't name")
    return read


SECRET = record({"name": name, "host": text(), "method": text(), "path": text()})
ACTION = one_of({"command": command, "tool": tool, "secret": SECRET, "roster": record(ROSTER_CONTENTS)})


def request(value):
    asked_by = record(
        {"agent": name, "under": sequence(name, 0, 8)}
        | {"user": nullable(text()), "conversation": nullable(text()), "platform": nullable(text())}
    )
    read = record(
        {
            "v": version,
            "gate": party,
            "incarnation": id16,
            "index": u64,
            "nonce": id16,
            "roster": digest,
            "class": word("command", "tool", "secret", "roster"),
            "risk": nullable(name),
            "need": quorum,
            "veto": flag,
            "four_eyes": flag,
            "matching": nullable(digest),
            "action": ACTION,
            "asked_by": asked_by,
            "reason": text(4096),
            "created": time,
            "expires": time,
        }
    )(value)
    need(read["class"] in read["action"], "class of another action")
    need(read["created"] < read["expires"] <= read["created"] + DAY, "expires too early or too late")
    if "roster" in read["action"]:
        check_roster_contents(read["action"]["roster"], read["gate"])
    return read


TERMS = record(
    {"blanks": sequence(u32, 0, PAYLOAD_BYTES), "user": flag, "conversation": flag}
    | {"not_after": nullable(time), "uses": nullable(integer(1, 2**31 - 1))}
)


def terms(value):
    read = TERMS(value)
    need(ascending([0, *read["blanks"]]), "blanks not ascending, or argv[0]")
    return read


def decision(value):
    # Whether the checkpoint is one is for `decide` and the replay to say.
    read = record(
        {
            "v": version,
            "party": party,
            "request": digest,
            "verdict": word("approve", "deny"),
            "number": nullable(pattern("[0-9]{3}")),
            "grant": nullable(terms),
            "reason": text(),
            "time": time,
            "checkpoint": text(PAYLOAD_BYTES),
        }
    )(value)
    need(read["verdict"] == "approve" or read["number"] is read["grant"] is None, "a denial with more")
    return read


DIGESTS = sequence(digest, 0, PAYLOAD_BYTES)
NOTHING = record({})

permit = record(
    {
        "v": version,
        "request": digest,
        "roster": digest,
        "basis": one_of(
            {"decisions": DIGESTS, "grant": digest, "rule": u32, "mode": NOTHING, "unenrolled": NOTHING}
        ),
        "confined": words("cgroup", "landlock", "mounts"),
        "time": time,
    }
)
grant = record(
    {"v": version, "request": digest, "roster": digest, "decisions": DIGESTS, "terms": terms, "time": time}
)
revocation = record({"v": version, "party": party, "grant": digest, "reason": text(), "time": time})
UNPERMITTED = {"denied", "expired", "withdrawn", "forbidden"}


def outcome(value):
    stream = record({"sha256": digest, "bytes": u64})
    ran = record(
        {"exit": one_of({"code": i32, "signal": i32}), "stdout": stream, "stderr": stream, "wall_ms": u64}
        | {"stopped": word(None, "wall_limit", "output_limit", "asker_left")}
    )
    result = one_of(
        {"ran": ran, "failed": record({"error": text()}), "unknown": NOTHING, "released": NOTHING}
        | {"denied": NOTHING, "expired": NOTHING, "withdrawn": NOTHING}
        | {"forbidden": record({"rule": nullable(u32)})}
    )
    read = record({"v": version, "request": digest, "permit": nullable(digest), "result": result, "time": time})(value)
    permitted = not UNPERMITTED & read["result"].keys()
    need(permitted == (read["permit"] is not None), "result doesn't fit the permit")
    return read


def device(value):
    return record({"v": version, "party": party, "leaf": bytes32, "name": name, "created": time})(value)


SCHEMAS = {
    "device": device,
    "roster": roster,
    "request": request,
    "decision": decision,
    "permit": permit,
    "outcome": outcome,
    "grant": grant,
    "revocation": revocation,
}
