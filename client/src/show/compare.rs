//! What is different from the last action of this kind that people approved (M03: after two hundred times the same, the
//! eye takes the two hundred and first for the same). It stands beside the whole action, never in its place.

use approval::action::{Action, Bound, Command, Stdin, ToolCall};
use approval::escape::{escape, escape_field};
use approval::render::utc;
use approval::request::Request;
use approval::{ByteString, Digest, Time};

/// Two words that are this near each other are easily taken for one another.
const NEAR: usize = 2;

/// Shorter words differ much even where they differ little: `-l` and `-a`.
const LONG: usize = 6;

/// The last of its kind that people approved.
#[derive(Clone, Debug)]
pub struct Past {
    /// What was approved.
    pub request: Request,
    /// Its digest.
    pub id: Digest,
    /// By whom.
    pub by: Vec<String>,
    /// When it was permitted.
    pub time: Time,
}

/// A field that isn't as it was.
#[derive(Debug, PartialEq, Eq)]
struct Difference {
    field: String,
    was: Option<String>,
    is: Option<String>,
}

/// Whether two actions are of one kind: the same program, the same tool, the same secret.
pub fn alike(one: &Action, other: &Action) -> bool {
    match (one, other) {
        (Action::Command(one), Action::Command(other)) => one.executable.path == other.executable.path,
        (Action::Tool(one), Action::Tool(other)) => one.server == other.server && one.tool == other.tool,
        (Action::Secret(one), Action::Secret(other)) => one.name == other.name,
        _ => false,
    }
}

/// What to say of the request beside the one before.
pub(super) fn compared(past: &Past, request: &Request) -> String {
    let by = if past.by.is_empty() {
        "people".to_owned()
    } else {
        past.by.join(" and ")
    };
    let before = format!("what {by} approved on {} ({})", utc(past.time), past.id.short());
    let differences = differences(&past.request.action, &request.action);
    if differences.is_empty() {
        return format!("the same as {before}\n");
    }
    let mut text = format!("differs from {before}\n");
    for difference in &differences {
        text.push_str(&difference.to_string());
    }
    if let Some(distance) = smallest(&differences) {
        text.push_str(&format!(
            "WARNING: that is all, and one field differs in only {}: look closely\n",
            super::count(distance as u64, "character")
        ));
    }
    text
}

/// In how few characters an action differs that looks like another: none where it doesn't look so.
fn smallest(differences: &[Difference]) -> Option<usize> {
    let [only] = differences else { return None };
    let (was, is) = (only.was.as_ref()?, only.is.as_ref()?);
    let long = was.chars().count().max(is.chars().count()) >= LONG;
    // A digest differs in all of it or not at all.
    let words = only.field.starts_with("argv") || only.field.starts_with("env") || !only.field.contains("sha256");
    (long && words).then(|| distance(was, is)).flatten()
}

/// The edit distance of two words, if it is at most [`NEAR`].
fn distance(one: &str, other: &str) -> Option<usize> {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    if one.len().abs_diff(other.len()) > NEAR {
        return None;
    }
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, left) in one.iter().enumerate() {
        let mut next = vec![at + 1];
        for ((right, above), diagonal) in other.iter().zip(row.iter().skip(1)).zip(&row) {
            let before = next.last().copied().unwrap_or_default();
            let swapped = diagonal + usize::from(left != right);
            next.push(swapped.min(above + 1).min(before + 1));
        }
        row = next;
        // A long text isn't compared to its end where it is another one anyway.
        if row.iter().all(|distance| *distance > NEAR) {
            return None;
        }
    }
    row.last().copied().filter(|distance| *distance <= NEAR)
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.was, &self.is) {
            (Some(was), Some(is)) => {
                let same = was.chars().zip(is.chars()).take_while(|(was, is)| was == is).count();
                writeln!(f, "  {} was {was}", self.field)?;
                writeln!(f, "  {:1$} is  {is}", "", self.field.chars().count())?;
                // The caret is of use only where the eye has to look for the place.
                if same > 0 {
                    writeln!(f, "  {:1$}     {2:3$}^", "", self.field.chars().count(), "", same)?;
                }
                Ok(())
            }
            (None, Some(is)) => writeln!(f, "  {} is new: {is}", self.field),
            (Some(was), None) => writeln!(f, "  {} is gone, it was {was}", self.field),
            (None, None) => Ok(()),
        }
    }
}

fn differences(was: &Action, is: &Action) -> Vec<Difference> {
    let mut found = Vec::new();
    match (was, is) {
        (Action::Command(was), Action::Command(is)) => commands(&mut found, was, is),
        (Action::Tool(was), Action::Tool(is)) => tools(&mut found, was, is),
        (Action::Secret(was), Action::Secret(is)) => {
            for (field, was, is) in [
                ("host", &was.host, &is.host),
                ("method", &was.method, &is.method),
                ("path", &was.path, &is.path),
            ] {
                let shown = |text: &approval::Text| escape_field(text.as_untrusted().as_bytes());
                push(&mut found, field, shown(was), shown(is));
            }
        }
        _ => {}
    }
    found
}

