//! The words by which a person answers: yes, no, once, always, and the signs that stand for them. Whatever isn't plainly
//! one of them is no answer: a condition can't be signed. Not here: what an answer leads to (`watch`, `admin`).

/// What somebody said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// This one time.
    Once,
    /// From now on too.
    Always,
    /// What another admin would grant, from now on too.
    AlwaysSame,
    /// No, and why.
    Deny(String),
    /// Later.
    Skip,
    /// Enough.
    Quit,
}

/// What was typed, if it was an answer: to what is asked, or to those of the list that are named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    /// Numbers in the list; none for what is asked.
    pub(super) which: Vec<usize>,
    /// The answer.
    pub(super) word: Word,
}

/// Why something isn't an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoAnswer {
    /// Nothing, or numbers alone.
    #[error("say yes, always, no or skip")]
    Nothing,
    /// Something else.
    #[error("`{0}` is no answer: say yes (this once), always, no and why, skip, or quit")]
    Unknown(String),
    /// More words than can be signed.
    #[error("nothing was answered: an approval has no conditions; say yes or always alone, or no and why")]
    Condition,
}

/// Reads a line.
pub(super) fn read(line: &str) -> Result<Said, NoAnswer> {
    let (which, rest) = numbers(line.trim());
    let word = word(rest)?;
    Ok(Said { which, word })
}

/// The numbers at the beginning, between commas or spaces.
fn numbers(line: &str) -> (Vec<usize>, &str) {
    let between = |character: char| character == ',' || character.is_whitespace();
    let mut which = Vec::new();
    let mut rest = line;
    loop {
        let end = rest.find(between).unwrap_or(rest.len());
        let (first, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
        let Some(number) = number(first) else {
            return (which, rest);
        };
        if !which.contains(&number) {
            which.push(number);
        }
        rest = after.trim_start_matches(between);
    }
}

/// Up to three digits: `421` typed too early is no number of the list, but no word either.
fn number(text: &str) -> Option<usize> {
    let digits = !text.is_empty() && text.len() <= 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// One answer without numbers.
pub(super) fn word(text: &str) -> Result<Word, NoAnswer> {
    let text = text.trim();
    let (first, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let rest = rest.trim();
    let alone = |word: Word| {
        if rest.is_empty() {
            Ok(word)
        } else {
            Err(NoAnswer::Condition)
        }
    };
    match plain(first).as_str() {
        "" if first.is_empty() => Err(NoAnswer::Nothing),
        "y" | "yes" | "ok" | "okay" | "once" | "approve" | "👍" | "✅" => alone(Word::Once),
        "always" if plain(rest) == "same" => Ok(Word::AlwaysSame),
        "always" => alone(Word::Always),
        "n" | "no" | "deny" | "❌" | "👎" | "✖" | "🚫" | "⛔" => Ok(Word::Deny(rest.to_owned())),
        "s" | "skip" => alone(Word::Skip),
        "q" | "quit" => alone(Word::Quit),
        _ => Err(NoAnswer::Unknown(approval::escape::escape(first))),
    }
}

/// In small letters, without the punctuation behind it, and a sign without what only colours it: skin, and text or
/// picture.
fn plain(word: &str) -> String {
    let coloured = |character: char| matches!(character, '\u{fe0e}' | '\u{fe0f}' | '\u{1f3fb}'..='\u{1f3ff}');
    let punctuation = |character: char| matches!(character, '.' | '!' | ',' | ';' | ':');
    word.trim_end_matches(punctuation)
        .trim_end_matches(coloured)
        .to_lowercase()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn the_words_that_people_know() {
        for yes in [
            "y", "Yes", "YES!", "ok", "ok.", "okay", "once", "approve", "👍", "👍🏽", "👍️", "✅", "✅️", " y ",
        ] {
            assert_eq!(word(yes), Ok(Word::Once), "{yes}");
        }
        for no in ["n", "No", "no.", "deny", "❌", "❌️", "👎🏿", "⛔", "🚫"] {
            assert_eq!(word(no), Ok(Word::Deny(String::new())), "{no}");
        }
        assert_eq!(word("always"), Ok(Word::Always));
        assert_eq!(word("Always same"), Ok(Word::AlwaysSame));
        assert_eq!((word("skip"), word("q")), (Ok(Word::Skip), Ok(Word::Quit)));
    }

    #[test]
    fn a_denial_takes_its_reason_along() {
        for (line, why) in [
            ("no ask the owner first", "ask the owner first"),
            ("n, not on a friday", "not on a friday"),
            ("❌ wrong branch", "wrong branch"),
            ("deny   yes", "yes"),
        ] {
            assert_eq!(word(line), Ok(Word::Deny(why.to_owned())), "{line}");
        }
    }

    #[test]
    fn whatever_is_not_plainly_an_answer_is_none() {
        for line in [
            "yess",
            "ye",
            "yeah",
            "nope",
            "alway",
            "alwyas",
            "a",
            "maybe",
            "oui",
            "👌",
            "👍👎",
            "✅❌",
            "👍ok",
            "yes-no",
            "ｙ",
            "у",
            "y?",
            "1",
            "../y",
            "y\u{200b}",
        ] {
            assert!(
                matches!(read(line), Err(NoAnswer::Unknown(_) | NoAnswer::Nothing)),
                "{line}"
            );
        }
        assert_eq!(read(""), Err(NoAnswer::Nothing));
        assert_eq!(read("  "), Err(NoAnswer::Nothing));
    }

    #[test]
    fn an_approval_has_no_conditions() {
        for line in [
            "y but only once",
            "yes no",
            "always please",
            "always 1h",
            "ok?? no",
            "skip it",
        ] {
            assert!(
                matches!(read(line), Err(NoAnswer::Condition | NoAnswer::Unknown(_))),
                "{line}"
            );
        }
    }

    #[test]
    fn a_list_is_named_by_its_numbers() {
        let said = |line: &str| read(line).map(|said| (said.which, said.word));
        assert_eq!(said("1,3 deny"), Ok((vec![1, 3], Word::Deny(String::new()))));
        assert_eq!(said("1 2 yes"), Ok((vec![1, 2], Word::Once)));
        assert_eq!(
            said("1, 2,2 no too many"),
            Ok((vec![1, 2], Word::Deny("too many".to_owned())))
        );
        assert_eq!(said("2 👍"), Ok((vec![2], Word::Once)));
        assert_eq!(said("1,3"), Err(NoAnswer::Nothing));
        assert!(said("1-3 yes").is_err() && said("all yes").is_err() && said("1234 yes").is_err());
    }

    #[test]
    fn what_is_said_back_is_harmless() {
        let Err(said) = read("\u{1b}[2J") else { panic!() };
        assert!(!said.to_string().contains('\u{1b}'));
    }
}
