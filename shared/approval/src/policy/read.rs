//! From the text of a policy to what it means, with everything that PROTOCOL.md 16.1 refuses. Not here: the types of
//! its fields (`fields`), what the rules match (`rule`).

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::fields::{Fields, Source, Value};
use super::glob::Glob;
use super::index::Index;
use super::programs::runs_others;
use super::rule::{Element, Pattern, Rule, Says, Uses, What, Who};
use super::{Class, Compiled, Layers, Mode, PolicyError, spelling};
use crate::scalar::{Name, Text};

/// Rules of a policy.
pub(super) const RULES: usize = 1024;
/// Elements of a command, the program included.
const ELEMENTS: usize = 64;
/// How often a rule with `uses` may be good: the times are kept.
const USES: u64 = 1000;

/// What this text means. `most_rules` is [`RULES`] but for measurements.
pub(super) fn read(text: &str, most_rules: usize) -> Result<Compiled, PolicyError> {
    let source = Source(text);
    let root = source.parse()?;
    spelling::check(source)?;
    let known = ["mode", "layer", "class", "person", "rule"];
    let fields = Fields::of(source, root.get_ref(), "the policy", &known)?;
    let mode = match fields.find("mode") {
        None => Mode::default(),
        Some(value) => mode(source, value)?,
    };
    let classes = named(source, fields.find("class"), "class", class)?;
    let persons = named(source, fields.find("person"), "person", users_of_person)?;
    let mut layers = Layers::default();
    for value in list_of_tables(source, fields.find("layer"), "layer")? {
        layer(source, value, &mut layers)?;
    }
    let values = list_of_tables(source, fields.find("rule"), "rule")?;
    if let Some(beyond) = values.get(most_rules) {
        return Err(source.refuse(beyond.span(), format!("more than {most_rules} rules")));
    }
    let lines = Lines::of(text);
    let mut rules = Vec::with_capacity(values.len());
    for value in values {
        let line = lines.number(value.span().start);
        rules.push(RuleReader { source, value }.read(&classes, line)?);
    }
    let index = Index::of(&rules);
    Ok(Compiled {
        mode,
        layers,
        classes,
        persons,
        rules,
        index,
    })
}

/// Where the lines begin, so that a thousand rules don't count them a thousand times.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(at, _)| at).collect())
    }

    /// Counted from 1.
    fn number(&self, at: usize) -> usize {
        1 + self.0.partition_point(|feed| *feed < at)
    }
}

fn mode(source: Source<'_>, value: &Value<'_>) -> Result<Mode, PolicyError> {
    match source.string(value, "mode")? {
        "deny" => Ok(Mode::Deny),
        "allowlist" => Ok(Mode::Allowlist),
        "full" => Ok(Mode::Full),
        _ => Err(source.refuse(value.span(), "`mode` must be \"deny\", \"allowlist\" or \"full\"")),
    }
}

/// `[field.NAME]` tables.
fn named<T>(
    source: Source<'_>,
    value: Option<&Value<'_>>,
    field: &str,
    read: impl Fn(Source<'_>, &DeTable<'_>, &Value<'_>) -> Result<T, PolicyError>,
) -> Result<BTreeMap<Name, T>, PolicyError> {
    let mut all = BTreeMap::new();
    if let Some(value) = value {
        for (key, value) in source.table(value, field)? {
            let name = key
                .get_ref()
                .parse()
                .map_err(|error| source.refuse(key.span(), format!("[{field}.{}]: {error}", key.get_ref())))?;
            all.insert(name, read(source, source.table(value, field)?, value)?);
        }
    }
    Ok(all)
}

fn list_of_tables<'v, 'd>(
    source: Source<'_>,
    value: Option<&'v Value<'d>>,
    field: &str,
) -> Result<&'v [Value<'d>], PolicyError> {
    value.map_or(Ok(&[]), |value| source.list(value, field))
}

