"""Policies: a second implementation of PROTOCOL.md, section 16, on Python's own TOML. Not here: what follows (9).

An action, a request's `asked_by` and byte strings are as statements.py reads them. `used(rule, since)` says how many permits
rested on a rule, of those later than `since` if that isn't None.
"""

import datetime
import functools
import pathlib
import re
import tomllib

DAY = 24 * 60 * 60 * 1000
POLICY_BYTES, RULES, ELEMENTS, USES, TEXT_BYTES = 16 << 10, 1024, 64, 1000, 1024
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
PATH = b"/usr/local/bin:/usr/bin:/bin"
ENVIRONMENT = {b"HOME", b"LANG", b"LC_ALL", b"LC_CTYPE", b"LOGNAME", b"PATH", b"SHELL", b"TERM", b"TZ", b"USER"}
FOLDERS = (b"/usr/local/bin/", b"/usr/bin/", b"/bin/")
STRICTEST = ("deny", "ask", "allow")
NOBODY = {"risk": None, "quorum": 1, "veto": True, "four_eyes": False, "number": False, "life_ms": DAY}
LISTS = pathlib.Path(__file__).resolve().parents[2] / "shared/approval/src/policy"


class Refused(ValueError):
    """Why a text is no policy."""


def need(condition, why):
    if not condition:
        raise Refused(why)


# --- Programs (16.5) -------------------------------------------------------------------------------------------------


@functools.cache
def listed(name):
    return frozenset((LISTS / f"{name}.txt").read_bytes().splitlines())


def last_part(path):
    return path.rsplit(b"/", 1)[-1]


def without_version(name):
    return name.rstrip(b"0123456789.").removesuffix(b"-")


def marks_of_program(*names):
    """Which of `runner` and `shell` a command has, by the paths of its executable and interpreter and by argv[0]."""
    plain = {without_version(last_part(name)) for name in names if name is not None} - {b""}
    return {mark: not plain.isdisjoint(listed(f"{mark}s")) for mark in ("runner", "shell")}


# --- Reading (16, 16.1) ----------------------------------------------------------------------------------------------


def table(value, *known):
    need(type(value) is dict and value.keys() <= set(known), f"not a table of {', '.join(known)}")
    return value


def text(value):
    need(type(value) is str and len(value.encode()) <= TEXT_BYTES, "not a text")
    return value


def name(value):
    need(type(value) is str and re.fullmatch("[a-z0-9][a-z0-9._-]{0,63}", value), "not a name")
    return value


def flag(value):
    need(type(value) is bool, "neither true nor false")
    return value


def number(value, most):
    need(type(value) is int and 1 <= value <= most, f"not a whole number from 1 to {most}")
    return value


def items(value, each):
    need(type(value) is list and value, "not a list that isn't empty")
    return [each(one) for one in value]


def span(value):
    match = type(value) is str and re.fullmatch("([0-9]+)([smhd])", value)
    need(match, "not a span")
    millis = int(match[1]) * {"s": 1000, "m": 60_000, "h": 3_600_000, "d": DAY}[match[2]]
    need(1000 <= millis <= 366 * DAY, "a span out of bounds")
    return millis


def moment(value):
    need(type(value) is datetime.datetime and value.tzinfo, "not an offset date-time")
    millis = (value - EPOCH) // datetime.timedelta(milliseconds=1)
    need(millis >= 0, "before 1970")
    return millis


def mode(value):
    need(value in ("deny", "allowlist", "full") and type(value) is str, "not a mode")
    return value


def read_class(value):
    table(value, "quorum", "veto", "four_eyes", "number", "expires", "first", "after")
    need(("first" in value) == ("after" in value), "first without after, or the reverse")
    if "first" in value:
        items(value["first"], name)
        span(value["after"])
    return {
        "quorum": number(value.get("quorum", 1), 2**16 - 1),
        "veto": flag(value.get("veto", True)),
        "four_eyes": flag(value.get("four_eyes", False)),
        "number": flag(value.get("number", False)),
        "life_ms": min(span(value.get("expires", "1d")), DAY),
    }


def read_layer(value):
    table(value, "agent", "conversation", "user", "mode")
    whose = [field for field in ("agent", "conversation", "user") if field in value]
    need(len(whose) == 1, "not for exactly one")
    need("mode" in value, "without a mode")
    return whose[0], (name if whose == ["agent"] else text)(value[whose[0]]), mode(value["mode"])