fn push(found: &mut Vec<Difference>, field: &str, was: String, is: String) {
    if was != is {
        found.push(Difference {
            field: field.to_owned(),
            was: Some(was),
            is: Some(is),
        });
    }
}

fn commands(found: &mut Vec<Difference>, was: &Command, is: &Command) {
    let shown = |bytes: &ByteString| escape_field(bytes.as_bytes());
    arguments(found, &was.argv, &is.argv);
    push(
        found,
        "executable sha256",
        was.executable.sha256.to_string(),
        is.executable.sha256.to_string(),
    );
    let file = |file: &Option<Bound>| {
        file.as_ref().map_or_else(
            || "none".to_owned(),
            |file| format!("{} sha256 {}", shown(&file.path), file.sha256),
        )
    };
    push(found, "interpreter", file(&was.interpreter), file(&is.interpreter));
    push(
        found,
        "directory",
        shown(&was.directory.path),
        shown(&is.directory.path),
    );
    environment(found, was, is);
    let stdin = |stdin: &Stdin| match stdin {
        Stdin::None => "none".to_owned(),
        Stdin::Bytes(input) => format!("sha256 {}, {} bytes", input.sha256, input.bytes),
    };
    push(found, "stdin sha256", stdin(&was.stdin), stdin(&is.stdin));
    for operand in &is.operands {
        let before = was.operands.iter().find(|before| before.argument == operand.argument);
        // Another path is another argument already, or a link that leads elsewhere: then the contents say it.
        if let Some(before) = before.filter(|before| before.file.sha256 != operand.file.sha256) {
            let field = format!("contents of argv[{}], sha256", operand.argument);
            push(
                found,
                &field,
                before.file.sha256.to_string(),
                operand.file.sha256.to_string(),
            );
        }
    }
    push(found, "uid", was.uid.to_string(), is.uid.to_string());
    let limits = |command: &Command| {
        let limits = command.limits;
        format!(
            "{} ms, {} bytes of output, {} of memory",
            limits.wall_ms, limits.output_bytes, limits.memory_bytes
        )
    };
    push(found, "limits", limits(was), limits(is));
    let marks = |command: &Command| {
        let marks: Vec<&str> = command.marks.iter().map(|mark| mark.as_str()).collect();
        if marks.is_empty() {
            "none".to_owned()
        } else {
            marks.join(" ")
        }
    };
    push(found, "marks", marks(was), marks(is));
}

/// By position: what is the same at both ends is left out, so that one argument more doesn't make all that follow another.
fn arguments(found: &mut Vec<Difference>, was: &[ByteString], is: &[ByteString]) {
    let head = was.iter().zip(is).take_while(|(was, is)| was == is).count();
    let tail = was.iter().skip(head).rev().zip(is.iter().skip(head).rev());
    let tail = tail.take_while(|(was, is)| was == is).count();
    let middle = |all: &[ByteString]| -> Vec<String> {
        let wanted = all.len().saturating_sub(head + tail);
        all.iter()
            .skip(head)
            .take(wanted)
            .map(|argument| escape_field(argument.as_bytes()))
            .collect()
    };
    let (was, is) = (middle(was), middle(is));
    for at in 0..was.len().max(is.len()) {
        let (was, is) = (was.get(at).cloned(), is.get(at).cloned());
        // Two in the middle that happen to be the same are none.
        if was != is {
            let field = format!("argv[{}]", head + at);
            found.push(Difference { field, was, is });
        }
    }
}

fn environment(found: &mut Vec<Difference>, was: &Command, is: &Command) {
    let value = |of: &Command, name: &ByteString| {
        let entry = of.env.iter().find(|(other, _)| other == name);
        entry.map(|(_, value)| escape_field(value.as_bytes()))
    };
    let gone = was.env.iter().filter(|(name, _)| value(is, name).is_none());
    for (name, _) in is.env.iter().chain(gone) {
        let (was, is) = (value(was, name), value(is, name));
        if was != is {
            let field = format!("env {}", escape_field(name.as_bytes()));
            found.push(Difference { field, was, is });
        }
    }
}

fn tools(found: &mut Vec<Difference>, was: &ToolCall, is: &ToolCall) {
    push(found, "schema sha256", was.schema.to_string(), is.schema.to_string());
    let fields = |call: &ToolCall| {
        serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(call.arguments.as_untrusted())
            .unwrap_or_default()
    };
    if was.arguments == is.arguments {
        return;
    }
    let before = found.len();
    let (was_fields, is_fields) = (fields(was), fields(is));
    let gone = was_fields.keys().filter(|name| !is_fields.contains_key(*name));
    for name in is_fields.keys().chain(gone) {
        let shown = |value: Option<&serde_json::Value>| value.map(|value| escape(&value.to_string()));
        let (was, is) = (shown(was_fields.get(name)), shown(is_fields.get(name)));
        if was != is {
            let field = format!("argument {}", escape_field(name.as_bytes()));
            found.push(Difference { field, was, is });
        }
    }
    // The same values in other words: spaces, order, a name twice.
    if found.len() == before {
        let shown = |call: &ToolCall| escape_field(call.arguments.as_untrusted().as_bytes());
        push(found, "arguments as text", shown(was), shown(is));
    }
}

#[cfg(test)]
mod tests;