fn class(source: Source<'_>, table: &DeTable<'_>, whole: &Value<'_>) -> Result<Class, PolicyError> {
    let known = ["quorum", "veto", "four_eyes", "number", "expires", "first", "after"];
    let fields = Fields::of(source, table, "a class", &known)?;
    let flag = |field: &str, otherwise| {
        let value = fields.find(field);
        value.map_or(Ok(otherwise), |value| source.boolean(value, field))
    };
    let span = |field: &str| fields.find(field).map(|value| source.span(value, field)).transpose();
    let quorum = match fields.find("quorum") {
        None => 1,
        Some(value) => u16::try_from(source.number(value, "quorum", u64::from(u16::MAX))?).unwrap_or(u16::MAX),
    };
    let first = match fields.find("first") {
        None => Vec::new(),
        Some(value) => {
            let names = source.list(value, "first")?.iter();
            names.map(|name| source.name(name, "first")).collect::<Result<_, _>>()?
        }
    };
    let after_ms = span("after")?;
    if after_ms.is_some() == first.is_empty() {
        return Err(source.refuse(
            whole.span(),
            "`first` and `after` go together: whose attention is asked for, and when everybody else's",
        ));
    }
    Ok(Class {
        quorum,
        veto: flag("veto", true)?,
        four_eyes: flag("four_eyes", false)?,
        number: flag("number", false)?,
        expires_ms: span("expires")?,
        first,
        after_ms,
    })
}

fn users_of_person(source: Source<'_>, table: &DeTable<'_>, whole: &Value<'_>) -> Result<Vec<Text>, PolicyError> {
    let fields = Fields::of(source, table, "a person", &["users"])?;
    match fields.find("users") {
        None => Err(source.refuse(
            whole.span(),
            "a person without `users`: say which users are this person",
        )),
        Some(value) => {
            let users = source.list(value, "users")?.iter();
            users.map(|user| source.text(user, "users")).collect()
        }
    }
}

fn layer(source: Source<'_>, value: &Value<'_>, layers: &mut Layers) -> Result<(), PolicyError> {
    let table = source.table(value, "layer")?;
    let fields = Fields::of(source, table, "a layer", &["agent", "conversation", "user", "mode"])?;
    let mode = match fields.find("mode") {
        None => return Err(source.refuse(value.span(), "a layer without `mode`: deny, allowlist or full")),
        Some(value) => mode(source, value)?,
    };
    let (agent, conversation, user) = (fields.find("agent"), fields.find("conversation"), fields.find("user"));
    let text = |value, field| source.text(value, field).map(|text| text.as_untrusted().to_owned());
    let (modes, whose) = match (agent, conversation, user) {
        (Some(agent), None, None) => (&mut layers.agents, source.name(agent, "agent")?.to_string()),
        (None, Some(conversation), None) => (&mut layers.conversations, text(conversation, "conversation")?),
        (None, None, Some(user)) => (&mut layers.users, text(user, "user")?),
        _ => {
            return Err(source.refuse(
                value.span(),
                "a layer is for exactly one `agent`, one `conversation` or one `user`",
            ));
        }
    };
    // The first holds.
    modes.entry(whose).or_insert(mode);
    Ok(())
}

const RULE_FIELDS: [&str; 12] = [
    "effect",
    "agents",
    "users",
    "conversations",
    "platforms",
    "command",
    "tool",
    "secret",
    "class",
    "until",
    "uses",
    "per",
];

struct RuleReader<'v, 'd> {
    source: Source<'v>,
    value: &'v Value<'d>,
}

impl<'v, 'd> RuleReader<'v, 'd> {
    fn read(&self, classes: &BTreeMap<Name, Class>, line: usize) -> Result<Rule, PolicyError> {
        let table = self.source.table(self.value, "rule")?;
        let fields = Fields::of(self.source, table, "a rule", &RULE_FIELDS)?;
        let says = self.effect(&fields)?;
        let who = self.who(&fields)?;
        let what = self.what(&fields, says)?;
        if says == Says::Allow && who.conversations.is_some() && who.users.is_none() {
            return self.refuse(
                fields.find("conversations"),
                "an `allow` rule that names conversations must name users too: being in a group grants nothing",
            );
        }
        if says == Says::Allow && matches!(what, What::Anything) {
            return self.refuse(
                None,
                "an `allow` rule must name a command, a tool or a secret; to allow everything is the mode \"full\"",
            );
        }
        let until = fields.find("until").map(|value| self.source.time(value, "until"));
        Ok(Rule {
            says,
            who,
            what,
            class: self.class(&fields, classes)?,
            until: until.transpose()?,
            uses: self.uses(&fields, says)?,
            line,
        })
    }

