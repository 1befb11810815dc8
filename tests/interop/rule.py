"""The rule that says yes, and the grants that it rests on: PROTOCOL.md, sections 8.7 and 9. Not here: the log (10)."""

import hashlib
import re

import policy
from keys import Wrong, need, read_checkpoint
from statements import admins_devices

# --- Grants (8.7) ----------------------------------------------------------------------------------------------------

PLAIN = re.compile(rb"[!-,.0-~][!-.0-~]{0,254}")


def may_be_granted(action, terms):
    (kind, what), *_ = action.items()
    if kind in ("tool", "secret"):
        return not terms["blanks"]
    if kind == "roster" or {"setuid", "writable"} & set(what["marks"]):
        return False
    fixed = {"runner", "shell", "odd"} & set(what["marks"]) or what["interpreter"]
    return all(not fixed and at < len(what["argv"]) and PLAIN.fullmatch(what["argv"][at]) for at in terms["blanks"])


def covers(terms, given, request):
    """Whether this request is like the one that was granted, and asked for whom it is for."""
    same = ["agent", "under"] + [field for field in ("user", "conversation") if terms[field]]
    if any(given["asked_by"][field] != request["asked_by"][field] for field in same):
        return False
    if given["class"] != request["class"] or given["class"] != "command":
        return given["action"] == request["action"]
    old, new = given["action"]["command"], request["action"]["command"]
    blanks = set(terms["blanks"])

    def fixed(command):
        """What must be equal."""
        files = [command["executable"], command["interpreter"]]
        operands = [each for each in command["operands"] if each["argument"] not in blanks]
        return [
            [(file["path"], file["sha256"]) if file else None for file in files],
            [None if at in blanks else argument for at, argument in enumerate(command["argv"])],
            [(each["argument"], each["file"]["path"], each["file"]["sha256"]) for each in operands],
            command["directory"]["path"],
            [command[field] for field in ("env", "stdin", "uid", "marks")],
        ]

    def limits(command):
        most = command["limits"]
        return most["wall_ms"], most["output_bytes"], most["memory_bytes"] or 2**64

    return (
        fixed(old) == fixed(new)
        and all(PLAIN.fullmatch(new["argv"][at]) for at in blanks)
        and all(ours <= theirs for ours, theirs in zip(limits(new), limits(old)))
    )


class Standing:
    """The grants of a transcript, and how often they and the rules of the policy in force were used."""

    def __init__(self):
        self.grants, self.rules = {}, {}

    def give(self, grant, request, givers):
        """`givers` are the devices whose approvals carry it."""
        held = {"grant": grant, "request": request, "givers": givers, "used": 0, "revoked": False}
        self.grants[grant["digest"]] = held

    def used(self, rule, since):
        return sum(since is None or time > since for time in self.rules.get(rule, []))

    def use(self, basis, time):
        if "grant" in basis:
            self.grants[basis["grant"]]["used"] += 1
        if "rule" in basis:
            self.rules.setdefault(basis["rule"], []).append(time)

    def unended(self, now):
        return [held for held in self.grants.values() if not self.ended(held, now)]

    @staticmethod
    def ended(held, now):
        terms = held["grant"]["terms"]
        over = terms["not_after"] is not None and now > terms["not_after"]
        return held["revoked"] or over or held["used"] == terms["uses"]


# --- decide (9) ------------------------------------------------------------------------------------------------------


def demands(roster, standing, action, asked_by, now):
    """What the policy in force says before anybody is asked."""
    of_roster = "roster" in action
    effect, rule, risk = policy.judge(roster["policy"], action, asked_by, now, standing.used)
    least = roster["quorum"]["roster" if of_roster else "command"]
    return risk | {"effect": effect, "rule": rule, "need": least if of_roster else max(risk["quorum"], least)}


def repeats(request, decision):
    """Whether the number is the one that was shown, if one was."""
    made = b"countersign/v1 number\0" + bytes.fromhex(request["nonce"]) + (decision["number"] or "").encode()
    return request["matching"] in (None, hashlib.sha256(made).hexdigest())


