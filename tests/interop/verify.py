#!/usr/bin/env python3
"""Verifies transcripts and proofs: a second implementation of PROTOCOL.md, sections 2, 7 to 10 and 15.

Written from shared/PROTOCOL.md alone, with stock libraries for the signatures, so that agreeing with the Rust code
proves that the page says enough. Not here: rendering (11), the channel (12), pairing (13), any network, any state.

    verify.py FILE…           one line a file: `ok …` or `wrong: entry N: why` (`wrong: file: why`); exit 0 or 3
    verify.py --vectors DIR   gives a verdict on each frozen vector under DIR and compares it with the expected one
"""

import argparse
import base64
import functools
import hashlib
import json
import pathlib
import re
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import Signature, SSlibKey

DAY = 24 * 60 * 60 * 1000
TIME_MAX = 2**53 - 1
STATEMENT_BYTES, PAYLOAD_BYTES, LINE_BYTES, PROOF_BYTES = 52 << 10, 36 << 10, 64 << 10, 16 << 20
PEOPLE, DEVICES_OF_ONE, DEVICES_OF_ALL, OPEN_REQUESTS = 64, 8, 64, 64


class Wrong(Exception):
    """What is wrong, and at which door it was refused."""

    def __init__(self, why, door="payload"):
        super().__init__(why)
        self.door = door


def need(condition, why, door="payload"):
    if not condition:
        raise Wrong(why, door)


# --- Spelling (1) ----------------------------------------------------------------------------------------------------


def spelled(value):
    """The one text of a JSON value that the protocol writes: no white space, nothing escaped without need."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def read_json(source):
    """Reads JSON without repeated fields, fractions or lone surrogates; statements inside must have their one text."""
    statements = []

    def pairs(items):
        found = dict(items)
        need(len(found) == len(items), "repeated field")
        if "payloadType" in found:
            statements.append(spelled(found))
        return found

    def whole(digits):
        need(digits != "-0", "minus zero")
        return int(digits)

    def refuse(text):
        raise Wrong(f"not a whole number: {text}")

    try:
        text = source.decode() if isinstance(source, bytes) else source
        value = json.loads(text, object_pairs_hook=pairs, parse_int=whole, parse_float=refuse, parse_constant=refuse)
        spelled(value).encode()  # fails on a lone surrogate
    except (ValueError, RecursionError) as error:
        raise Wrong(f"not JSON: {error}") from error
    # A quote within a string is escaped, so the text of a statement can't be found inside one.
    need(all(text.count(each) == statements.count(each) for each in statements), "statement spelled otherwise")
    return value


def read_base64(text, size=None, door="payload"):
    need(type(text) is str, "not base64", door)
    try:
        read = base64.b64decode(text.encode(), validate=True)
    except ValueError as error:
        raise Wrong("not base64", door) from error
    need(base64.b64encode(read).decode() == text, "base64 isn't canonical", door)
    need(size in (None, len(read)), f"not {size} bytes", door)
    return read


BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


def read_bech32(prefix, text):
    """The 32 bytes of a key's text (BIP 173), lower case only."""
    need(type(text) is str and text.startswith(prefix + "1"), f"not {prefix}1…")
    data = [BECH32.find(letter) for letter in text[len(prefix) + 1 :]]
    need(len(data) == 58 and min(data) >= 0, "not the text of a key")
    check = 1
    for five in [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix] + data:
        top, check = check >> 25, (check & 0x1FFFFFF) << 5 ^ five
        for bit, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            check ^= generator if top >> bit & 1 else 0
    need(check == 1, "bad checksum of a key")
    bits = functools.reduce(lambda whole, five: whole << 5 | five, data[:-6], 0)
    need(bits & 15 == 0, "unused bits of a key aren't zero")
    return (bits >> 4).to_bytes(32, "big")


# --- Keys and signatures (2) -----------------------------------------------------------------------------------------

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P