def read_element(value, effect):
    if type(value) is str:
        return "literal", value.encode()
    table(value, "like", "rest")
    need(len(value) == 1, "neither like nor rest, or both")
    if "rest" in value:
        need(value["rest"] is True, "rest that isn't true")
        return "rest", None
    glob = value["like"]
    need(type(glob) is str and re.fullmatch("[ -.0-~]*", glob), "like with a slash or beyond printable ASCII")
    one = "[ -.0-~]" if effect == "allow" else "."
    parts = {"*": one + "*", "?": one}
    pattern = "".join(parts.get(character, re.escape(character)) for character in glob)
    return "like", (re.compile(pattern.encode(), re.DOTALL), effect != "allow" or glob.startswith("-"))


def read_command(value, effect):
    need(type(value) is list and 1 <= len(value) <= ELEMENTS, "not 1 to 64 elements")
    program = value[0]
    need(type(program) is str and program, "not a program")
    need("/" not in program or program.startswith("/"), "neither a name nor an absolute path")
    need(not program.endswith("/"), "a program that ends in a slash")
    elements = [read_element(element, effect) for element in value[1:]]
    need(all(kind != "rest" for kind, _ in elements[:-1]), "rest before the end")
    literal = all(kind == "literal" for kind, _ in elements)
    runs_others = any(marks_of_program(program.encode()).values())
    need(effect != "allow" or literal or not runs_others, "a program that runs others, with anything but literals")
    return program.encode(), elements


def read_tool(value):
    server, slash, tool = text(value).partition("/")
    need(server and slash, "not server/tool")
    return server, tool or None


def read_rule(value, classes):
    whom = {"agents": name, "users": text, "conversations": text, "platforms": text}
    table(value, "effect", *whom, "command", "tool", "secret", "class", "until", "uses", "per")
    effect = value.get("effect")
    need(type(effect) is str and effect in STRICTEST, "not an effect")
    who = {field: items(value[field], each) for field, each in whom.items() if field in value}
    what = [field for field in ("command", "tool", "secret") if field in value]
    need(len(what) <= 1, "more than one of command, tool, secret")
    rule = {"effect": effect, "who": who, "what": what[0] if what else None}
    if what == ["command"]:
        rule["command"] = read_command(value["command"], effect)
    elif what:
        rule[what[0]] = {"tool": read_tool, "secret": name}[what[0]](value[what[0]])
    need(effect != "allow" or what, "allows everything")
    need(effect != "allow" or "conversations" not in who or "users" in who, "allows whoever is in a conversation")
    rule["class"] = name(value["class"]) if "class" in value else None
    need(rule["class"] is None or rule["class"] in classes, "a class that isn't described")
    rule["until"] = moment(value["until"]) if "until" in value else None
    need("uses" not in value or effect == "allow", "uses of what isn't allowed")
    need("per" not in value or "uses" in value, "per without uses")
    rule["uses"] = number(value["uses"], USES) if "uses" in value else None
    rule["per"] = span(value["per"]) if "per" in value else None
    return rule


@functools.lru_cache(maxsize=256)
def read(policy):
    """What a policy's text means; `None` is the empty policy."""
    source = policy or ""
    need(len(source.encode()) <= POLICY_BYTES, "too long")
    try:
        value = tomllib.loads(source)
    except (tomllib.TOMLDecodeError, ValueError, RecursionError) as error:
        raise Refused(f"not TOML: {error}") from error
    table(value, "mode", "layer", "class", "person", "rule")
    need(type(value.get("class", {})) is dict and type(value.get("person", {})) is dict, "not a table")
    classes = {name(key): read_class(each) for key, each in value.get("class", {}).items()}
    users = {
        name(key): items(table(each, "users").get("users"), text) for key, each in value.get("person", {}).items()
    }
    layers = {}
    for field, whose, its_mode in items(value["layer"], read_layer) if "layer" in value else []:
        layers.setdefault((field, whose), its_mode)
    rules = items(value["rule"], lambda each: read_rule(each, classes)) if "rule" in value else []
    need(len(rules) <= RULES, "too many rules")
    default = mode(value.get("mode", "allowlist"))
    return {"mode": default, "layers": layers, "classes": classes, "users": users, "rules": rules}


