//! How far "always" reaches: from the options of `approve`, or chosen step by step at a terminal. Nothing is granted that
//! wasn't chosen, a pattern never, and the whole is said in one sentence before it is signed (PROTOCOL.md 8.7).

use approval::Time;
use approval::action::Action;
use approval::escape::escape_field;
use approval::grant::{Terms, USES};
use approval::request::Request;
use clap::Args;

use super::terminal::Failure;
use crate::show;

/// A day, in milliseconds.
const DAY: u64 = 24 * 60 * 60 * 1000;

/// The longest span that can be given, as in a policy: a grant for longer is one without end.
const SPAN: u64 = 366 * DAY;

/// The options that say how far.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Scope {
    /// With always: for so long, as 30m, 1h or 1d
    #[arg(long = "for", value_name = "SPAN", value_parser = span)]
    span: Option<u64>,
    /// With always: to the end of this day in UTC, as 2026-12-31, or until a time, as 2026-12-31T18:00Z
    #[arg(long, value_name = "DATE", value_parser = date, conflicts_with = "span")]
    until: Option<Time>,
    /// With always: so many times
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(USES)))]
    uses: Option<u32>,
    /// With always: for ever, until it is revoked
    #[arg(long, conflicts_with_all = ["span", "until"])]
    without_end: bool,
    /// With always: any plain word in place of this argument, counted from 0; may be repeated
    #[arg(long, value_name = "N")]
    blank: Vec<u32>,
    /// With always: only for the user who asks now
    #[arg(long)]
    only_user: bool,
    /// With always: only in the conversation of now
    #[arg(long)]
    only_conversation: bool,
}

impl Scope {
    /// Whether anything was said.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it was said for how long or how often.
    pub(super) fn is_bounded(&self) -> bool {
        self.span.is_some() || self.until.is_some() || self.uses.is_some() || self.without_end
    }

    /// The terms for this request.
    pub(super) fn terms(&self, request: &Request, now: Time) -> Result<Terms, Failure> {
        let end = match (self.span, self.until) {
            (Some(span), _) => Some(after(now, span).ok_or_else(|| Failure::new("that is too far away"))?),
            (None, until) => until,
        };
        if end.is_some_and(|end| end <= now) {
            return Err(Failure::new("that time is over already").hint("give a later --until"));
        }
        let mut blanks = self.blank.clone();
        blanks.sort_unstable();
        blanks.dedup();
        let terms = Terms {
            blanks,
            user: self.only_user,
            conversation: self.only_conversation,
            not_after: end,
            uses: self.uses,
        };
        terms
            .may_cover(&request.action)
            .map_err(|why| Failure::new(why).hint("approve it `once`, or with another scope"))?;
        Ok(terms)
    }
}

fn after(now: Time, span: u64) -> Option<Time> {
    Time::from_millis(now.millis().checked_add(span)?).ok()
}

/// `30m`, `1h`, `1d`: in milliseconds.
fn span(text: &str) -> Result<u64, String> {
    let wrong = || "a whole number and s, m, h or d, up to 366d, as 1h".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let factor = match unit {
        's' => 1000,
        'm' => 60 * 1000,
        'h' => 60 * 60 * 1000,
        'd' => DAY,
        _ => return Err(wrong()),
    };
    let digits = text.strip_suffix(unit).ok_or_else(wrong)?;
    // `+1h` is a number to the standard library.
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let span = number.checked_mul(factor).ok_or_else(wrong)?;
    if (1..=SPAN).contains(&span) {
        Ok(span)
    } else {
        Err(wrong())
    }
}

/// A day, to its last millisecond, or a time in UTC.
fn date(text: &str) -> Result<Time, String> {
    let wrong = || "a day as 2026-12-31, or a time as 2026-12-31T18:00Z".to_owned();
    let (day, clock) = match text.split_once(['T', ' ']) {
        Some((day, clock)) => (day, Some(clock)),
        None => (text, None),
    };
    let numbers = |text: &str, between: char, lengths: &[usize]| -> Option<Vec<u64>> {
        let parts: Vec<&str> = text.split(between).collect();
        let spelled = parts.len() == lengths.len()
            && parts
                .iter()
                .zip(lengths)
                .all(|(part, length)| part.len() == *length && part.bytes().all(|byte| byte.is_ascii_digit()));
        if !spelled {
            return None;
        }
        parts.iter().map(|part| part.parse().ok()).collect()
    };
    let start = match numbers(day, '-', &[4, 2, 2]).as_deref() {
        Some([year, month, day]) => days(*year, *month, *day).ok_or_else(wrong)? * DAY,
        _ => return Err(wrong()),
    };
    let within = match clock {
        None => DAY - 1,
        Some(clock) => {
            let clock = clock.strip_suffix('Z').ok_or_else(wrong)?;
            let parts = numbers(clock, ':', &[2, 2, 2]).or_else(|| numbers(clock, ':', &[2, 2]));
            let parts = parts.ok_or_else(wrong)?;
            let part = |at: usize| parts.get(at).copied().unwrap_or_default();
            let (hour, minute, second) = (part(0), part(1), part(2));
            if hour > 23 || minute > 59 || second > 59 {
                return Err(wrong());
            }
            ((hour * 60 + minute) * 60 + second) * 1000
        }
    };
    Time::from_millis(start + within).map_err(|_| wrong())
}

