//! What a grant covers, in words: one plain sentence that its admin reads before signing, and that everybody reads in
//! every list afterwards (PROTOCOL.md 8.7). Not here: what may be granted (`approval::grant`).

use approval::Time;
use approval::action::{Action, Command};
use approval::escape::escape_field;
use approval::grant::Terms;
use approval::render::utc;
use approval::request::Request;

/// How an argument that was left open is shown.
const ANY: &str = "<any>";

/// The action in one line, with what was left open. An argument that reads like the sign for it has its first character
/// escaped: nothing else may look like a blank.
pub fn granted(request: &Request, terms: &Terms) -> String {
    match &request.action {
        Action::Command(command) => arguments(command, terms),
        _ => super::summary(request, None),
    }
}

fn arguments(command: &Command, terms: &Terms) -> String {
    let argument = |(at, argument): (usize, &approval::ByteString)| {
        if is_blank(terms, at) {
            return ANY.to_owned();
        }
        let shown = escape_field(argument.as_bytes());
        if shown == ANY {
            shown.replacen('<', "\\u{3c}", 1)
        } else {
            shown
        }
    };
    let shown: Vec<String> = command.argv.iter().enumerate().map(argument).collect();
    shown.join(" ")
}

fn is_blank(terms: &Terms, at: usize) -> bool {
    u32::try_from(at).is_ok_and(|at| terms.blanks.contains(&at))
}

/// How far it reaches, without the action: `exactly so, for 1 h (until …), at most 5 times, for everybody who asks
/// through butler`. `from` is when it was offered.
pub fn reach(terms: &Terms, request: &Request, from: Time) -> String {
    let mut parts = vec![what(terms)];
    parts.push(match terms.not_after {
        Some(end) => {
            let left = super::duration(end.millis().saturating_sub(from.millis()));
            format!("for {left} (until {})", utc(end))
        }
        None => "without end".to_owned(),
    });
    match terms.uses {
        Some(1) => parts.push("once".to_owned()),
        Some(uses) => parts.push(format!("at most {uses} times")),
        None => {}
    }
    parts.push(whom(terms, request));
    parts.join(", ")
}

fn what(terms: &Terms) -> String {
    let open: Vec<String> = terms.blanks.iter().map(|at| format!("argv[{at}]")).collect();
    match open.len() {
        0 => "exactly so".to_owned(),
        _ => format!("with any plain word in place of {}", open.join(" and ")),
    }
}

fn whom(terms: &Terms, request: &Request) -> String {
    let asked = &request.asked_by;
    let mut text = match (&asked.user, terms.user) {
        (Some(user), true) => format!("only when {} asks", escape_field(user.as_untrusted().as_bytes())),
        (None, true) => "only when no user is named".to_owned(),
        (_, false) => "whoever asks".to_owned(),
    };
    match (&asked.conversation, terms.conversation) {
        (Some(place), true) => {
            text.push_str(" in the conversation ");
            text.push_str(&escape_field(place.as_untrusted().as_bytes()));
        }
        (None, true) => text.push_str(" outside every conversation"),
        (_, false) => {}
    }
    text.push_str(&format!(" through the agent {}", asked.agent));
    if let Some(nearest) = asked.under.last() {
        text.push_str(&format!(" (for {nearest})"));
    }
    text
}

/// The whole sentence, as it is read before signing.
pub fn sentence(request: &Request, terms: &Terms, now: Time) -> String {
    let place = match &request.action {
        Action::Command(command) => format!(
            " in {} as uid {}",
            escape_field(command.directory.path.as_bytes()),
            command.uid
        ),
        _ => String::new(),
    };
    format!(
        "from now on without asking: {}{place}, {}",
        granted(request, terms),
        reach(terms, request, now)
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;
    use crate::show::example;

    #[test]
    fn the_sentence_says_everything_that_is_granted() {
        let request = example::request(&["git", "push", "origin", "main"]);
        let mut terms = Terms::exact();
        assert_eq!(
            sentence(&request, &terms, request.created),
            "from now on without asking: git push origin main in /srv/app as uid 1000, exactly so, without end, \
             whoever asks through the agent butler"
        );
        terms.blanks = vec![2, 3];
        terms.uses = Some(5);
        terms.user = true;
        terms.conversation = true;
        terms.not_after = Time::from_millis(request.created.millis() + 3_600_000).ok();
        assert_eq!(
            sentence(&request, &terms, request.created),
            "from now on without asking: git push <any> <any> in /srv/app as uid 1000, with any plain word in place of \
             argv[2] and argv[3], for 1 h (until 2027-01-15 09:00:00Z), at most 5 times, only when erin asks in the \
             conversation ops through the agent butler"
        );
    }

    #[test]
    fn nothing_else_looks_like_a_blank() {
        let request = example::request(&["grep", "<any>", "file"]);
        let terms = Terms {
            blanks: vec![2],
            ..Terms::exact()
        };
        assert_eq!(granted(&request, &terms), "grep \\u{3c}any> <any>");
    }

    #[test]
    fn who_was_not_named_is_said() {
        let mut request = example::request(&["true"]);
        request.asked_by.user = None;
        request.asked_by.conversation = None;
        let terms = Terms {
            user: true,
            conversation: true,
            uses: Some(1),
            ..Terms::exact()
        };
        assert_eq!(
            reach(&terms, &request, request.created),
            "exactly so, without end, once, only when no user is named outside every conversation through the agent butler"
        );
    }
}
