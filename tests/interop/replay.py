"""A log, and the rules by which one entry follows another: PROTOCOL.md, sections 10.1, 10.3 and 10.4. Not here: files (15)."""

import functools
import hashlib

from keys import need, read_checkpoint
from rule import Case, Standing, decide, demands
from statements import admins_devices, contents, read_statement

OPEN_REQUESTS, GRANTS = 64, 10_000

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
        self.standing = Standing()

    def take(self, index, text):
        statement = read_statement(text)
        kind = statement["kind"]
        need(kind != "device", "a device isn't an entry")
        need(self.roster or kind == "roster", "doesn't begin with a roster")
        if kind not in ("decision", "revocation"):
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
        self.put_in_force(new)

    def put_in_force(self, new):
        if self.roster and self.roster["policy"] != new["policy"]:
            self.standing.rules.clear()
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
        unenrolled = "refuse" if admins_devices(new) else old["unenrolled"]
        need(new["unenrolled"] == unenrolled, "changes what happens without an admin")

    def take_request(self, index, request):
        need(request["index"] == index, "request for another position")
        need(request["roster"] == self.roster["digest"], "roster isn't the one in force")
        said = demands(self.roster, self.standing, request["action"], request["asked_by"], request["created"])
        for term in ("risk", "need", "veto", "four_eyes"):
            need(request[term] == said[term], f"{term} isn't what the policy says")
        need((request["matching"] is not None) == said["number"], "a number that the policy doesn't want, or none")
        need(request["expires"] - request["created"] <= said["life_ms"], "lives longer than the policy says")
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
        verdict = decide(request, request["decisions"], self.standing, self.roster, permit["time"])
        need(verdict == {"open": permit["basis"]}, f"the rule says {verdict}")
        self.standing.use(permit["basis"], permit["time"])
        request["permit"] = permit["digest"]

    def take_grant(self, _index, grant):
        request = self.cited(grant, permitted=False)
        need(grant["roster"] == self.roster["digest"], "roster isn't the one in force")
        Case(request, request["decisions"], self.standing, self.roster, grant["time"]).check_grant(grant)
        given = [held["grant"] for held in self.standing.grants.values()]
        before = [each for each in given if each["request"] == grant["request"] and each["terms"] == grant["terms"]]
        need(not before, "granted before")
        need(len(self.standing.unended(grant["time"])) < GRANTS, "too many grants")
        signers = {each["digest"]: each["signer"] for each in request["decisions"]}
        self.standing.give(grant, request, [signers[each] for each in grant["decisions"]])

    def take_revocation(self, _index, revocation):
        held = self.standing.grants.get(revocation["grant"])
        need(held and not held["revoked"], "revokes no grant, or one that is revoked")
        need(revocation["signer"] in admins_devices(self.roster), "not by a device of an admin")
        held["revoked"] = True

    def take_outcome(self, _index, outcome):
        permitted = outcome["permit"] is not None
        request, result = self.cited(outcome, permitted), outcome["result"]
        need(outcome["permit"] == request["permit"], "cites another permit")
        if "denied" in result or "forbidden" in result:
            verdict = decide(request, request["decisions"], self.standing, self.roster, outcome["time"])
            said = "denied" in verdict if "denied" in result else verdict == result
            need(said, f"the rule says {verdict}")
        if "expired" in result:
            need(outcome["time"] >= request["expires"], "not expired yet")
        if "ran" in result:
            need("command" in request["action"], "ran, but is no command")
        if "released" in result:
            need({"tool", "secret"} & request["action"].keys(), "released, but is neither a tool call nor a secret")
        del self.unfinished[outcome["request"]]