/// Days from 1970 to this one, if it is one.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let long = |month: u64| match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap(year) => 29,
        2 => 28,
        _ => 31,
    };
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=long(month)).contains(&day) {
        return None;
    }
    let years: u64 = (1970..year).map(|year| if leap(year) { 366 } else { 365 }).sum();
    let months: u64 = (1..month).map(long).sum();
    Some(years + months + day - 1)
}

/// Where somebody who chooses is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    What,
    Blanks,
    HowLong,
    Date,
    Uses,
    Whom,
    Sure,
}

/// What a line came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Ask [`Choice::question`] again, after saying this where there is something to say.
    Ask(Option<String>),
    /// Chosen and confirmed.
    Chosen(Terms),
    /// Given up: nothing is granted, nothing answered.
    Left,
}

/// Somebody choosing how far "always" reaches.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    request: Request,
    /// What others would grant, with their names.
    others: Vec<(String, Terms)>,
    stage: Stage,
    terms: Terms,
}

impl Choice {
    /// Begins. Fails where the action can't be granted at all, with the reason.
    pub(super) fn begin(request: &Request, others: Vec<(String, Terms)>) -> Result<Self, String> {
        Terms::exact()
            .may_cover(&request.action)
            .map_err(|why| why.to_string())?;
        Ok(Self {
            request: request.clone(),
            others,
            stage: Stage::What,
            terms: Terms::exact(),
        })
    }

    /// Takes over what another admin would grant: it only has to be confirmed.
    pub(super) fn same(request: &Request, terms: &Terms) -> Result<Self, String> {
        terms.may_cover(&request.action).map_err(|why| why.to_string())?;
        Ok(Self {
            request: request.clone(),
            others: Vec::new(),
            stage: Stage::Sure,
            terms: terms.clone(),
        })
    }

    /// What is asked now; the last line is a prompt.
    pub(super) fn question(&self, now: Time) -> String {
        match self.stage {
            Stage::What => self.what(now),
            Stage::Blanks => self.arguments(),
            Stage::HowLong => {
                "for how long?\n  a  for an hour\n  b  for a day\n  c  until a date\n  d  for a number of times\n  \
                               e  without end, until it is revoked\nchoose a to e, or back: "
                    .to_owned()
            }
            Stage::Date => "until which day (in UTC, as 2026-12-31), or back: ".to_owned(),
            Stage::Uses => "how many times, or back: ".to_owned(),
            Stage::Whom => self.whom(),
            Stage::Sure => format!(
                "{}\nsign this? yes, or back: ",
                show::terms::sentence(&self.request, &self.terms, now)
            ),
        }
    }

    fn what(&self, now: Time) -> String {
        let mut text = "what should be granted from now on?\n  1  exactly this\n".to_owned();
        match self.why_no_blanks() {
            None => text.push_str("  2  this command with some arguments left open\n"),
            Some(why) => text.push_str(&format!("  (with arguments left open: no, {why})\n")),
        }
        for (at, (name, terms)) in self.others.iter().enumerate() {
            let reach = show::terms::reach(terms, &self.request, now);
            text.push_str(&format!("  {}  the same as {name}: {reach}\n", at + 3));
        }
        text.push_str("choose a number, or back: ");
        text
    }

    /// Why no argument can be left open; none where one can.
    fn why_no_blanks(&self) -> Option<String> {
        let Action::Command(command) = &self.request.action else {
            return Some(approval::grant::NotGrantable::NoCommand.to_string());
        };
        let mut why = None;
        for at in 1..command.argv.len() {
            match self.blank(at) {
                Ok(()) => return None,
                Err(reason) => why = Some(reason),
            }
        }
        Some(why.unwrap_or_else(|| "it has no arguments".to_owned()))
    }

    fn blank(&self, at: usize) -> Result<(), String> {
        let at = u32::try_from(at).map_err(|_| "there is no such argument".to_owned())?;
        let terms = Terms {
            blanks: vec![at],
            ..Terms::exact()
        };
        terms.may_cover(&self.request.action).map_err(|why| why.to_string())
    }

    fn arguments(&self) -> String {
        let mut text = String::new();
        if let Action::Command(command) = &self.request.action {
            for (at, argument) in command.argv.iter().enumerate() {
                let fixed = if self.blank(at).is_ok() {
                    ""
                } else {
                    "   (stays as it is)"
                };
                text.push_str(&format!("  argv[{at}]  {}{fixed}\n", escape_field(argument.as_bytes())));
            }
        }
        text.push_str("which may be any plain word (numbers, as 2 4), or back: ");
        text
    }

