"""How things are spelled, keys, signatures and checkpoints: PROTOCOL.md, sections 1, 2 and 10.2. Not here: statements (7)."""

import base64
import functools
import hashlib
import json
import re

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from securesystemslib.exceptions import VerificationError


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
