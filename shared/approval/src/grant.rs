//! The kind `grant`: a standing permission that the admins gave beside one approval (PROTOCOL.md 8.7). What it covers is
//! the cited request's action, literally, but for the arguments that they left blank: a grant holds no pattern. Not here:
//! whether it still stands (`standing`), and what rests on it (`decide`).

use wire::identity::PartyId;

use crate::action::{Action, Command, Limits, Mark};
use crate::json::object;
use crate::policy::is_plain;
use crate::request::{AskedBy, Request};
use crate::scalar::{Digest, Time};
use crate::statement::{Kind, Payload};

object! {
    /// What a grant covers beside the action itself, and for how long.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Terms {
        /// Positions of arguments that may be any plain one, ascending.
        pub blanks: Vec<u32>,
        /// Only for the same user.
        pub user: bool,
        /// Only in the same conversation.
        pub conversation: bool,
        /// Until and including this time, by the gate's clock.
        pub not_after: Option<Time>,
        /// So many permits.
        pub uses: Option<u32>,
    }
}

object! {
    /// A standing permission.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Grant v 1 {
        /// The digest of the request whose like is granted.
        pub request: Digest,
        /// The digest of the roster by which it was given.
        pub roster: Digest,
        /// The approvals that carry it, in transcript order, one for each person.
        pub decisions: Vec<Digest>,
        /// What it covers.
        pub terms: Terms,
        /// When, by the gate's clock.
        pub time: Time,
    }
}

/// The most permits of one grant.
pub const USES: u32 = (1 << 31) - 1;

/// Why an action can't be granted so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotGrantable {
    /// A change of roster is decided each time.
    #[error("a change of the roster is never granted")]
    Roster,
    /// Somebody could put something else in its place, or it runs as somebody else.
    #[error("a program that is setuid, or that others than root can change, is never granted")]
    Mark,
    /// What it runs stands in its arguments.
    #[error("a program that runs other programs is granted only exactly as it is, without blanks")]
    Runner,
    /// No such argument, or one that no blank would match.
    #[error("a blank stands for one argument without / and space that doesn't begin with -")]
    Blank,
    /// Only arguments of commands can be blank.
    #[error("only a command has arguments to leave blank")]
    NoCommand,
}

impl Terms {
    /// This action exactly, without end.
    pub fn exact() -> Self {
        Self {
            blanks: Vec::new(),
            user: false,
            conversation: false,
            not_after: None,
            uses: None,
        }
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        let ascending = self
            .blanks
            .iter()
            .zip(self.blanks.iter().skip(1))
            .all(|(one, next)| one < next);
        let rules = [
            (
                ascending && self.blanks.first() != Some(&0),
                "blanks not ascending, or argv[0] among them",
            ),
            (
                !self.uses.is_some_and(|uses| uses == 0 || uses > USES),
                "uses of a grant beyond 1 to 2^31 - 1",
            ),
        ];
        rules
            .into_iter()
            .try_for_each(|(kept, rule)| if kept { Ok(()) } else { Err(rule.to_owned()) })
    }

    /// Whether the admins may grant what is like this action, on these terms.
    ///
    /// # Errors
    /// [`NotGrantable`].
    pub fn may_cover(&self, action: &Action) -> Result<(), NotGrantable> {
        let command = match action {
            Action::Roster(_) => return Err(NotGrantable::Roster),
            Action::Tool(_) | Action::Secret(_) if self.blanks.is_empty() => return Ok(()),
            Action::Tool(_) | Action::Secret(_) => return Err(NotGrantable::NoCommand),
            Action::Command(command) => command,
        };
        if command.has(Mark::Setuid) || command.has(Mark::Writable) {
            return Err(NotGrantable::Mark);
        }
        if self.blanks.is_empty() {
            return Ok(());
        }
        if [Mark::Runner, Mark::Shell, Mark::Odd]
            .iter()
            .any(|mark| command.has(*mark))
            || command.interpreter.is_some()
        {
            return Err(NotGrantable::Runner);
        }
        let plain = |at: &u32| {
            let argument = command.argv.get(*at as usize);
            *at > 0 && argument.is_some_and(|argument| is_plain(argument.as_bytes()))
        };
        if self.blanks.iter().all(plain) {
            Ok(())
        } else {
            Err(NotGrantable::Blank)
        }
    }

