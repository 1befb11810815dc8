//! Letters that look like others (F07): where the path of a program or the name of a host holds any that aren't ASCII,
//! that is said, and a host is also shown in punycode, the form in which it is looked up. Not here: escaping.

use approval::action::Action;

/// Warnings about an action, one line each.
pub(super) fn warnings(action: &Action) -> Vec<String> {
    match action {
        Action::Command(command) => {
            let files = std::iter::once(("executable", &command.executable))
                .chain(command.interpreter.iter().map(|file| ("interpreter", file)));
            files
                .filter_map(|(what, file)| {
                    let letters = foreign(&String::from_utf8_lossy(file.path.as_bytes()))?;
                    Some(format!("WARNING: the path of the {what} holds {letters}"))
                })
                .collect()
        }
        Action::Tool(call) => {
            let names = [("server", &call.server), ("tool", &call.tool)];
            names
                .into_iter()
                .filter_map(|(what, name)| {
                    let letters = foreign(name.as_untrusted())?;
                    Some(format!("WARNING: the name of the {what} holds {letters}"))
                })
                .collect()
        }
        Action::Secret(secret) => {
            let host = secret.host.as_untrusted();
            let warn = |letters| {
                format!(
                    "WARNING: the host's name holds {letters}; it is looked up as {}",
                    punycode(host)
                )
            };
            foreign(host).map(warn).into_iter().collect()
        }
        Action::Roster(_) => Vec::new(),
    }
}

/// What isn't ASCII, each once, named by its number; none where all is.
fn foreign(text: &str) -> Option<String> {
    let mut found: Vec<String> = Vec::new();
    for character in text.chars().filter(|character| !character.is_ascii()) {
        let named = format!("U+{:04X}", u32::from(character));
        if !found.contains(&named) {
            found.push(named);
        }
    }
    let mixed = if text.chars().any(|character| character.is_ascii_alphabetic()) {
        " among them: they may look like others"
    } else {
        ""
    };
    (!found.is_empty()).then(|| format!("characters that aren't ASCII ({}){mixed}", found.join(", ")))
}

/// A host's name in ASCII, label by label (RFC 3492). Not normalised first: it is for the eye, not for a resolver.
fn punycode(host: &str) -> String {
    let label = |label: &str| {
        if label.is_ascii() {
            return approval::escape::escape(label);
        }
        encode(label).map_or_else(
            || "nothing: it is no host's name".to_owned(),
            |text| format!("xn--{text}"),
        )
    };
    host.split('.').map(label).collect::<Vec<_>>().join(".")
}

/// RFC 3492, section 6.3. `None` where a number overflows, which takes a label longer than any host's.
fn encode(label: &str) -> Option<String> {
    let mut text: String = label.chars().filter(char::is_ascii).collect();
    let basic = u32::try_from(text.len()).ok()?;
    let length = u32::try_from(label.chars().count()).ok()?;
    if basic > 0 {
        text.push('-');
    }
    let (mut next, mut delta, mut bias, mut handled) = (128_u32, 0_u32, 72_u32, basic);
    while handled < length {
        let lowest = label.chars().map(u32::from).filter(|code| *code >= next).min()?;
        delta = delta.checked_add((lowest - next).checked_mul(handled + 1)?)?;
        next = lowest;
        for code in label.chars().map(u32::from) {
            if code < next {
                delta = delta.checked_add(1)?;
            }
            if code == next {
                digits(&mut text, delta, bias)?;
                bias = adapted(delta, handled + 1, handled == basic);
                delta = 0;
                handled += 1;
            }
        }
        delta = delta.checked_add(1)?;
        next = next.checked_add(1)?;
    }
    Some(text)
}

fn digits(text: &mut String, delta: u32, bias: u32) -> Option<()> {
    let mut rest = delta;
    let mut k = 36_u32;
    loop {
        let threshold = k.saturating_sub(bias).clamp(1, 26);
        if rest < threshold {
            text.push(digit(rest)?);
            return Some(());
        }
        text.push(digit(threshold + (rest - threshold) % (36 - threshold))?);
        rest = (rest - threshold) / (36 - threshold);
        k = k.checked_add(36)?;
    }
}

fn digit(value: u32) -> Option<char> {
    let value = u8::try_from(value).ok()?;
    Some(char::from(if value < 26 { b'a' + value } else { b'0' + (value - 26) }))
}

fn adapted(delta: u32, points: u32, first: bool) -> u32 {
    let mut delta = if first { delta / 700 } else { delta / 2 };
    delta += delta / points.max(1);
    let mut k = 0;
    while delta > 455 {
        delta /= 35;
        k += 36;
    }
    k + 36 * delta / (delta + 38)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;
    use crate::show::example;

    #[test]
    fn a_path_with_a_cyrillic_letter_is_flagged() {
        let mut request = example::request(&["git"]);
        assert!(warnings(&request.action).is_empty());
        let Action::Command(command) = &mut request.action else {
            panic!()
        };
        command.executable.path = approval::ByteString::new("/usr/bin/g\u{456}t").unwrap();
        assert_eq!(
            warnings(&request.action),
            [
                "WARNING: the path of the executable holds characters that aren't ASCII (U+0456) among them: they may look like others"
            ]
        );
    }

    #[test]
    fn a_host_is_shown_as_it_is_looked_up() {
        for (host, looked_up) in [
            ("b\u{fc}cher.example", "xn--bcher-kva.example"),
            (
                "\u{43f}\u{440}\u{438}\u{43c}\u{435}\u{440}.example",
                "xn--e1afmkfd.example",
            ),
            ("xn--e1afmkfd", "xn--e1afmkfd"),
            ("p\u{430}yp\u{430}l.com", "xn--pypl-53dc.com"),
            ("plain.example", "plain.example"),
        ] {
            assert_eq!(punycode(host), looked_up);
        }
    }
}
