#!/usr/bin/env python3
"""Makes the vectors of crate `wire` from PROTOCOL.md alone, with Python's `cryptography` instead of our Rust code.

Run it in this folder to write the files again; the output never varies. What it deliberately doesn't do is ask our own
code for anything: what the Rust tests then find is the agreement of two implementations.
"""

import hashlib
import hmac
import json
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

HERE = Path(__file__).parent


def seed(name: str) -> bytes:
    return hashlib.sha256(b"countersign wire vectors: " + name.encode()).digest()


# Bech32 (BIP 173).

CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
BECH32, BECH32M = 1, 0x2BC830A3


def polymod(values):
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            check ^= generator if top >> bit & 1 else 0
    return check


def fives(data: bytes, padding: int = 0):
    bits = len(data) * 8
    spare = -bits % 5
    number = int.from_bytes(data, "big") << spare | padding
    return [number >> shift & 31 for shift in range(bits + spare - 5, -1, -5)]


def bech32(prefix: str, values, constant=BECH32) -> str:
    spread = [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]
    check = polymod(spread + values + [0] * 6) ^ constant
    values = values + [check >> 5 * (5 - i) & 31 for i in range(6)]
    return prefix + "1" + "".join(CHARSET[value] for value in values)


def public_text(prefix: str, data: bytes) -> str:
    return bech32(prefix, fives(data))


def secret_text(prefix: str, data: bytes) -> str:
    return bech32(prefix + "-secret-", fives(data)).upper()