    /// Whether `action`, asked by `asked_by`, is what these terms cover beside `granted` itself. Not looked at: time and uses.
    pub fn cover(&self, granted: &Request, action: &Action, asked_by: &AskedBy) -> bool {
        let whom = &granted.asked_by;
        whom.agent == asked_by.agent
            && whom.under == asked_by.under
            && (!self.user || whom.user == asked_by.user)
            && (!self.conversation || whom.conversation == asked_by.conversation)
            && self.is_like(&granted.action, action)
    }

    fn is_like(&self, granted: &Action, asked: &Action) -> bool {
        match (granted, asked) {
            (Action::Command(granted), Action::Command(asked)) => self.is_like_command(granted, asked),
            (Action::Tool(granted), Action::Tool(asked)) => granted == asked,
            (Action::Secret(granted), Action::Secret(asked)) => granted == asked,
            _ => false,
        }
    }

    fn is_like_command(&self, granted: &Command, asked: &Command) -> bool {
        let blank = |at: usize| u32::try_from(at).is_ok_and(|at| self.blanks.binary_search(&at).is_ok());
        let argument = |at: usize, asked: &[u8], granted: &[u8]| {
            if blank(at) { is_plain(asked) } else { asked == granted }
        };
        let file = |file: &crate::action::Bound| (file.path.clone(), file.sha256);
        let operands = |command: &Command| -> Vec<_> {
            let compared = command
                .operands
                .iter()
                .filter(|operand| !blank(operand.argument as usize));
            compared
                .map(|operand| (operand.argument, file(&operand.file)))
                .collect()
        };
        file(&granted.executable) == file(&asked.executable)
            && granted.interpreter.as_ref().map(file) == asked.interpreter.as_ref().map(file)
            && granted.argv.len() == asked.argv.len()
            && granted
                .argv
                .iter()
                .zip(&asked.argv)
                .enumerate()
                .all(|(at, (granted, asked))| argument(at, asked.as_bytes(), granted.as_bytes()))
            && granted.env == asked.env
            && granted.directory.path == asked.directory.path
            && granted.stdin == asked.stdin
            && operands(granted) == operands(asked)
            && granted.uid == asked.uid
            && granted.marks == asked.marks
            && asked.limits.within(&granted.limits)
    }
}

impl Limits {
    /// Whether none of these is larger. A memory limit of 0 is the largest.
    pub fn within(&self, other: &Self) -> bool {
        let memory = |limits: &Self| match limits.memory_bytes {
            0 => u64::MAX,
            bytes => bytes,
        };
        self.wall_ms <= other.wall_ms && self.output_bytes <= other.output_bytes && memory(self) <= memory(other)
    }
}

impl Payload for Grant {
    const KIND: Kind = Kind::Grant;

    fn party(&self) -> Option<PartyId> {
        None
    }

