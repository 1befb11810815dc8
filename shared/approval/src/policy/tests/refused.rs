//! What is no policy (16.1), each with the line and what to do.

use proptest::prelude::*;

use super::*;

fn refused(text: &str) -> String {
    match Policy::parse(text) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("taken:\n{text}"),
    }
}

/// A rule with these further lines.
fn rule(effect: &str, lines: &str) -> String {
    format!("\n[[rule]]\neffect = \"{effect}\"\n{lines}\n")
}

#[test]
fn every_refusal_says_where_and_what() {
    for (text, expected) in [
        (
            "colour = 1".to_owned(),
            "line 1: unknown field `colour` in the policy; known are mode, ",
        ),
        (
            rule("deny", "user = \"erin\""),
            "line 4: unknown field `user` in a rule; known are effect, agents, users",
        ),
        (
            "[class.a]\nquorums = 1".to_owned(),
            "line 2: unknown field `quorums` in a class",
        ),
        (
            "[[layer]]\nagent = \"a\"\nmode = \"deny\"\nx = 1".to_owned(),
            "line 4: unknown field `x` in a layer",
        ),
        (
            "[person.a]\nuser = [\"x\"]".to_owned(),
            "line 2: unknown field `user` in a person",
        ),
        (
            rule("deny", "class = \"high\""),
            "line 4: class high isn't described: add [class.high]",
        ),
        (
            rule("allow", "tool = \"a/b\"\nuses = 0"),
            "line 5: `uses` must be a whole number from 1 to 1000",
        ),
        (
            rule("allow", "tool = \"a/b\"\nuses = 1001"),
            "line 5: `uses` must be a whole number from 1 to 1000",
        ),
        (
            rule("allow", "tool = \"a/b\"\nuses = -1"),
            "line 5: `uses` must be a whole number from 1 to 1000",
        ),
        (
            rule("allow", "tool = \"a/b\"\nuses = 1.0"),
            "line 5: `uses` must be a whole number from 1 to 1000",
        ),
        (
            rule("ask", "tool = \"a/b\"\nuses = 1"),
            "line 5: only an `allow` rule has `uses`",
        ),
        (rule("deny", "uses = 1"), "line 4: only an `allow` rule has `uses`"),
        (
            rule("allow", "tool = \"a/b\"\nper = \"1h\""),
            "line 5: `per` without `uses`",
        ),
        (
            rule("allow", "tool = \"a/b\"\nuses = 1\nper = \"1w\""),
            "line 6: `per` must be a whole number followed by s, m, h or d",
        ),
        (
            "[class.a]\nafter = \"5m\"".to_owned(),
            "line 1: `first` and `after` go together",
        ),
        (
            "[class.a]\nfirst = [\"alice\"]".to_owned(),
            "line 1: `first` and `after` go together",
        ),
        (
            "[class.a]\nquorum = 0".to_owned(),
            "line 2: `quorum` must be a whole number from 1 to 65535",
        ),
        ("[class.a]\nquorum = 65536".to_owned(), "line 2: `quorum` must be"),
        ("[class.a]\nquorum = \"2\"".to_owned(), "line 2: `quorum` must be"),
        (
            "[class.a]\nveto = \"no\"".to_owned(),
            "line 2: `veto` must be true or false",
        ),
        ("[class.a]\nexpires = \"0s\"".to_owned(), "line 2: `expires` must be"),
        ("[class.a]\nexpires = \"367d\"".to_owned(), "line 2: `expires` must be"),
        ("[class.A]\nquorum = 1".to_owned(), "line 1: [class.A]: not a name"),
        ("class = 1".to_owned(), "line 1: `class` must be a table"),
        (
            rule("deny", "agents = []"),
            "line 4: `agents` must be a list that isn't empty: leave the field out instead",
        ),
        (
            rule("deny", "users = []"),
            "line 4: `users` must be a list that isn't empty",
        ),
        (
            rule("deny", "conversations = []"),
            "line 4: `conversations` must be a list that isn't empty",
        ),
        (
            rule("deny", "platforms = []"),
            "line 4: `platforms` must be a list that isn't empty",
        ),
        (
            rule("deny", "command = []"),
            "line 4: `command` must be a list that isn't empty",
        ),
        (
            "[person.a]\nusers = []".to_owned(),
            "line 2: `users` must be a list that isn't empty",
        ),
        ("[person.a]".to_owned(), "line 1: a person without `users`"),
        (
            "[class.a]\nafter = \"1m\"\nfirst = []".to_owned(),
            "line 3: `first` must be a list that isn't empty",
        ),
        ("rule = []".to_owned(), "line 1: `rule` must be a list that isn't empty"),
        (
            rule("allow", "conversations = [\"kitchen\"]\ntool = \"a/b\""),
            "line 4: an `allow` rule that names conversations must name users too: being in a group grants nothing",
        ),
        (
            rule("allow", "users = [\"erin\"]"),
            "line 2: an `allow` rule must name a command, a tool or a secret; to allow everything is the mode \"full\"",
        ),
        (
            rule("allow", "command = [\"sh\", { rest = true }]"),
            "line 4: sh can run other programs: an `allow` rule for it must give every argument as a string",
        ),
        (
            rule("allow", "command = [\"/usr/bin/python3\", { like = \"*\" }]"),
            "line 4: /usr/bin/python3 can run other programs",
        ),
        (
            rule("deny", "command = [\"rm\", { rest = true }, \"x\"]"),
            "line 4: nothing may come after { rest = true }",
        ),
        (
            rule("deny", "command = [\"rm\", { rest = true }, { rest = true }]"),
            "line 4: nothing may come after",
        ),
        (
            rule("deny", "command = [\"rm\", { rest = false }]"),
            "line 4: `rest` must be true, or left out",
        ),
        (
            rule("deny", "command = [\"rm\", {}]"),
            "line 4: an argument is either { like = \"…\" } or { rest = true }"
                .split('…')
                .next()
                .unwrap(),
        ),
        (
            rule("deny", "command = [\"rm\", { like = \"*\", rest = true }]"),
            "line 4: an argument is either",
        ),
        (
            rule("deny", "command = [\"rm\", { glob = \"*\" }]"),
            "line 4: unknown field `glob` in an argument; known are like, rest",
        ),
        (
            rule("deny", "command = [\"rm\", 1]"),
            "line 4: an argument must be a string",
        ),
        (
            rule("deny", "command = \"rm\""),
            "line 4: `command` must be a list in square brackets",
        ),
        (
            rule("deny", "command = [{ like = \"*\" }]"),
            "line 4: a `command` must begin with the name of a program, as a string",
        ),
        (
            rule("deny", "command = [\"\"]"),
            "line 4: a `command` must begin with the name of a program",
        ),
        (
            rule("deny", "command = [\"bin/rm\"]"),
            "line 4: a program is an absolute path or a name without a slash",
        ),
        (
            rule("deny", "command = [\"./rm\"]"),
            "line 4: a program is an absolute path",
        ),
        (
            rule("deny", "command = [\"/usr/bin/\", { rest = true }]"),
            "line 4: a program that ends in a slash is a folder",
        ),
        (
            rule("allow", "command = [\"/\"]"),
            "line 4: a program that ends in a slash",
        ),
        (
            rule("deny", "command = [\"rm\", { like = \"/etc/*\" }]"),
            "line 4: `like` must be printable ASCII without a slash",
        ),
        (
            rule("deny", "command = [\"rm\", { like = \"é*\" }]"),
            "line 4: `like` must be printable ASCII",
        ),
        (
            rule("deny", "command = [\"rm\"]\ntool = \"a/b\""),
            "line 2: a rule names at most one of `command`, `tool` and `secret`",
        ),
        (
            rule("deny", "tool = \"files\""),
            "line 4: `tool` must be \"server/tool\", or \"server/\"",
        ),
        (rule("deny", "tool = \"/read\""), "line 4: `tool` must be"),
        (rule("deny", "secret = \"A B\""), "line 4: `secret`: A B is not a name"),
        (
            rule("deny", "agents = [\"Butler\"]"),
            "line 4: `agents`: Butler is not a name",
        ),
        (
            rule("permit", ""),
            "line 3: a rule's `effect` must be \"deny\", \"ask\" or \"allow\"",
        ),
        (
            "[[rule]]\nusers = [\"a\"]".to_owned(),
            "line 1: a rule's `effect` must be",
        ),
        (
            "mode = \"open\"".to_owned(),
            "line 1: `mode` must be \"deny\", \"allowlist\" or \"full\"",
        ),
        ("mode = { full = {} }".to_owned(), "line 1: `mode` must be a string"),
        (
            "[[layer]]\nmode = \"deny\"".to_owned(),
            "line 1: a layer is for exactly one",
        ),
        (
            "[[layer]]\nagent = \"a\"\nuser = \"b\"\nmode = \"deny\"".to_owned(),
            "line 1: a layer is for exactly one",
        ),
        ("[[layer]]\nagent = \"a\"".to_owned(), "line 1: a layer without `mode`"),
        ("[layer]\nagent = \"a\"".to_owned(), "line 1: `layer` must be a list"),
        ("rule = [[\"allow\"]]".to_owned(), "line 1: `rule` must be a table"),
        (
            rule("deny", "until = 2027-01-01"),
            "line 4: `until` must be a date, a time and an offset",
        ),
        (rule("deny", "until = 2027-01-01T00:00:00"), "line 4: `until` must be"),
        (
            rule("deny", "until = \"2027-01-01T00:00:00Z\""),
            "line 4: `until` must be",
        ),
        (rule("deny", "until = 2027-01-01T00:00Z"), "line 4: `until` must be"),
        (
            rule("deny", "command = [\"rm\", { rest = true, }]"),
            "line 4: a comma before a closing brace is TOML 1.1, a policy is TOML 1.0",
        ),
        (rule("deny", "effect = \"ask\""), "line 4: "),
        ("a = \n".to_owned(), "line 1: "),
        ("\n\nmode = \"full".to_owned(), "line 3: "),
    ] {
        let error = refused(&text);
        assert!(error.starts_with(expected), "{error}\n  expected {expected}\n{text}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn a_list_of_texts_is_bounded_as_texts_are() {
    let user = |bytes: usize| rule("deny", &format!("users = [\"{}\"]", "a".repeat(bytes)));
    policy(&user(1024));
    assert!(refused(&user(1025)).starts_with("line 4: `users` holds a text longer than 1024 bytes"));
}

#[test]
fn a_policy_fits_a_roster() {
    let padded = |bytes: usize| format!("#{}", "x".repeat(bytes - 1));
    policy(&padded(POLICY_BYTES));
    assert_eq!(
        Policy::parse(&padded(POLICY_BYTES + 1)).unwrap_err(),
        PolicyError::TooLong(POLICY_BYTES + 1)
    );
    assert!(Policy::parse_unbounded(&padded(POLICY_BYTES + 1)).is_ok());
}

#[test]
fn it_has_at_most_1024_rules_of_64_elements() {
    let rules = |count: usize| format!("rule=[{}]", "{effect='ask'},".repeat(count));
    // As short as a rule can be, 1,024 of them are a few bytes less than a policy may have.
    policy(&rules(1024));
    let error = read::read(&rules(1025), read::RULES).map(|_| ()).unwrap_err();
    assert_eq!(error.to_string(), "line 1: more than 1024 rules");
    let elements = |count: usize| rule("deny", &format!("command = [\"rm\"{}]", ", \"a\"".repeat(count - 1)));
    policy(&elements(64));
    assert!(refused(&elements(65)).starts_with("line 4: a `command` of more than 64 elements"));
}

#[test]
fn an_error_shows_nothing_that_a_terminal_would_obey() {
    let error = refused("\"\\u001b[2J\" = 1");
    assert!(
        error.chars().all(|character| ('\x20'..='\x7e').contains(&character)),
        "{error:?}"
    );
    let error = refused("a = \u{1b}");
    assert!(
        error.chars().all(|character| ('\x20'..='\x7e').contains(&character)),
        "{error:?}"
    );
}

#[test]
fn lists_of_people_times_lists_of_places_fill_no_memory() {
    let list = |letter: char| {
        let all: Vec<String> = (0..400).map(|n| format!("\"{letter}{n}\"")).collect();
        format!("[{}]", all.join(","))
    };
    let text = format!(
        "[[rule]]\neffect = \"ask\"\nagents = {}\nusers = {}\nconversations = {}\nplatforms = {}\n",
        list('a'),
        list('u'),
        list('c'),
        list('p')
    );
    let policy = policy(&text);
    let asked_by = AskedBy {
        agent: name("a399"),
        under: Vec::new(),
        user: Some(super::text("u1")),
        conversation: Some(super::text("c2")),
        platform: Some(super::text("p3")),
    };
    let judged = policy.judge(&secret("s"), &asked_by, at(NOON), &Log::default());
    assert_eq!(judged.effect, Effect::Ask { rule: Some(0) });
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "[\\[\\]{}=\"',#.a-z\n0-9\\\\ éx*]{0,80}") {
        let _ = Policy::parse(&text);
        let _ = Policy::parse(&format!("[[rule]]\neffect = \"allow\"\ncommand = [{text}]"));
    }
}