    fn whom(&self) -> String {
        let asked = &self.request.asked_by;
        let shown = |text: &approval::Text| escape_field(text.as_untrusted().as_bytes());
        let mut text = "for whom?\n  1  whoever asks\n".to_owned();
        if let Some(user) = &asked.user {
            text.push_str(&format!("  2  only when {} asks\n", shown(user)));
        }
        if let Some(place) = &asked.conversation {
            text.push_str(&format!("  3  only in the conversation {}\n", shown(place)));
        }
        if asked.user.is_some() && asked.conversation.is_some() {
            text.push_str("  4  only both\n");
        }
        text.push_str("choose a number, or back: ");
        text
    }

    /// Takes in a line that was typed.
    pub(super) fn typed(&mut self, line: &str, now: Time) -> Next {
        let line = line.trim().to_lowercase();
        if line == "back" {
            return self.back();
        }
        match self.stage {
            Stage::What => self.choose_what(&line),
            Stage::Blanks => self.choose_blanks(&line),
            Stage::HowLong => self.choose_how_long(&line, now),
            Stage::Date => self.choose_date(&line, now),
            Stage::Uses => self.choose_uses(&line),
            Stage::Whom => self.choose_whom(&line),
            Stage::Sure if matches!(line.as_str(), "y" | "yes") => Next::Chosen(self.terms.clone()),
            Stage::Sure => said("nothing was signed: say yes, or back"),
        }
    }

    /// From anywhere to the beginning, from there out: what was chosen halfway is forgotten.
    fn back(&mut self) -> Next {
        if self.stage == Stage::What {
            return Next::Left;
        }
        self.stage = Stage::What;
        self.terms = Terms::exact();
        Next::Ask(None)
    }

    fn go(&mut self, stage: Stage) -> Next {
        self.stage = stage;
        Next::Ask(None)
    }

    fn choose_what(&mut self, line: &str) -> Next {
        match line {
            "1" => self.go(Stage::HowLong),
            "2" => match self.why_no_blanks() {
                None => self.go(Stage::Blanks),
                Some(why) => said(&why),
            },
            _ => {
                let other = line.parse::<usize>().ok().and_then(|number| number.checked_sub(3));
                let Some((_, terms)) = other.and_then(|other| self.others.get(other)) else {
                    return said("choose one of the numbers, or back");
                };
                self.terms = terms.clone();
                self.go(Stage::Sure)
            }
        }
    }

    fn choose_blanks(&mut self, line: &str) -> Next {
        let words = line.split([' ', ',']).filter(|word| !word.is_empty());
        let numbers: Result<Vec<u32>, _> = words.map(str::parse).collect();
        let Ok(mut blanks) = numbers else {
            return said("numbers of arguments, as 2 4, or back");
        };
        blanks.sort_unstable();
        blanks.dedup();
        if blanks.is_empty() {
            return said("at least one, or back");
        }
        let terms = Terms {
            blanks,
            ..Terms::exact()
        };
        match terms.may_cover(&self.request.action) {
            Ok(()) => {
                self.terms = terms;
                self.go(Stage::HowLong)
            }
            Err(why) => said(&why.to_string()),
        }
    }

    fn choose_how_long(&mut self, line: &str, now: Time) -> Next {
        let span = match line {
            "a" => DAY / 24,
            "b" => DAY,
            "c" => return self.go(Stage::Date),
            "d" => return self.go(Stage::Uses),
            "e" => return self.bounded(),
            _ => return said("choose a, b, c, d or e, or back"),
        };
        self.terms.not_after = after(now, span);
        self.bounded()
    }

    fn choose_date(&mut self, line: &str, now: Time) -> Next {
        match date(&line.to_uppercase()) {
            Ok(end) if end <= now => said("that day is over already"),
            Ok(end) => {
                self.terms.not_after = Some(end);
                self.bounded()
            }
            Err(wanted) => said(&wanted),
        }
    }

    fn choose_uses(&mut self, line: &str) -> Next {
        let digits = line.bytes().all(|byte| byte.is_ascii_digit());
        match line
            .parse::<u32>()
            .ok()
            .filter(|uses| digits && (1..=USES).contains(uses))
        {
            Some(uses) => {
                self.terms.uses = Some(uses);
                self.bounded()
            }
            None => said("a number from 1 on, or back"),
        }
    }

    /// Asked only where there is somebody or somewhere to choose.
    fn bounded(&mut self) -> Next {
        let asked = &self.request.asked_by;
        let named = asked.user.is_some() || asked.conversation.is_some();
        self.go(if named { Stage::Whom } else { Stage::Sure })
    }

    fn choose_whom(&mut self, line: &str) -> Next {
        let asked = &self.request.asked_by;
        let (user, conversation) = match line {
            "1" => (false, false),
            "2" => (true, false),
            "3" => (false, true),
            "4" => (true, true),
            _ => return said("choose one of the numbers, or back"),
        };
        if (user && asked.user.is_none()) || (conversation && asked.conversation.is_none()) {
            return said("choose one of the numbers, or back");
        }
        self.terms.user = user;
        self.terms.conversation = conversation;
        self.go(Stage::Sure)
    }
}

fn said(text: &str) -> Next {
    Next::Ask(Some(text.to_owned()))
}

#[cfg(test)]
mod tests;