def largest_quorum(policy):
    return max((each["quorum"] for each in read(policy)["classes"].values()), default=1)


def is_person(policy, person, user):
    """Whether this user is this person."""
    return user is not None and (user == person or user in read(policy)["users"].get(person, []))


# --- Judging (16.2 to 16.4) ------------------------------------------------------------------------------------------


def names_of(*paths):
    parts = {last_part(path) for path in paths}
    return parts | {without_version(part) for part in parts}


def is_program(program, effect, command):
    path, argv0, script_of = command["executable"]["path"], command["argv"][0], command["interpreter"]
    if effect != "allow":
        paths = [path, argv0] if script_of is None else [path, argv0, script_of["path"]]
        return not names_of(program).isdisjoint(names_of(*paths))
    there = path == program if b"/" in program else any(path == folder + program for folder in FOLDERS)
    return there and argv0 in (program, last_part(program), path)


def is_argument(kind, wanted, argument):
    if kind == "literal":
        return argument == wanted
    glob, option = wanted
    return bool(glob.fullmatch(argument)) and (option or not argument.startswith(b"-"))


def may_be_allowed(command):
    """What an `allow` needs besides program and arguments."""
    marks, names = set(command["marks"]), {entry[0] for entry in command["env"]}
    runs_others = bool(marks & {"runner", "shell"})
    return (
        marks <= {"runner", "shell"}
        and command["stdin"] == "none"
        and names <= ENVIRONMENT
        and [b"PATH", PATH] in command["env"]
        and command["interpreter"] is None
        and not (runs_others and command["operands"])
    )


def matches_command(rule, command):
    (program, elements), argv = rule["command"], command["argv"]
    rest = bool(elements) and elements[-1][0] == "rest"
    fixed, arguments = elements[: len(elements) - rest], argv[1:]
    return (
        is_program(program, rule["effect"], command)
        and (len(arguments) >= len(fixed) if rest else len(arguments) == len(fixed))
        and all(is_argument(*element, argument) for element, argument in zip(fixed, arguments))
        and (rule["effect"] != "allow" or may_be_allowed(command))
    )


def matches(number, rule, action, asker, now, used):
    fields = {"agents": "agent", "users": "user", "conversations": "conversation", "platforms": "platform"}
    if not all(asker[fields[field]] in wanted for field, wanted in rule["who"].items()):
        return False
    if rule["until"] is not None and now >= rule["until"]:
        return False
    (kind, what), *_ = action.items()
    if rule["what"] not in (None, kind):
        return False
    if rule["what"] == "command" and not matches_command(rule, what):
        return False
    if rule["what"] == "tool" and (rule["tool"][0] != what["server"] or rule["tool"][1] not in (None, what["tool"])):
        return False
    if rule["what"] == "secret" and rule["secret"] != what["name"]:
        return False
    since = None if rule["per"] is None else now - rule["per"]
    return rule["uses"] is None or (not asker["under"] and used(number, since) < rule["uses"])


def judge(policy, action, asked_by, now, used):
    """`deny`, `ask` or `allow`, by which rule (None for the mode), and the terms of the class of risk."""
    if "roster" in action:
        return "ask", None, NOBODY
    read_policy, answers, classes = read(policy), [], {}
    for agent in [*asked_by["under"], asked_by["agent"]]:
        asker = asked_by | {"agent": agent}
        found = [
            (STRICTEST.index(rule["effect"]), number)
            for number, rule in enumerate(read_policy["rules"])
            if matches(number, rule, action, asker, now, used)
        ]
        classes |= {number: read_policy["rules"][number]["class"] for _, number in found}
        if found:
            answers.append(min(found))
        else:
            layers = [(field, asker[field]) for field in ("user", "conversation", "agent")]
            its_mode = next((read_policy["layers"][layer] for layer in layers if layer in read_policy["layers"]), None)
            answers.append((("deny", "allowlist", "full").index(its_mode or read_policy["mode"]), None))
    strict, rule = min(answers, key=lambda answer: answer[0])
    named = [classes[number] for number in sorted(classes) if classes[number] is not None]
    risk = max(named, key=lambda each: read_policy["classes"][each]["quorum"], default=None)
    terms = NOBODY if risk is None else read_policy["classes"][risk] | {"risk": risk}
    return STRICTEST[strict], rule, terms
