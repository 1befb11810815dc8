"""Gives verify.py's verdict on each frozen vector and compares it with the expected one. Not here: what is right.

The formats are those of tests/vectors/*/README.md. Vectors of what verify.py doesn't implement aren't read.
"""

import functools
import json
import re

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

import policy
from keys import Wrong, party_key, read_checkpoint, read_json, verify_strict
from rule import Standing, decide
from statements import ACTION, read_statement
from verify import verify_file


def verdict_on(check, *arguments):
    """`ok`, or the door that refused."""
    try:
        check(*arguments)
    except Wrong as error:
        return error.door
    return "ok"


def statement_cases(file):
    for vector in json.loads(file.read_bytes()):
        yield vector["name"], vector["expect"], verdict_on(read_statement, vector["input"])
        if vector["expect"] == "ok":
            read = read_statement(vector["input"])
            named = ("kind", "signer", "digest")
            yield vector["name"], [vector[each] for each in named], [read[each] for each in named]


def decision_cases(file):
    vectors = json.loads(file.read_bytes())
    statements = [read_statement(each) for each in vectors["statements"]]
    for case in vectors["cases"]:
        decisions = [statements[each] for each in case["decisions"]]
        standing = Standing()
        for given in case["standing"]["grants"]:
            grant, givers = statements[given["grant"]], [statements[each]["signer"] for each in given["decisions"]]
            standing.give(grant, statements[given["request"]], givers)
            held = standing.grants[grant["digest"]]
            held["used"], held["revoked"] = given["used"], given["revocation"] is not None
        for used in case["standing"]["rules"]:
            standing.rules.setdefault(used["rule"], []).extend(used["times"])
        said = decide(statements[case["request"]], decisions, standing, statements[case["roster"]], case["now"])
        yield case["name"], case["expect"], said


def count_uses(times, rule, since):
    return sum(since is None or at > since for at in times.get(rule, []))


def policy_cases(file):
    vectors = json.loads(file.read_bytes())
    for vector in vectors["good"] + vectors["bad"]:
        try:
            policy.read(vector["input"])
        except policy.Refused as error:
            said = "too_long" if str(error) == "too long" else "refused"
        else:
            said = "ok"
        yield vector["name"], vector.get("expect", "ok"), said
    for case in vectors["judgements"]:
        action = ACTION(read_json(case["action"]))
        times = {}
        for used in case["used"]:
            times.setdefault(used["rule"], []).extend(used["times"])
        used = functools.partial(count_uses, times)
        effect, rule, terms = policy.judge(case["policy"], action, case["asked_by"], case["now"], used)
        yield case["name"], case["expect"], {"effect": {effect: rule}} | terms
    for program in vectors["programs"]:
        names = [program[each] and program[each].encode() for each in ("executable", "interpreter", "argv0")]
        expected = {mark: program[mark] for mark in ("runner", "shell")}
        yield program["executable"], expected, policy.marks_of_program(*names)


def key_cases(file):
    vectors = json.loads(file.read_bytes())
    for group, expected in (("good", "ok"), ("bad_texts", "payload"), ("bad_points", "payload")):
        for vector in (each for each in vectors[group] if each["kind"] == "identity"):
            text = vector.get("public_text", vector.get("text"))
            yield vector["name"], expected, verdict_on(party_key, text)


def signature_cases(file):
    """Other people's signatures: good only if cofactorless, canonical, and without points of small order."""
    strict = {"low_order_A", "low_order_R", "low_order_residue", "non_canonical_A", "non_canonical_R"}
    for vector in json.loads(file.read_bytes()):
        key, signature, message = bytes.fromhex(vector["key"]), bytes.fromhex(vector["sig"]), vector["msg"].encode()
        stock = functools.partial(lambda key, *signed: Ed25519PublicKey.from_public_bytes(key).verify(*signed), key)
        expected = "signature" if strict & set(vector["flags"] or []) else "ok"
        said = verdict_on(verify_strict, key, signature, functools.partial(stock, signature, message))
        yield str(vector["number"]), expected, said


def checkpoint_case(file):
    gate = (file.parent / "gate.txt").read_text().strip()
    expected = "ok" if file.name.startswith("checkpoint-good") else "refused"
    refused = verdict_on(lambda: read_checkpoint(file.read_bytes().decode(), gate))
    yield "checkpoint", expected, "ok" if refused == "ok" else "refused"


def file_case(file):
    """A file says in its name what is expected of it."""
    expected = re.match(r"(?:proof-)?(good|bad-entry-[0-9]+|bad-file|bad)", file.name)[1]
    said = verify_file(file)
    if said.startswith("ok"):
        verdict = "good"
    else:
        verdict = re.match(r"wrong: ([a-z]+(?: [0-9]+)?)", said)[1].replace(" ", "-")
        verdict = "bad" if expected == "bad" else f"bad-{verdict}"
    yield said, expected, verdict


CASES = {
    "approval/statements.json": statement_cases,
    "approval/decisions.json": decision_cases,
    "approval/policies.json": policy_cases,
    "transcript/*.jsonl": file_case,
    "transcript/checkpoint-*.txt": checkpoint_case,
    "transcript/proof-*.json": file_case,
    "wire/keys.json": key_cases,
    "wire/ed25519/cctv.json": signature_cases,
}


def verify_vectors(folder):
    count = wrong = 0
    for where, cases in CASES.items():
        files = sorted(folder.glob(where))
        if not files:
            print(f"wrong: no {where} in {folder}")
            wrong += 1
        for file in files:
            for name, expected, verdict in cases(file):
                count += 1
                if expected != verdict:
                    wrong += 1
                    print(f"wrong: {file.name}: {name}: expected {expected}, not {verdict}")
    print(f"{'wrong' if wrong else 'ok'}: {count} vectors, {wrong} with another verdict")
    return 3 if wrong else 0