    fn refuse<T>(&self, at: Option<&Value<'_>>, problem: impl AsRef<str>) -> Result<T, PolicyError> {
        Err(self.source.refuse(at.unwrap_or(self.value).span(), problem))
    }

    fn effect(&self, fields: &Fields<'v, 'd>) -> Result<Says, PolicyError> {
        let value = fields.find("effect");
        let word = value.map(|value| self.source.string(value, "effect")).transpose()?;
        match word {
            Some("deny") => Ok(Says::Deny),
            Some("ask") => Ok(Says::Ask),
            Some("allow") => Ok(Says::Allow),
            _ => self.refuse(value, "a rule's `effect` must be \"deny\", \"ask\" or \"allow\""),
        }
    }

    fn who(&self, fields: &Fields<'v, 'd>) -> Result<Who, PolicyError> {
        let source = self.source;
        let texts = |field: &'static str| {
            let each = |value: &Value<'_>| source.text(value, field).map(|text| text.as_untrusted().to_owned());
            let value = fields.find(field);
            value.map(|value| source.set(value, field, each)).transpose()
        };
        let agent = |value: &Value<'_>| source.name(value, "agents").map(|name| name.to_string());
        let agents = fields.find("agents");
        Ok(Who {
            agents: agents.map(|value| source.set(value, "agents", agent)).transpose()?,
            users: texts("users")?,
            conversations: texts("conversations")?,
            platforms: texts("platforms")?,
        })
    }

    fn what(&self, fields: &Fields<'v, 'd>, says: Says) -> Result<What, PolicyError> {
        match (fields.find("command"), fields.find("tool"), fields.find("secret")) {
            (None, None, None) => Ok(What::Anything),
            (Some(command), None, None) => self.command(command, says).map(What::Command),
            (None, Some(tool), None) => self.tool(tool),
            (None, None, Some(secret)) => self.source.name(secret, "secret").map(What::Secret),
            _ => self.refuse(None, "a rule names at most one of `command`, `tool` and `secret`"),
        }
    }

    fn tool(&self, value: &Value<'_>) -> Result<What, PolicyError> {
        let text = self.source.string(value, "tool")?;
        match text.split_once('/') {
            Some((server, tool)) if !server.is_empty() => Ok(What::Tool {
                server: server.to_owned(),
                tool: (!tool.is_empty()).then(|| tool.to_owned()),
            }),
            _ => self.refuse(
                Some(value),
                "`tool` must be \"server/tool\", or \"server/\" for all tools of that server",
            ),
        }
    }

    fn command(&self, value: &Value<'_>, says: Says) -> Result<Pattern, PolicyError> {
        let elements = self.source.list(value, "command")?;
        if elements.len() > ELEMENTS {
            return self.refuse(Some(value), format!("a `command` of more than {ELEMENTS} elements"));
        }
        let (first, following) = elements
            .split_first()
            .map_or((value, elements), |(first, rest)| (first, rest));
        let program = match first.get_ref() {
            DeValue::String(program) if !program.is_empty() => program.to_string(),
            _ => {
                return self.refuse(
                    Some(first),
                    "a `command` must begin with the name of a program, as a string",
                );
            }
        };
        if program.contains('/') && !program.starts_with('/') {
            return self.refuse(Some(first), "a program is an absolute path or a name without a slash");
        }
        if program.ends_with('/') {
            return self.refuse(Some(first), "a program that ends in a slash is a folder");
        }
        let mut pattern = Pattern {
            program,
            arguments: Vec::with_capacity(following.len()),
            rest: false,
        };
        for element in following {
            if pattern.rest {
                return self.refuse(Some(element), "nothing may come after { rest = true }");
            }
            match self.element(element)? {
                Some(element) => pattern.arguments.push(element),
                None => pattern.rest = true,
            }
        }
        let literal = pattern.arguments.iter().all(|one| matches!(one, Element::Literal(_))) && !pattern.rest;
        if says == Says::Allow && !literal && runs_others(&pattern.program) {
            let problem = format!(
                "{} can run other programs: an `allow` rule for it must give every argument as a string",
                pattern.program
            );
            return self.refuse(Some(value), problem);
        }
        Ok(pattern)
    }

    /// `None` for the rest.
    fn element(&self, value: &Value<'_>) -> Result<Option<Element>, PolicyError> {
        let table = match value.get_ref() {
            DeValue::String(literal) => return Ok(Some(Element::Literal(literal.to_string()))),
            DeValue::Table(table) => table,
            _ => {
                return self.refuse(
                    Some(value),
                    "an argument must be a string, { like = \"…\" } or { rest = true }",
                );
            }
        };
        let fields = Fields::of(self.source, table, "an argument", &["like", "rest"])?;
        match (fields.find("like"), fields.find("rest")) {
            (Some(like), None) => match Glob::new(self.source.string(like, "like")?) {
                Some(glob) => Ok(Some(Element::Like(glob))),
                None => self.refuse(
                    Some(like),
                    "`like` must be printable ASCII without a slash: a path is given as a string",
                ),
            },
            (None, Some(rest)) if self.source.boolean(rest, "rest")? => Ok(None),
            (None, Some(rest)) => self.refuse(Some(rest), "`rest` must be true, or left out"),
            _ => self.refuse(Some(value), "an argument is either { like = \"…\" } or { rest = true }"),
        }
    }

    fn class(&self, fields: &Fields<'v, 'd>, classes: &BTreeMap<Name, Class>) -> Result<Option<Name>, PolicyError> {
        let Some(value) = fields.find("class") else {
            return Ok(None);
        };
        let name = self.source.name(value, "class")?;
        if classes.contains_key(&name) {
            Ok(Some(name))
        } else {
            self.refuse(Some(value), format!("class {name} isn't described: add [class.{name}]"))
        }
    }

    fn uses(&self, fields: &Fields<'v, 'd>, says: Says) -> Result<Option<Uses>, PolicyError> {
        let per = fields.find("per");
        let Some(value) = fields.find("uses") else {
            return match per {
                None => Ok(None),
                Some(_) => self.refuse(per, "`per` without `uses`: say how often in that span"),
            };
        };
        if says != Says::Allow {
            return self.refuse(
                Some(value),
                "only an `allow` rule has `uses`: what isn't allowed isn't used up",
            );
        }
        let most = u32::try_from(self.source.number(value, "uses", USES)?).unwrap_or(u32::MAX);
        let per_ms = per.map(|per| self.source.span(per, "per")).transpose()?;
        Ok(Some(Uses { most, per_ms }))
    }
}

/// What is no error and may still not be what its writer meant.
pub(super) fn warnings(rules: &[Rule]) -> Vec<String> {
    let mut all = Vec::new();
    for rule in rules {
        let What::Command(pattern) = &rule.what else { continue };
        let wild = |element: &Element| matches!(element, Element::Literal(text) if text.contains(['*', '?']));
        if pattern.arguments.iter().any(wild) {
            let line = rule.line;
            all.push(format!(
                "line {line}: a string is matched literally, * and ? too; write {{ like = \"…\" }} for a pattern"
            ));
        }
        if rule.says == Says::Allow && runs_others(&pattern.program) {
            let line = rule.line;
            all.push(format!(
                "line {line}: this program can run others: what it reads in HOME or in its working directory may say which"
            ));
        }
        if rule.says == Says::Deny && !pattern.rest {
            let line = rule.line;
            all.push(format!(
                "line {line}: this denies exactly these arguments; end it with {{ rest = true }} for whatever follows"
            ));
        }
    }
    all
}