class Case:
    """A request with all that its verdict depends on."""

    def __init__(self, request, decisions, standing, roster, now):
        self.request, self.decisions, self.roster = request, decisions, roster
        self.standing, self.now, self.devices = standing, now, admins_devices(roster)
        asked = demands(roster, standing, request["action"], request["asked_by"], now)
        self.needed = max(asked["need"], request["need"])
        self.veto, self.four_eyes = asked["veto"] or request["veto"], asked["four_eyes"] or request["four_eyes"]
        self.asked = asked

    def asks(self, person):
        """Whether this person may not approve, because it is they who ask."""
        return self.four_eyes and policy.is_person(self.roster["policy"], person, self.request["asked_by"]["user"])

    def counts(self, decision):
        try:
            quoted = read_checkpoint(decision["checkpoint"], self.request["gate"])
        except Wrong:
            return False
        cites = decision["request"] == self.request["digest"] and quoted["size"] > self.request["index"]
        return cites and decision["signer"] in self.devices

    def answers(self):
        """The counting denials, and the approvals that count."""
        counting = [(self.devices[each["signer"]], each) for each in self.decisions if self.counts(each)]
        denials = [(person, each) for person, each in counting if each["verdict"] == "deny"]
        deniers = {person for person, _ in denials}
        approvals = [
            (person, each)
            for person, each in counting
            if person not in deniers and not self.asks(person) and repeats(self.request, each)
        ]
        return denials, approvals

    def verdict(self):
        if self.request["gate"] != self.roster["gate"]:
            return {"refused": "another_gate"}
        if not self.devices:
            if self.roster["unenrolled"] == "refuse" or self.request["class"] == "roster":
                return {"refused": "nobody_enrolled"}
            return "expired" if self.now >= self.request["expires"] else {"open": {"unenrolled": {}}}
        if self.asked["effect"] == "deny":
            return {"forbidden": {"rule": self.asked["rule"]}}
        denials, approvals = self.answers()
        left = set(self.devices.values()) - {person for person, _ in denials}
        if denials and (self.veto or len(left) < self.needed):
            return {"denied": {"by": denials[0][0], "decision": denials[0][1]["digest"]}}
        if self.now >= self.request["expires"]:
            return "expired"
        first = {}
        for person, approval in approvals:
            first.setdefault(person, approval["digest"])
        if len(first) >= self.needed:
            return {"open": {"decisions": [*first.values()]}}
        if self.request["class"] != "roster":
            if given := next(filter(self.stands, self.standing.grants.values()), None):
                return {"open": {"grant": given["grant"]["digest"]}}
            if self.asked["effect"] == "allow":
                rule = self.asked["rule"]
                return {"open": {"mode": {}} if rule is None else {"rule": rule}}
        return {"waiting": {"have": len(first), "need": self.needed}}

    def stands(self, held):
        grant, given = held["grant"], held["request"]
        left = {self.devices[giver] for giver in held["givers"] if giver in self.devices}
        return (
            not self.standing.ended(held, self.now)
            and given["risk"] == self.request["risk"]
            and sum(not self.asks(person) for person in left) >= self.needed
            and covers(grant["terms"], given, self.request)
        )

    def check_grant(self, grant):
        """Whether these approvals carry this grant (10.4)."""
        approvals = [(person, each["digest"], each["grant"]) for person, each in self.answers()[1]]
        need(self.request["class"] != "roster", "grants a change of the roster")
        verdict = self.verdict()
        need(verdict != "expired" and not {"forbidden", "denied", "refused"} & verdict.keys(), f"the rule says {verdict}")
        need(may_be_granted(self.request["action"], grant["terms"]), "may not be granted so")
        cited = [each for each in approvals if each[1] in grant["decisions"]]
        need([each[1] for each in cited] == grant["decisions"], "cites what doesn't count, or in another order")
        need(all(terms == grant["terms"] for _, _, terms in cited), "cites approvals of something else")
        people = {person for person, _, _ in cited}
        need(len(people) == len(cited) >= self.needed, "too few people, or one twice")


def decide(request, decisions, standing, roster, now):
    return Case(request, decisions, standing, roster, now).verdict()
