"""The rules of 10.4 for somebody who has only the entries of one proof: PROTOCOL.md, section 15. Not here: its file."""

import policy
from keys import Wrong, need, read_checkpoint
from replay import Replay
from rule import may_be_granted, repeats
from statements import read_statement


class ProofReplay(Replay):
    """The rules of 10.4 that concern one request, for somebody who has only the entries of a proof."""

    def __init__(self, gate):
        super().__init__(gate)
        self.asked = None
        self.grant = None  # that the permit rests on, if it was given for another request
        self.given, self.givers = None, []  # that request, and whose approvals carry the grant, as they come

    def prepare(self, statements):
        permit = next((each for each in statements if each["kind"] == "permit"), {"basis": {}})
        named = [each for each in statements if permit["basis"] == {"grant": each["digest"]} and each["kind"] == "grant"]
        # A grant of the same request stands among its own entries.
        if named and named[0]["request"] != permit["request"]:
            self.grant = named[0]

    def is_of_grant(self, statement):
        """Whether this stands here for the grant alone."""
        grant = self.grant
        return grant is not None and statement["digest"] in [grant["digest"], grant["request"], *grant["decisions"]]

    def take_of_grant(self, index, statement):
        """Checks it as far as it can be without the roster by which it was given."""
        kind = statement["kind"]
        if kind == "decision":
            return self.take_giver(index, statement)
        self.check_gate(statement)
        if kind == "request":
            need(statement["index"] == index, "request for another position")
            self.given = statement
        else:
            need(kind == "grant", "neither a request nor a decision nor a grant")
            need(self.given and len(self.givers) == len(statement["decisions"]), "its request or approvals are missing")
            need(may_be_granted(self.given["action"], statement["terms"]), "may not be granted so")
            need(statement["time"] < self.given["expires"], "its request had expired")
            self.standing.give(statement, self.given, self.givers)

    def take_giver(self, index, decision):
        need(self.given and decision["request"] == self.given["digest"], "cites another request")
        quoted = read_checkpoint(decision["checkpoint"], self.gate)
        need(self.given["index"] < quoted["size"] <= index, "quotes a checkpoint of an impossible size")
        carries = decision["verdict"] == "approve" and decision["grant"] == self.grant["terms"]
        need(carries and repeats(self.given, decision), "doesn't carry the grant")
        place = len(self.givers)
        need(self.grant["decisions"][place : place + 1] == [decision["digest"]], "cited in another order")
        self.givers.append(decision["signer"])

    def take(self, index, text):
        statement = read_statement(text)
        if self.is_of_grant(statement):
            return self.take_of_grant(index, statement)
        need(statement["kind"] != "revocation", "a revocation isn't of one request")
        # How often rules were used before is the gate's word: it is enough that it could be so.
        rules = policy.read(self.roster["policy"])["rules"] if self.roster else []
        bounded = [number for number, rule in enumerate(rules) if rule["uses"]]
        tries = [[], bounded, *([each] for each in bounded), *([e for e in bounded if e != one] for one in bounded)]
        for place, used_up in enumerate(tries):
            self.standing.used = lambda rule, since, used_up=used_up: 2**31 if rule in used_up else 0
            before = dict(self.unfinished), self.last_time
            try:
                return super().take(index, text)
            except Wrong:
                self.unfinished, self.last_time = before
                if place + 1 == len(tries):
                    raise

    def take_roster(self, index, new):
        if self.asked and new["basis"] == self.asked:
            return super().take_roster(index, new)
        # The first was in force when it was asked; a later one rests on another request, which isn't here.
        if self.roster:
            self.check_next(new)
        self.put_in_force(new)

    def take_request(self, index, request):
        need(self.asked is None, "second request")
        super().take_request(index, request)
        self.asked = request["digest"]

    def is_history(self, quoted):
        return True  # its root can't be compared without the entries between
