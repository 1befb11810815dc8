//! `countersign tools`: of a list of tools, those that the model may be told of, for whom it works now. What isn't in the list can't be talked into
//! being used. Each element stays as it came, byte for byte: its digest is what is approved later.

use std::collections::HashSet;
use std::path::PathBuf;

use clap::Args;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Context;
use super::ask::Connection;
use super::terminal::{Failure, Outcome, say};
use crate::local::{Answer, Question, ToolName};

/// Longest list in bytes: its names must fit one question to the gate.
const LIST_BYTES: u64 = 16 << 20;

#[derive(Args)]
pub(super) struct Tools {
    /// For which user
    #[arg(long = "for", value_name = "USER")]
    user: Option<String>,
    /// In which conversation
    #[arg(long = "in", value_name = "CONVERSATION")]
    conversation: Option<String>,
    /// Who would call them: a name of a-z 0-9 . _ -, or main/helper for an agent that works for another
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// On which platform
    #[arg(long)]
    platform: Option<String>,
    /// The server of those that name none
    #[arg(long, value_name = "NAME")]
    server: Option<String>,
    /// A JSON list of tools, each with `name` and `server`, or an object with that list as `tools`; - for standard input
    #[arg(value_name = "FILE|-")]
    file: PathBuf,
}

/// A list of tools, alone or as MCP has it.
struct List<'j> {
    elements: Vec<&'j RawValue>,
    wrapped: bool,
}

/// What is read of an element. A name that is there twice is refused: one reader would take the first, another the last.
#[derive(Deserialize)]
struct Element {
    name: String,
    #[serde(default)]
    server: Option<String>,
}

#[derive(Deserialize)]
struct Wrapped<'j> {
    #[serde(borrow)]
    tools: Vec<&'j RawValue>,
}

impl<'j> List<'j> {
    fn read(text: &'j str) -> Result<Self, serde_json::Error> {
        if text.trim_start().starts_with('[') {
            return Ok(Self {
                elements: serde_json::from_str(text)?,
                wrapped: false,
            });
        }
        let Wrapped { tools: elements } = serde_json::from_str(text)?;
        Ok(Self {
            elements,
            wrapped: true,
        })
    }

    fn names(&self, server: Option<&str>) -> Result<Vec<ToolName>, String> {
        let name = |(at, element): (usize, &&RawValue)| {
            // A list would be taken for an object's fields in their order.
            if !element.get().starts_with('{') {
                return Err(format!("tool {at} isn't an object"));
            }
            let Element {
                name: tool,
                server: own,
            } = serde_json::from_str(element.get()).map_err(|error| format!("tool {at}: {error}"))?;
            let server = own.or_else(|| server.map(str::to_owned));
            let server = server.ok_or_else(|| format!("tool {at} names no server"))?;
            Ok(ToolName { server, tool })
        };
        self.elements.iter().enumerate().map(name).collect()
    }

    /// The same list with those alone.
    fn only(&self, names: &[ToolName], visible: &[ToolName]) -> String {
        let visible: HashSet<(&str, &str)> = visible.iter().map(key).collect();
        let shown = self.elements.iter().zip(names);
        let shown: Vec<&str> = shown
            .filter(|(_, name)| visible.contains(&key(name)))
            .map(|(element, _)| element.get())
            .collect();
        let list = format!("[{}]", shown.join(","));
        if self.wrapped {
            format!("{{\"tools\":{list}}}")
        } else {
            list
        }
    }
}

fn key(name: &ToolName) -> (&str, &str) {
    (&name.server, &name.tool)
}

impl Tools {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let bytes = super::action::input(&self.file, LIST_BYTES)?;
        let hint = "it takes a JSON list of tools, each with `name` and `server`";
        let malformed = |error: String| Failure::new(format!("{}: {error}", self.file.display())).hint(hint);
        let text = std::str::from_utf8(&bytes).map_err(|error| malformed(error.to_string()))?;
        let list = List::read(text).map_err(|error| malformed(error.to_string()))?;
        let names = list.names(self.server.as_deref()).map_err(malformed)?;
        let question = Question::Tools {
            agent: self.agent.clone(),
            under: Vec::new(),
            user: self.user.clone(),
            conversation: self.conversation.clone(),
            platform: self.platform.clone(),
            tools: names.clone(),
        };
        match Connection::answer(&context.home()?, &question).await? {
            Answer::Tools { visible } => {
                say(&list.only(&names, &visible));
                Ok(0)
            }
            _ => Err(Failure::new("the gate gave another answer than the one asked for")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    fn name(server: &str, tool: &str) -> ToolName {
        ToolName {
            server: server.to_owned(),
            tool: tool.to_owned(),
        }
    }

    #[test]
    fn what_is_shown_is_what_came_byte_for_byte() {
        let kept = r#"{ "name":"read" ,"server":"files","inputSchema":{"b":1.0,"a":"\u00e9"}, "x":1e3 }"#;
        let text = format!(r#"[{{"server":"files","name":"delete"}}, {kept}]"#);
        let list = List::read(&text).unwrap();
        let names = list.names(None).unwrap();
        assert_eq!(names, [name("files", "delete"), name("files", "read")]);
        assert_eq!(list.only(&names, &names[1..]), format!("[{kept}]"));
        assert_eq!(list.only(&names, &[]), "[]");
        let wrapped = format!(r#"{{"tools":{text},"nextCursor":"2"}}"#);
        let list = List::read(&wrapped).unwrap();
        assert_eq!(list.only(&names, &names[1..]), format!(r#"{{"tools":[{kept}]}}"#));
    }

    #[test]
    fn the_same_name_at_another_server_is_another_tool() {
        let list = List::read(r#"[{"server":"a","name":"x"},{"server":"b","name":"x"},{"name":"x"}]"#).unwrap();
        let names = list.names(Some("c")).unwrap();
        assert_eq!(names, [name("a", "x"), name("b", "x"), name("c", "x")]);
        assert_eq!(list.only(&names, &[name("b", "x")]), r#"[{"server":"b","name":"x"}]"#);
        assert!(list.names(None).is_err());
    }

    #[test]
    fn a_name_that_is_there_twice_is_refused() {
        for bad in [
            r#"[{"server":"a","name":"read","name":"delete"}]"#,
            r#"[{"server":"a","server":"b","name":"read"}]"#,
            r#"[{"server":"a"}]"#,
            r#"[["a","read"]]"#,
        ] {
            let list = List::read(bad).unwrap();
            assert!(list.names(None).is_err(), "{bad}");
        }
        for bad in ["", "{}", "null", "[", r#"{"tools":[],"tools":[]}"#] {
            assert!(List::read(bad).is_err(), "{bad}");
        }
    }
}