def check_point(point):
    """A canonical point of edwards25519 that isn't of small order."""
    number = int.from_bytes(point, "little")
    y = number & (1 << 255) - 1
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    need(y < P and pow(square, (P - 1) // 2, P) in (0, 1), "not a canonical point")
    # The points of order 1, 2 and 4 have y = 1, -1 and 0; doubling one of order 8 gives y = 0.
    need(y not in (0, 1, P - 1) and (D * y**4 + 2 * y * y - 1) % P, "point of small order")


@functools.lru_cache(maxsize=1024)
def party_key(text):
    """The public key that a party is."""
    key = read_bech32("csid", text)
    check_point(key)
    return key


def verify_strict(key, signature, verify):
    """What the libraries leave open: they check S and compare R's bytes, but take an R of small order."""
    try:
        check_point(key)
        check_point(signature[:32])
        verify()
    except (Wrong, InvalidSignature, VerificationError) as error:
        raise Wrong("the signature doesn't verify", "signature") from error


# --- Checkpoint (10.2) -----------------------------------------------------------------------------------------------

NOTE = re.compile(r"(countersign/(csid1[0-9a-z]+)\n(0|[1-9][0-9]{0,19})\n(\S+)\n)\n— countersign/(\S+) (\S+)\n")


def read_checkpoint(text, gate):
    """The size and root of a checkpoint that this gate signed."""
    match = NOTE.fullmatch(text) if type(text) is str else None
    need(match, "not a checkpoint")
    signed, origin, size, root, signer, signature = match.groups()
    need(origin == signer == gate, "checkpoint of another gate")
    need(int(size) < 2**64, "checkpoint of impossible size")
    key, raw = party_key(gate), read_base64(signature, 68)
    named = hashlib.sha256(f"countersign/{gate}\n\x01".encode() + key).digest()
    need(raw[:4] == named[:4], "checkpoint signed by another key")
    verify_strict(key, raw[4:], lambda: Ed25519PublicKey.from_public_bytes(key).verify(raw[4:], signed.encode()))
    return {"size": int(size), "root": read_base64(root, 32)}


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


# --- Kinds (8): each checker takes a JSON value and gives back what is meant, or refuses ------------------------------


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


ROSTER_CONTENTS = {
    "people": sequence(
        record({"name": name, "role": word("admin", "auditor"), "devices": sequence(certificate, 1, DEVICES_OF_ONE)}),
        0,
        PEOPLE,
    ),
    "quorum": record({"command": quorum, "roster": quorum}),
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
    need(not admins or max(roster["quorum"].values()) <= admins, "quorum beyond the admins")


def roster(value):
    read = record(
        {
            "v": version,
            "gate": party,
            "epoch": u32,
            "previous": nullable(digest),
            "basis": nullable(digest),
            "created": time,
        }
        | ROSTER_CONTENTS
    )(value)
    check_roster_contents(read, read["gate"])
    genesis = read["epoch"] == 0
    need(genesis == (read["previous"] is None), "previous doesn't fit the epoch")
    need(not genesis or read["basis"] is None and not read["people"], "genesis with people or basis")
    return read


COMMAND = record(
    {
        "executable": record({"path": path, "sha256": digest}),
        "argv": sequence(byte_string, 1, 1024),
        "env": sequence(sequence(byte_string, 2, 2), 0, 128),
        "directory": path,
        "stdin": word("none"),
        "limits": record({"wall_ms": integer(0, DAY), "output_bytes": integer(0, 1 << 30)}),
        "uid": u32,
    }
)


def command(value):
    read = COMMAND(value)
    names = [entry[0] for entry in read["env"]]
    need(sum(map(len, read["argv"])) <= 24 << 10, "arguments too long")
    need(sum(len(each) for entry in read["env"] for each in entry) <= 8 << 10, "environment too long")
    need(names == sorted(set(names)), "environment unsorted, or a name twice")
    need(all(each and b"=" not in each for each in names), "name in the environment that is empty or has an =")
    return read


def request(value):
    asked_by = record(
        {"agent": name, "user": nullable(text()), "conversation": nullable(text()), "platform": nullable(text())}
    )
    action = one_of({"command": command, "roster": record(ROSTER_CONTENTS)})
    read = record(
        {
            "v": version,
            "gate": party,
            "incarnation": id16,
            "index": u64,
            "nonce": id16,
            "roster": digest,
            "action": action,
        }
        | {"class": word("command", "roster"), "need": quorum, "asked_by": asked_by, "reason": text(4096)}
        | {"created": time, "expires": time}
    )(value)
    need(read["class"] in read["action"], "class of another action")
    need(read["created"] < read["expires"] <= read["created"] + DAY, "expires too early or too late")
    if "roster" in read["action"]:
        check_roster_contents(read["action"]["roster"], read["gate"])
    return read


# Whether the checkpoint is one is for `decide` and the replay to say.
decision = record(
    {
        "v": version,
        "party": party,
        "request": digest,
        "verdict": word("approve", "deny"),
        "reason": text(),
        "time": time,
    }
    | {"checkpoint": text(PAYLOAD_BYTES)}
)
permit = record(
    {"v": version, "request": digest, "roster": digest, "decisions": sequence(digest, 0, PAYLOAD_BYTES), "time": time}
)


def outcome(value):
    stream, nothing = record({"sha256": digest, "bytes": u64}), record({})
    ran = record(
        {"exit": one_of({"code": i32, "signal": i32}), "stdout": stream, "stderr": stream, "wall_ms": u64}
        | {"stopped": word(None, "wall_limit", "output_limit", "asker_left")}
    )
    result = one_of(
        {"ran": ran, "failed": record({"error": text()}), "unknown": nothing}
        | {"denied": nothing, "expired": nothing, "withdrawn": nothing}
    )
    read = record({"v": version, "request": digest, "permit": nullable(digest), "result": result, "time": time})(value)
    permitted = not {"denied", "expired", "withdrawn"} & read["result"].keys()
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
}


# --- decide (9) ------------------------------------------------------------------------------------------------------


def admins_devices(roster):
    """Which admin each device belongs to."""
    admins = [person for person in roster["people"] if person["role"] == "admin"]
    return {device["party"]: person["name"] for person in admins for device in person["devices"]}


def decide(request, decisions, roster, now):
    if request["gate"] != roster["gate"]:
        return {"refused": "another_gate"}
    devices = admins_devices(roster)
    if not devices:
        return {"refused": "nobody_enrolled"}

    def counts(decision):
        try:
            quoted = read_checkpoint(decision["checkpoint"], request["gate"])
        except Wrong:
            return False
        cites = decision["request"] == request["digest"] and quoted["size"] > request["index"]
        return cites and decision["signer"] in devices

    first = {}
    for decision in filter(counts, decisions):
        person = devices[decision["signer"]]
        if decision["verdict"] == "deny":
            return {"denied": {"by": person, "decision": decision["digest"]}}
        first.setdefault(person, decision["digest"])
    if now >= request["expires"]:
        return "expired"
    needed = max(request["need"], roster["quorum"][request["class"]])
    return {"open": [*first.values()]} if len(first) >= needed else {"waiting": {"have": len(first), "need": needed}}


# --- Log (10.1) ------------------------------------------------------------------------------------------------------


def hash_leaf(text):
    return hashlib.sha256(b"\x00" + text.encode()).digest()


def hash_node(left, right):
    return hashlib.sha256(b"\x01" + left + right).digest()


class Log:
    """The roots of a log at every size so far."""

    def __init__(self):
        self.peaks, self.roots = [], [hashlib.sha256().digest()]

    def append(self, text):
        node, size = hash_leaf(text), len(self.roots)
        while size % 2 == 0:
            node, size = hash_node(self.peaks.pop(), node), size // 2
        self.peaks.append(node)
        self.roots.append(functools.reduce(lambda right, left: hash_node(left, right), reversed(self.peaks)))


def included_root(leaf, index, size, proof):
    """The root that an inclusion proof leads to (RFC 9162, 2.1.3.2)."""
    node, last = leaf, size - 1
    for sibling in proof:
        need(last, "inclusion proof too long")
        if index % 2 or index == last:
            node = hash_node(sibling, node)
            while index and index % 2 == 0:
                index, last = index // 2, last // 2
        else:
            node = hash_node(node, sibling)
        index, last = index // 2, last // 2
    need(last == 0, "inclusion proof too short")
    return node


# --- Replay (10.3, 10.4) ---------------------------------------------------------------------------------------------


class Replay:
    """Reads the entries of one gate's log in order; `Wrong` is the finding."""

    def __init__(self, gate):
        self.gate, self.log, self.roster, self.last_time = gate, Log(), None, 0
        self.unfinished = {}  # digest of a request: the request with its "decisions" and "permit"

    def take(self, index, text):
        statement = read_statement(text)
        kind = statement["kind"]
        need(kind != "device", "a device isn't an entry")
        need(self.roster or kind == "roster", "doesn't begin with a roster")
        if kind != "decision":
            self.check_gate(statement)
        getattr(self, f"take_{kind}")(index, statement)
        self.log.append(text)

    def check_gate(self, statement):
        need(statement["signer"] == self.gate, "not signed by the gate")
        time = statement.get("created", statement.get("time"))
        need(time >= self.last_time, "earlier than the entry before")
        self.last_time = time

    def cited(self, statement, permitted):
        request = self.unfinished.get(statement["request"])
        need(
            request and bool(request["permit"]) == permitted, f"cites no {'permitted' if permitted else 'open'} request"
        )
        return request

    def take_roster(self, _index, new):
        if self.roster is None:
            need(new["epoch"] == 0, "not the genesis roster")
        else:
            self.check_next(new)
            if new["basis"] is not None:
                request = self.unfinished.get(new["basis"])
                need(
                    request and request["permit"] and request["class"] == "roster",
                    "basis isn't a permitted roster request",
                )
                need(contents(new) == request["action"]["roster"], "other contents than were permitted")
                del self.unfinished[new["basis"]]
        self.roster = new

    def check_next(self, new):
        old = self.roster
        need(
            new["epoch"] == old["epoch"] + 1 and new["previous"] == old["digest"], "doesn't follow the roster in force"
        )
        need(
            bool(admins_devices(old)) == (new["basis"] is not None), "basis with nobody to agree, or none with somebody"
        )
        need(admins_devices(new) or not admins_devices(old), "leaves nobody who may decide")

    def take_request(self, index, request):
        need(request["index"] == index, "request for another position")
        need(request["roster"] == self.roster["digest"], "roster isn't the one in force")
        need(request["need"] == self.roster["quorum"][request["class"]], "need isn't the roster's quorum")
        unanswered = [each for each in self.unfinished.values() if not each["permit"]]
        need(len(unanswered) < OPEN_REQUESTS, "too many open requests")
        self.unfinished[request["digest"]] = request | {"decisions": [], "permit": None}

    def take_decision(self, index, decision):
        request = self.cited(decision, permitted=False)
        need(decision["signer"] in admins_devices(self.roster), "not by a device of an admin")
        need(all(each["digest"] != decision["digest"] for each in request["decisions"]), "decision recorded before")
        quoted = read_checkpoint(decision["checkpoint"], self.gate)
        need(request["index"] < quoted["size"] <= index, "quotes a checkpoint of an impossible size")
        need(self.is_history(quoted), "quotes another history")
        request["decisions"].append(decision)

    def is_history(self, quoted):
        return self.log.roots[quoted["size"]] == quoted["root"]

    def take_permit(self, _index, permit):
        request = self.cited(permit, permitted=False)
        need(permit["roster"] == self.roster["digest"], "roster isn't the one in force")
        verdict = decide(request, request["decisions"], self.roster, permit["time"])
        need(verdict == {"open": permit["decisions"]}, f"the rule says {verdict}")
        request["permit"] = permit["digest"]

    def take_outcome(self, _index, outcome):
        permitted = outcome["permit"] is not None
        request, result = self.cited(outcome, permitted), outcome["result"]
        need(outcome["permit"] == request["permit"], "cites another permit")
        if "denied" in result:
            verdict = decide(request, request["decisions"], self.roster, outcome["time"])
            need("denied" in verdict, f"the rule says {verdict}")
        if "expired" in result:
            need(outcome["time"] >= request["expires"], "not expired yet")
        if "ran" in result:
            need("command" in request["action"], "ran, but is no command")
        del self.unfinished[outcome["request"]]


# --- Files (15) ------------------------------------------------------------------------------------------------------


class At:
    """Names the entry that a finding is about."""

    def __init__(self, where):
        self.where = where

    def __enter__(self):
        return self

    def __exit__(self, _type, error, _trace):
        if isinstance(error, Wrong):
            raise Wrong(f"{self.where}: {error}", error.door) from error


def read_line(line, form, bound=LINE_BYTES):
    """The value of a line, which must be the one text of what it says; `form` writes that text again."""
    need(len(line) < bound, "line too long")
    value = read_json(line)
    try:
        respelled = spelled(form(value))
    except (KeyError, TypeError, IndexError) as error:
        raise Wrong("missing field") from error
    need(respelled.encode() == line, "spelled otherwise")
    return value


def statement_form(value):
    signature = value["signatures"][0]
    only = {"keyid": signature["keyid"], "sig": signature["sig"]}
    return {"payloadType": value["payloadType"], "payload": value["payload"], "signatures": [only]}


def verify_transcript(data):
    *ended, rest = data.split(b"\n")
    lines = iter(ended)
    with At("file"):
        head = read_line(
            next(lines, b""), lambda v: {"countersign": "transcript", "v": 1, "gate": v["gate"], "size": v["size"]}
        )
        gate, size = party(head["gate"]), u64(head["size"])
    replay = Replay(gate)
    for index in range(max(size, 1)):
        with At(f"entry {index}"):
            line = read_line(next(lines, b""), lambda v: {"index": index, "statement": statement_form(v["statement"])})
            replay.take(index, spelled(line["statement"]))
    with At("file"):
        last = read_line(next(lines, b""), lambda v: {"checkpoint": v["checkpoint"]})
        checkpoint = read_checkpoint(last["checkpoint"], gate)
        need(not rest and not [*lines], "doesn't end after the checkpoint's line")
        need(checkpoint == {"size": size, "root": replay.log.roots[size]}, "the checkpoint isn't this log's")
    return f"transcript of {gate}: {size} entries, {len(replay.unfinished)} requests unfinished"


class ProofReplay(Replay):
    """The rules of 10.4 that concern one request, for somebody who has only the entries of a proof."""

    def __init__(self, gate):
        super().__init__(gate)
        self.asked = None

    def take_roster(self, index, new):
        if self.asked and new["basis"] == self.asked:
            return super().take_roster(index, new)
        # The first was in force when it was asked; a later one rests on another request, which isn't here.
        if self.roster:
            self.check_next(new)
        self.roster = new

    def take_request(self, index, request):
        need(self.asked is None, "second request")
        super().take_request(index, request)
        self.asked = request["digest"]

    def is_history(self, quoted):
        return True  # its root can't be compared without the entries between


def proof_form(value):
    entries = [
        {"index": each["index"], "statement": statement_form(each["statement"]), "proof": each["proof"]}
        for each in value["entries"]
    ]
    return {
        "countersign": "proof",
        "v": 1,
        "gate": value["gate"],
        "checkpoint": value["checkpoint"],
        "entries": entries,
    }


def verify_proof(data):
    with At("file"):
        need(data.endswith(b"\n"), "doesn't end with a line feed")
        value = read_line(data[:-1], proof_form, PROOF_BYTES)
        gate, before = party(value["gate"]), -1
        checkpoint = read_checkpoint(value["checkpoint"], gate)
        entries = sequence(
            record({"index": u64, "statement": spelled, "proof": sequence(bytes32, 0, 64)}), 2, PROOF_BYTES
        )
        entries = entries(value["entries"])
    replay = ProofReplay(gate)
    for place, entry in enumerate(entries):
        index, statement = entry["index"], entry["statement"]
        with At(f"entry {index}"):
            need(before < index < checkpoint["size"], "not in transcript order")
            need(place < 2 or replay.unfinished, "the request had ended before")
            root = included_root(hash_leaf(statement), index, checkpoint["size"], entry["proof"])
            need(root == checkpoint["root"], "isn't in the log")
            replay.take(index, statement)
            need((place > 0) == (replay.asked is not None), "not a roster, a request and what became of it")
            before = index
    return f"proof of {gate}: request {replay.asked}, {'unfinished' if replay.unfinished else 'ended'}"


# --- Command line ----------------------------------------------------------------------------------------------------


def verify_file(file):
    try:
        data = file.read_bytes()
        proof = data.startswith(b'{"countersign":"proof"')
        return f"ok {(verify_proof if proof else verify_transcript)(data)}"
    except Wrong as error:
        return f"wrong: {error}"
    except OSError as error:
        return f"wrong: file: {error.strerror}"


def main():
    parser = argparse.ArgumentParser(description="verifies transcripts and proofs of Countersign")
    parser.add_argument("--vectors", metavar="DIR", type=pathlib.Path)
    parser.add_argument("files", metavar="FILE", nargs="*", type=pathlib.Path)
    arguments = parser.parse_args()
    if arguments.vectors:
        import vectors  # only here: the vectors need this file, this file doesn't need them

        return vectors.verify_vectors(arguments.vectors)
    said = [verify_file(file) for file in arguments.files]
    print("\n".join(said))
    return 0 if all(each.startswith("ok") for each in said) else 3


if __name__ == "__main__":
    sys.exit(main())