# Edwards points, only as far as to tell which bytes are one.

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
SQRT_M1 = pow(2, (P - 1) // 4, P)


def recover_x(y: int):
    """An x for this y (taken modulo P), or None."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * SQRT_M1 % P
    return x if x * x % P == square else None


def add(a, b):
    (x1, y1), (x2, y2) = a, b
    product = D * x1 * x2 * y1 * y2 % P
    x = (x1 * y2 + x2 * y1) * pow(1 + product, -1, P) % P
    y = (y1 * y2 + x1 * x2) * pow(1 - product, -1, P) % P
    return x, y


def times(scalar: int, point):
    result = (0, 1)
    for bit in bin(scalar)[2:]:
        result = add(result, result)
        if bit == "1":
            result = add(result, point)
    return result


def encode_point(point) -> bytes:
    x, y = point
    return (y | (x & 1) << 255).to_bytes(32, "little")


def small_order_points():
    """All eight, canonically encoded: the multiples of a point of order eight."""
    order = 2**252 + 27742317777372353535851937790883648493
    y = 2
    while True:
        x = recover_x(y)
        if x is not None:
            point = times(order, (x, y))
            if times(4, point) != (0, 1):
                return [encode_point(times(i, point)) for i in range(8)]
        y += 1


def small_order_of(point: bytes) -> int:
    """The order of a canonical small-order point."""
    y = int.from_bytes(point, "little") & (2**255 - 1)
    x = recover_x(y)
    if x & 1 != point[31] >> 7:
        x = -x % P
    return next(order for order in (1, 2, 4, 8) if times(order, (x, y)) == (0, 1))


# Keys.


def ed25519_public(secret: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def x25519_public(secret: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


KINDS = {"identity": ("csid", ed25519_public), "mailbox": ("csbox", ed25519_public), "envelope": ("csenv", x25519_public)}


def good_keys():
    for kind, (prefix, public_of) in KINDS.items():
        for name in ("first", "second"):
            secret = seed(f"{kind} {name}")
            public = public_of(secret)
            yield {
                "name": f"{kind}_{name}",
                "kind": kind,
                "secret": secret.hex(),
                "secret_text": secret_text(prefix, secret),
                "public": public.hex(),
                "public_text": public_text(prefix, public),
            }


def bad_texts():
    """Texts of a good key, spoilt: (flaw, error) for the public text, then for the secret one."""
    for kind, (prefix, public_of) in KINDS.items():
        secret = seed(f"{kind} first")
        public = public_of(secret)
        good = public_text(prefix, public)
        good_secret = secret_text(prefix, secret)
        other = "csbox" if prefix != "csbox" else "csid"
        last = "q" if good[-1] != "q" else "p"
        publics = {
            "empty": ("", "text"),
            "prefix_alone": (prefix + "1", "text"),
            "no_separator": (good.replace("1", "", 1), "text"),
            "upper_case": (good.upper(), "text"),
            "mixed_case": (good[:-1] + good[-1].upper() if good[-1].isalpha() else good[:-2] + good[-2].upper() + good[-1], "text"),
            "checksum_wrong": (good[:-1] + last, "text"),
            "checksum_of_bech32m": (bech32(prefix, fives(public), BECH32M), "text"),
            "one_character_missing": (good[:20] + good[21:], "text"),
            "character_outside_the_alphabet": (good[:20] + "b" + good[21:], "text"),
            "not_ascii": (good[:20] + "\u0435" + good[21:], "text"),
            "space_before": (" " + good, "text"),
            "newline_after": (good + "\n", "text"),
            "padding_bits_not_zero": (bech32(prefix, fives(public, padding=1)), "text"),
            "no_bytes": (bech32(prefix, []), "text"),
            "31_bytes": (public_text(prefix, public[:31]), "text"),
            "33_bytes": (public_text(prefix, public + b"\0"), "text"),
            "beyond_90_characters": (public_text(prefix, public + public), "text"),
            "prefix_of_another_kind": (public_text(other, public), "kind"),
            "prefix_longer": (public_text(prefix + "x", public), "kind"),
            "secret_key_in_place_of_public": (good_secret, "kind"),
        }
        for flaw, (text, error) in publics.items():
            yield {"name": f"{kind}_public_{flaw}", "kind": kind, "text": text, "error": error}
        secrets = {
            "lower_case": (good_secret.lower(), "text"),
            "checksum_wrong": (good_secret[:-1] + ("Q" if good_secret[-1] != "Q" else "P"), "text"),
            "padding_bits_not_zero": (bech32(prefix + "-secret-", fives(secret, padding=3)).upper(), "text"),
            "31_bytes": (secret_text(prefix, secret[:31]), "text"),
            "prefix_of_another_kind": (secret_text(other, secret), "kind"),
            "public_key_in_place_of_secret": (good, "kind"),
        }
        for flaw, (text, error) in secrets.items():
            yield {"name": f"{kind}_secret_{flaw}", "kind": f"{kind} secret", "text": text, "error": error}


def bad_edwards_points():
    off_curve = next(y for y in range(2, 99) if recover_x(y) is None)
    yield "not_on_the_curve", off_curve.to_bytes(32, "little")
    seen = {}
    for point in small_order_points():
        order = small_order_of(point)
        seen[order] = seen.get(order, 0) + 1
        yield f"small_order_{order}_number_{seen[order]}", point
    yield "small_order_1_sign_of_zero", (1 | 1 << 255).to_bytes(32, "little")
    yield "small_order_2_sign_of_zero", (P - 1 | 1 << 255).to_bytes(32, "little")
    for y in range(19):
        if recover_x(y) is None:
            continue
        order = "_small_order" if y in (0, 1) else ""
        for sign in (0, 1):
            yield f"not_canonical{order}_y_of_p_plus_{y}_sign_{sign}", (P + y | sign << 255).to_bytes(32, "little")


def bad_montgomery_points():
    # The low-order coordinates of RFC 7748's curve and its twist.
    eight = 325606250916557431795983626356110631294008115727848805560023387167927233504
    other = 39382357235489614581723060781553021112529911719440698176882885853963445705823
    for name, u in {"0": 0, "1": 1, "order_8_first": eight, "order_8_second": other, "p_minus_1": P - 1}.items():
        yield f"low_order_{name}", u.to_bytes(32, "little")
    for u in (0, 1, 9, 18):
        yield f"not_canonical_p_plus_{u}", (P + u).to_bytes(32, "little")
    good = x25519_public(seed("envelope first"))
    yield "not_canonical_top_bit_set", good[:31] + bytes([good[31] | 0x80])
    yield "low_order_0_top_bit_set", bytes(31) + b"\x80"


def bad_points():
    for kind, (prefix, _) in KINDS.items():
        points = bad_montgomery_points() if kind == "envelope" else bad_edwards_points()
        for flaw, point in points:
            yield {"name": f"{kind}_{flaw}", "kind": kind, "public": point.hex(), "text": public_text(prefix, point)}


def capabilities():
    for name, capability in {"zeros": bytes(32), "ones": b"\xff" * 32, "drawn": seed("capability")}.items():
        digest = hashlib.sha256(b"countersign/v1 capability\0" + capability).digest()
        yield {"name": name, "capability": capability.hex(), "hash": digest.hex()}


# HPKE (RFC 9180), base mode, 0x0020 / 0x0001 / 0x0003.


def extract(salt: bytes, suite: bytes, label: bytes, material: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + material, "sha256")


def expand(key: bytes, suite: bytes, label: bytes, info: bytes, length: int) -> bytes:
    # Nothing here is longer than one block.
    labelled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return hmac.digest(key, labelled + b"\x01", "sha256")[:length]


def hpke_seal(ephemeral: bytes, to: bytes, info: bytes, aad: bytes, plain: bytes):
    kem, suite = b"KEM\x00\x20", b"HPKE\x00\x20\x00\x01\x00\x03"
    enc = x25519_public(ephemeral)
    exchanged = X25519PrivateKey.from_private_bytes(ephemeral).exchange(X25519PublicKey.from_public_bytes(to))
    shared = expand(extract(b"", kem, b"eae_prk", exchanged), kem, b"shared_secret", enc + to, 32)
    context = b"\0" + extract(b"", suite, b"psk_id_hash", b"") + extract(b"", suite, b"info_hash", info)
    secret = extract(shared, suite, b"secret", b"")
    key, nonce = expand(secret, suite, b"key", context, 32), expand(secret, suite, b"base_nonce", context, 12)
    return enc, ChaCha20Poly1305(key).encrypt(nonce, plain, aad)


def rfc_9180_a_2_1():
    """The RFC's own vector (A.2.1, sequence number 0); this script must agree with it before it makes any other."""
    vector = {
        "name": "rfc_9180_a_2_1_sequence_0",
        "info": "4f6465206f6e2061204772656369616e2055726e",
        "ephemeral_secret": "f4ec9b33b792c372c1d2c2063507b684ef925b8c75a42dbcbf57d63ccd381600",
        "recipient_secret": "8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb",
        "recipient": "4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a",
        "enc": "1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a",
        "plain": "4265617574792069732074727574682c20747275746820626561757479",
        "aad": "436f756e742d30",
        "ciphertext": "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28",
    }
    raw = {key: bytes.fromhex(value) for key, value in vector.items() if key != "name"}
    sealed = hpke_seal(raw["ephemeral_secret"], raw["recipient"], raw["info"], raw["aad"], raw["plain"])
    assert sealed == (raw["enc"], raw["ciphertext"])
    return vector


# Envelopes.

LENGTHS = (1024, 2048, 4096, 16384, 65536)
MAILBOX = ed25519_public(seed("mailbox first"))
OTHER_MAILBOX = ed25519_public(seed("mailbox second"))
SECRET = seed("envelope first")
OTHER_SECRET = seed("envelope second")


def envelope(name, plain, mailbox=MAILBOX, secret=SECRET, info=b"countersign/v1 envelope", stated=None):
    length = len(plain) + 48
    aad = mailbox + (stated or length).to_bytes(4, "big")
    enc, ciphertext = hpke_seal(seed(f"ephemeral {name}"), x25519_public(secret), info, aad, plain)
    assert len(enc + ciphertext) == length
    return enc + ciphertext


def padded(content: int, message: bytes, length: int, stated=None) -> bytes:
    header = bytes([content]) + (len(message) if stated is None else stated).to_bytes(4, "big")
    return (header + message).ljust(length - 48, b"\0")


def message_of(length: int) -> bytes:
    return bytes(i % 251 for i in range(length))


def good_envelopes():
    """The shortest and the longest message of every length, and both contents."""
    shortest = 0
    for length in LENGTHS:
        longest = length - 53
        for content, kind, size in ((2, "pairing", shortest), (1, "mls", longest)):
            name = f"{kind}_of_{size}_bytes"
            entry = {"name": name, "content": kind, "message_bytes": size, "length": length}
            sealed = envelope(name, padded(content, message_of(size), length))
            if length <= 4096:
                entry["envelope"] = sealed.hex()
            elif size == longest:
                # Too long for a line of text.
                entry["file"] = f"{name}.envelope"
                (HERE / entry["file"]).write_bytes(sealed)
            else:
                continue
            yield entry
        shortest = longest + 1


def bad_envelopes():
    """Each with how it would open: what has to be undone, so that a test can tell that nothing else is wrong with it."""
    message = b"two of three"
    good = padded(1, message, 1024)
    # The box opens, what is inside is wrong: "inside".
    inside = {
        "padding_not_zero_at_the_end": good[:-1] + b"\x01",
        "padding_not_zero_after_the_message": good[: 5 + len(message)] + b"\x01" + good[6 + len(message) :],
        "content_0": padded(0, message, 1024),
        "content_3": padded(3, message, 1024),
        "content_255": padded(255, message, 1024),
        "message_length_one_beyond_the_end": padded(1, message, 1024, stated=1024 - 53 + 1),
        "message_length_of_4_gib": padded(1, message, 1024, stated=2**32 - 1),
        "not_the_smallest_length": padded(1, message, 2048),
        "not_the_smallest_length_by_one_byte": padded(1, message_of(1024 - 53), 2048),
    }
    for name, plain in inside.items():
        yield {"name": name, "undo": "inside", "envelope": envelope(name, plain).hex()}
    yield {
        "name": "sealed_for_another_mailbox",
        "undo": "mailbox",
        "mailbox": OTHER_MAILBOX.hex(),
        "envelope": envelope("another mailbox", good, mailbox=OTHER_MAILBOX).hex(),
    }
    yield {
        "name": "sealed_to_another_key",
        "undo": "secret",
        "secret": OTHER_SECRET.hex(),
        "envelope": envelope("another key", good, secret=OTHER_SECRET).hex(),
    }
    yield {
        "name": "sealed_under_the_label_with_its_zero_byte",
        "undo": "nothing known",
        "envelope": envelope("zero byte", good, info=b"countersign/v1 envelope\0").hex(),
    }
    yield {
        "name": "sealed_stating_another_length",
        "undo": "nothing known",
        "envelope": envelope("another length", good, stated=2048).hex(),
    }
    sealed = envelope("flipped", good)
    for where, at in {"enc": 7, "ciphertext_first": 32, "ciphertext_middle": 500, "tag_last": 1023}.items():
        flipped = bytearray(sealed)
        flipped[at] ^= 0x10
        yield {"name": f"bit_flipped_in_{where}", "undo": "flip", "at": at, "mask": 0x10, "envelope": flipped.hex()}
    yield {"name": "enc_of_zeros", "undo": "nothing known", "envelope": (bytes(32) + sealed[32:]).hex()}
    yield {"name": "zeros", "undo": "nothing known", "envelope": bytes(1024).hex()}


def not_envelopes():
    """Lengths in bytes that no envelope has."""
    return sorted({0, 1, 32, 48, 53, 3072, 8192, 32768, 131072} | {n + d for n in LENGTHS for d in (-1, 1)})


def write(name: str, contents) -> None:
    (HERE / name).write_text(json.dumps(contents, indent=1, ensure_ascii=True) + "\n")


write("keys.json", {"good": list(good_keys()), "bad_texts": list(bad_texts()), "bad_points": list(bad_points())})
write("capabilities.json", list(capabilities()))
write("hpke.json", [rfc_9180_a_2_1()])
write(
    "envelopes.json",
    {
        "mailbox": MAILBOX.hex(),
        "secret": SECRET.hex(),
        "message": "bytes 0, 1, ... 250, 0, 1, ... up to message_bytes",
        "good": list(good_envelopes()),
        "bad": list(bad_envelopes()),
        "not_envelope_lengths": not_envelopes(),
    },
)