    fn check(&self) -> Result<(), String> {
        self.terms.check()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    use crate::action::{Input, Operand, Stdin};
    use crate::sample::*;
    use crate::scalar::Text;

    fn blank(blanks: &[u32]) -> Terms {
        Terms {
            blanks: blanks.to_vec(),
            ..Terms::exact()
        }
    }

    fn may(terms: &Terms, edit: impl FnOnce(&mut Command)) -> Result<(), NotGrantable> {
        let mut command = plain_command();
        edit(&mut command);
        terms.may_cover(&Action::Command(command))
    }

    /// Whether a grant of `granted` covers the same after `edit`.
    fn covers(terms: &Terms, granted: &Command, edit: &dyn Fn(&mut Command)) -> bool {
        let request = request_with(&team(), |request| request.action = Action::Command(granted.clone()));
        let mut asked = granted.clone();
        edit(&mut asked);
        terms.cover(&request, &Action::Command(asked), &request.asked_by)
    }

    #[test]
    fn terms_are_ascending_and_bounded() {
        assert!(blank(&[1, 2, 7]).check().is_ok());
        for bad in [&[0][..], &[2, 1], &[1, 1], &[0, 1]] {
            assert!(blank(bad).check().is_err(), "{bad:?}");
        }
        let uses = |uses| {
            let terms = Terms {
                uses: Some(uses),
                ..Terms::exact()
            };
            terms.check().is_ok()
        };
        assert!(uses(1) && uses(USES) && !uses(0) && !uses(USES + 1));
    }

    #[test]
    fn what_others_can_change_and_what_runs_as_another_is_never_granted() {
        for mark in [Mark::Setuid, Mark::Writable] {
            for terms in [Terms::exact(), blank(&[2])] {
                assert_eq!(
                    may(&terms, |command| command.marks = vec![mark]),
                    Err(NotGrantable::Mark)
                );
            }
        }
        let roster = Action::Roster(team().contents());
        assert_eq!(Terms::exact().may_cover(&roster), Err(NotGrantable::Roster));
    }

    /// D33.
    #[test]
    fn a_program_that_runs_others_is_granted_only_as_it_is() {
        for mark in [Mark::Runner, Mark::Shell, Mark::Odd] {
            assert_eq!(may(&Terms::exact(), |command| command.marks = vec![mark]), Ok(()));
            assert_eq!(
                may(&blank(&[2]), |command| command.marks = vec![mark]),
                Err(NotGrantable::Runner)
            );
        }
        let python = |command: &mut Command| command.interpreter = Some(bound("/usr/bin/python3", 5));
        assert_eq!(
            (may(&Terms::exact(), python), may(&blank(&[2]), python)),
            (Ok(()), Err(NotGrantable::Runner))
        );
    }

    #[test]
    fn a_blank_is_one_plain_argument() {
        assert_eq!(may(&blank(&[2]), |_| {}), Ok(()));
        assert_eq!(may(&blank(&[1]), |command| command.argv[1] = bytes("to")), Ok(()));
        // --to is an option, 3 isn't there.
        for bad in [&[1][..], &[3], &[0], &[2, 3]] {
            assert_eq!(may(&blank(bad), |_| {}), Err(NotGrantable::Blank), "{bad:?}");
        }
        assert_eq!(
            may(&blank(&[2]), |command| command.argv[2] = bytes("a/b")),
            Err(NotGrantable::Blank)
        );
        let tool = Action::Tool(tool_call());
        assert_eq!(Terms::exact().may_cover(&tool), Ok(()));
        assert_eq!(blank(&[1]).may_cover(&tool), Err(NotGrantable::NoCommand));
        assert_eq!(Terms::exact().may_cover(&Action::Secret(secret_use())), Ok(()));
    }

    #[test]
    fn a_command_is_like_itself_and_like_nothing_else() {
        let exact = Terms::exact();
        let mut granted = plain_command();
        granted.operands = vec![Operand {
            argument: 2,
            file: bound("/srv/app/production", 4),
        }];
        assert!(covers(&exact, &granted, &|_| {}));
        // The same file under another inode is the same: its bytes are compared.
        assert!(covers(&exact, &granted, &|it| {
            it.executable.inode.number += 1;
            it.directory.inode.number += 1;
            it.operands[0].file.inode.number += 1;
        }));
        let others: [&dyn Fn(&mut Command); 15] = [
            &|it| it.executable.path = bytes("/bin/deploy"),
            &|it| it.executable.sha256 = Digest::of(b"other"),
            &|it| it.interpreter = Some(bound("/bin/sh", 1)),
            &|it| it.argv[0] = bytes("x"),
            &|it| it.argv[2] = bytes("staging"),
            &|it| it.argv.push(bytes("x")),
            &|it| drop(it.env.pop()),
            &|it| it.directory.path = bytes("/srv"),
            &|it| {
                it.stdin = Stdin::Bytes(Input {
                    sha256: Digest::of(b""),
                    bytes: 0,
                });
            },
            &|it| it.operands.clear(),
            &|it| it.operands[0].argument = 1,
            &|it| it.operands[0].file.sha256 = Digest::of(b"other"),
            &|it| it.uid = 0,
            &|it| it.marks = vec![Mark::Runner],
            &|it| it.limits.memory_bytes = 0,
        ];
        for (at, edit) in others.iter().enumerate() {
            assert!(!covers(&exact, &granted, edit), "{at}");
        }
    }

    #[test]
    fn a_blank_leaves_its_operand_open_and_no_other() {
        let mut granted = plain_command();
        granted.argv.push(bytes("now"));
        granted.operands = [2, 3]
            .map(|argument| Operand {
                argument,
                file: bound("/srv/app/x", 4),
            })
            .to_vec();
        let terms = blank(&[2]);
        assert!(covers(&terms, &granted, &|it| {
            it.argv[2] = bytes("staging");
            it.operands.remove(0);
        }));
        assert!(!covers(&terms, &granted, &|it| drop(it.operands.pop())));
        assert!(!covers(&terms, &granted, &|it| it.argv[3] = bytes("later")));
        for hostile in ["-rf", "../x", "a b", "", "\u{e9}"] {
            assert!(
                !covers(&terms, &granted, &|it| it.argv[2] = bytes(hostile)),
                "{hostile}"
            );
        }
    }

    #[test]
    fn it_is_for_whom_it_says() {
        let request = request_with(&team(), |request| {
            request.asked_by.conversation = Some(Text::new("ops").unwrap());
        });
        let with = |user, conversation| Terms {
            user,
            conversation,
            ..Terms::exact()
        };
        let covers = |terms: &Terms, edit: &dyn Fn(&mut AskedBy)| {
            let mut asked_by = request.asked_by.clone();
            edit(&mut asked_by);
            terms.cover(&request, &request.action, &asked_by)
        };
        let user = &|it: &mut AskedBy| it.user = Some(Text::new("mallory").unwrap());
        let conversation = &|it: &mut AskedBy| it.conversation = None;
        assert!(covers(&with(false, false), user) && covers(&with(false, false), conversation));
        assert!(!covers(&with(true, false), user) && covers(&with(true, false), conversation));
        assert!(covers(&with(false, true), user) && !covers(&with(false, true), conversation));
        assert!(covers(&with(true, true), &|it| it.platform = None));
        assert!(!covers(&with(false, false), &|it| it.agent = "other".parse().unwrap()));
        assert!(!covers(&with(false, false), &|it| it.under = vec!["boss".parse().unwrap()]));
    }

    #[test]
    fn tools_and_secrets_are_like_nothing_but_themselves() {
        let covers = |granted: Action, asked: Action| {
            let request = request_with(&team(), |request| {
                request.class = granted.class();
                request.action = granted;
            });
            Terms::exact().cover(&request, &asked, &request.asked_by)
        };
        let (call, secret) = (tool_call(), secret_use());
        assert!(covers(Action::Tool(call.clone()), Action::Tool(call.clone())));
        assert!(covers(Action::Secret(secret.clone()), Action::Secret(secret.clone())));
        assert!(!covers(Action::Tool(call.clone()), Action::Secret(secret.clone())));
        let mut changed = call.clone();
        // Another description is another tool.
        changed.schema = Digest::of(b"other");
        assert!(!covers(Action::Tool(call), Action::Tool(changed)));
        let mut other = secret.clone();
        other.host = Text::new("evil.example").unwrap();
        assert!(!covers(Action::Secret(secret), Action::Secret(other)));
    }
}
