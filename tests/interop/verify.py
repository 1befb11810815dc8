#!/usr/bin/env python3
"""Verifies transcripts and proofs: a second implementation of PROTOCOL.md. Here: files (15), on top of keys.py (1, 2,
10.2), statements.py (7, 8), policy.py (16), rule.py (8.7, 9) and replay.py (10), proof.py (10.4 of one request).

Written from shared/PROTOCOL.md alone, with stock libraries for the signatures, so that agreeing with the Rust code
proves that the page says enough. Not here: rendering (11), the channel (12), pairing (13), any network, any state.

    verify.py FILE…           one line a file: `ok …` or `wrong: entry N: why` (`wrong: file: why`); exit 0 or 3
    verify.py --vectors DIR   gives a verdict on each frozen vector under DIR and compares it with the expected one
"""

import argparse
import pathlib
import sys

from keys import Wrong, need, read_checkpoint, read_json, spelled
from proof import ProofReplay
from replay import Replay, hash_leaf, included_root
from statements import bytes32, party, read_statement, record, sequence, u64

LINE_BYTES, PROOF_BYTES = 64 << 10, 16 << 20


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
        replay.prepare([read_statement(each["statement"]) for each in entries])
    place = 0
    for entry in entries:
        index, statement = entry["index"], entry["statement"]
        with At(f"entry {index}"):
            need(before < index < checkpoint["size"], "not in transcript order")
            need(place < 2 or replay.unfinished, "the request had ended before")
            root = included_root(hash_leaf(statement), index, checkpoint["size"], entry["proof"])
            need(root == checkpoint["root"], "isn't in the log")
            replay.take(index, statement)
            before = index
            if not replay.is_of_grant(read_statement(statement)):
                need((place > 0) == (replay.asked is not None), "not a roster, a request and what became of it")
                place += 1
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
