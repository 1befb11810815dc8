//! A command line as people write it down, cut into arguments where no shell is needed for that. Not here: a shell. A line that
//! needs one (pipes, redirections, substitutions, globs, built-ins) is left whole.

/// What a shell does itself: there is no program of that name to run, or not one that has the effect.
const BUILT_IN: &[&str] = &[
    "alias", "bg", "cd", "command", "eval", "exec", "export", "fg", "for", "help", "history", "if", "jobs", "set",
    "source", "type", "ulimit", "umask", "unset", "while", ".", ":",
];

/// The arguments of a line, or `None` if a shell must read it.
pub(super) fn split(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut rest = line.chars();
    while let Some(next) = rest.next() {
        match next {
            ' ' | '\t' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next()? {
                        '\'' => break,
                        other => word.push(other),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next()? {
                        '"' => break,
                        '$' | '`' => return None,
                        '\\' => match rest.next()? {
                            kept @ ('"' | '\\' | '$' | '`') => word.push(kept),
                            other => word.extend(['\\', other]),
                        },
                        other => word.push(other),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(rest.next()?),
            '|' | '&' | ';' | '<' | '>' | '(' | ')' | '$' | '`' | '*' | '?' | '[' | '\n' | '\r' => return None,
            '~' if word.is_none() => return None,
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    let first = words.first()?;
    // `NAME=value program` sets the environment: only a shell reads it so.
    (!first.contains('=') && !BUILT_IN.contains(&first.as_str())).then_some(words)
}

#[test]
fn quotes_and_escapes_are_read_as_a_shell_reads_them() {
    let words = |line: &str| split(line).unwrap();
    assert_eq!(words("git commit -m 'fix it'"), ["git", "commit", "-m", "fix it"]);
    assert_eq!(
        words(r##"echo "a \"b\" \n" c\ d '' """##),
        ["echo", r#"a "b" \n"#, "c d", "", ""]
    );
    assert_eq!(words("find . -exec rm {} ';'"), ["find", ".", "-exec", "rm", "{}", ";"]);
    assert_eq!(words("git show HEAD~1"), ["git", "show", "HEAD~1"]);
}

#[test]
fn what_a_shell_would_change_takes_a_shell() {
    for line in [
        "a | b", "a; b", "a & b", "a > b", "a < b", "a $B", "a \"$B\"", "a `b`", "a *", "a ?", "a [b]", "ls ~", "cd x",
        "A=b c", "a (b", "a 'b", "a \"b", "a \\",
    ] {
        assert_eq!(split(line), None, "{line}");
    }
}
