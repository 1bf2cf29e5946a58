//! Documents as the suite's readers decode them: the rules of Go's `encoding/json` for structs, and
//! the types and limits that the contract gives. Knows nothing of this service.

use serde_json::Value as Json;

/// Any JSON, with members in their order and numbers as text.
#[derive(Clone, Debug)]
pub enum Node {
    Null,
    Bool,
    Number(String),
    Text(String),
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
}

/// The type of a struct's field.
#[derive(Clone, Copy)]
pub enum Kind {
    Text,
    Int,
    Float,
    Bool,
    /// `map[string]string`
    Texts,
    /// A slice of structs.
    Structs(&'static [(&'static str, Kind)]),
}

/// A decoded field.
#[derive(Clone, Debug)]
enum Decoded {
    Text(String),
    Int(i64),
    Other,
    Structs(Vec<Struct>),
}

/// A decoded struct: its fields that were set.
#[derive(Clone, Debug, Default)]
pub struct Struct(Vec<(&'static str, Decoded)>);

/// An item of a list, as a reader has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub id: String,
    pub rank: i64,
}

const PIPELINES_ITEM: &[(&str, Kind)] = &[("item_id", Kind::Text), ("rank", Kind::Int)];

const EVAL_ITEM: &[(&str, Kind)] = &[
    ("item_id", Kind::Text),
    ("rank", Kind::Int),
    ("propensity", Kind::Float),
    ("logging_propensity", Kind::Float),
    ("target_propensity", Kind::Float),
];

const EXPOSURE: &[(&str, Kind)] = &[
    ("request_id", Kind::Text),
    ("user_id", Kind::Text),
    ("ts", Kind::Text),
    ("items", Kind::Structs(EVAL_ITEM)),
    ("context", Kind::Texts),
    ("latency_ms", Kind::Float),
    ("error", Kind::Bool),
];

const OUTCOME: &[(&str, Kind)] = &[
    ("request_id", Kind::Text),
    ("user_id", Kind::Text),
    ("item_id", Kind::Text),
    ("event_type", Kind::Text),
    ("value", Kind::Float),
    ("ts", Kind::Text),
];

const ASSIGNMENT: &[(&str, Kind)] = &[
    ("experiment_id", Kind::Text),
    ("variant", Kind::Text),
    ("request_id", Kind::Text),
    ("user_id", Kind::Text),
    ("ts", Kind::Text),
    ("context", Kind::Texts),
];

/// The items of a row that recsys-pipelines reads: its columns, and `response` as text.
pub fn pipelines_row(surface: &str, session_id: &str, response: &str) -> Result<Vec<Item>, String> {
    if session_id.trim().is_empty() {
        return Err("an empty session_id".into());
    }
    if !is_path_safe(surface) {
        return Err(format!("the surface {surface:?}"));
    }
    let fields = &[("items", Kind::Structs(PIPELINES_ITEM))];
    items(&decode(&parse(response)?, fields)?, 0)
}

/// The request id and the items of a document that recsys-eval reads as exposure.v1.
pub fn exposure(data: &str) -> Result<(String, Vec<Item>), String> {
    let exposure = document(data, EXPOSURE, &["request_id", "user_id", "ts"])?;
    Ok((exposure.text("request_id").to_owned(), items(&exposure, 1)?))
}

/// Checks a document that recsys-eval reads as outcome.v1.
pub fn outcome(data: &str) -> Result<(), String> {
    let required = ["request_id", "user_id", "item_id", "event_type", "ts"];
    let outcome = document(data, OUTCOME, &required)?;
    match outcome.text("event_type") {
        "click" | "conversion" => Ok(()),
        other => Err(format!("the event_type {other}")),
    }
}

/// Checks a document that recsys-eval reads as assignment.v1.
pub fn assignment(data: &str) -> Result<(), String> {
    let required = ["experiment_id", "variant", "request_id", "user_id", "ts"];
    document(data, ASSIGNMENT, &required).map(|_| ())
}

fn document(
    data: &str,
    fields: &'static [(&'static str, Kind)],
    required: &[&str],
) -> Result<Struct, String> {
    let node = parse(data)?;
    let Node::Object(members) = &node else {
        return Err("not an object".into());
    };
    // The schemas of recsys-eval take no other members.
    if let Some((name, _)) = members
        .iter()
        .find(|(name, _)| fields.iter().all(|(field, _)| field != name))
    {
        return Err(format!("the member {name:?}"));
    }
    let found = decode(&node, fields)?;
    for name in required {
        if found.text(name).is_empty() {
            return Err(format!("no {name}"));
        }
    }
    let ts = found.text("ts");
    ts.parse::<jiff::Timestamp>()
        .map_err(|error| format!("the ts {ts:?}: {error}"))?;
    Ok(found)
}

fn items(from: &Struct, least_rank: i64) -> Result<Vec<Item>, String> {
    let Some(Decoded::Structs(list)) = from.get("items") else {
        return Ok(Vec::new());
    };
    let read = |item: &Struct| {
        let id = item.text("item_id").to_owned();
        let rank = match item.get("rank") {
            Some(Decoded::Int(rank)) => *rank,
            _ => 0,
        };
        if id.trim().is_empty() {
            return Err("an item without an id".to_owned());
        }
        if rank < least_rank {
            return Err(format!("the rank {rank}"));
        }
        Ok(Item { id, rank })
    };
    list.iter().map(read).collect()
}

/// Whether a text can be the name of a folder.
fn is_path_safe(text: &str) -> bool {
    !text.trim().is_empty()
        && !matches!(text, "." | "..")
        && !text.contains(|c: char| matches!(c, '/' | '\\') || c.is_control())
}

impl Struct {
    fn get(&self, name: &str) -> Option<&Decoded> {
        let found = self.0.iter().find(|(field, _)| *field == name);
        found.map(|(_, value)| value)
    }

    /// A field's text; Go's zero value if it was not set.
    fn text(&self, name: &str) -> &str {
        match self.get(name) {
            Some(Decoded::Text(text)) => text,
            _ => "",
        }
    }

    fn set(&mut self, name: &'static str, value: Decoded) {
        self.0.retain(|(field, _)| *field != name);
        self.0.push((name, value));
    }
}

/// Decodes an object into a struct: a member goes into the field of its exact name, else into the
/// first one that is equal by simple case folding; the last one wins; a null changes nothing.
fn decode(node: &Node, fields: &'static [(&'static str, Kind)]) -> Result<Struct, String> {
    let Node::Object(members) = node else {
        return Err("not an object".into());
    };
    let mut decoded = Struct::default();
    for (name, value) in members {
        let exact = fields.iter().find(|(field, _)| field == name);
        let folded = || fields.iter().find(|(field, _)| fold(field).eq(fold(name)));
        let Some((field, kind)) = exact.or_else(folded) else {
            continue;
        };
        if let Some(value) = value_of(value, *kind).map_err(|why| format!("{name:?} {why}"))? {
            decoded.set(field, value);
        }
    }
    Ok(decoded)
}

/// A character of each class that simple case folding makes, for the letters that field names have.
fn fold(text: &str) -> impl Iterator<Item = char> + '_ {
    text.chars().map(|c| match c {
        'k' | '\u{212A}' => 'K',
        's' | '\u{17F}' => 'S',
        'a'..='z' => c.to_ascii_uppercase(),
        other => other,
    })
}

fn value_of(node: &Node, kind: Kind) -> Result<Option<Decoded>, String> {
    let decoded = match (kind, node) {
        (_, Node::Null) => return Ok(None),
        (Kind::Text, Node::Text(text)) => Decoded::Text(text.clone()),
        (Kind::Int, Node::Number(text)) => {
            Decoded::Int(text.parse().map_err(|_| format!("is the number {text}"))?)
        }
        (Kind::Float, Node::Number(text)) => match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Decoded::Other,
            _ => return Err(format!("is the number {text}")),
        },
        (Kind::Bool, Node::Bool) => Decoded::Other,
        (Kind::Texts, Node::Object(members)) => {
            let is_text = |(_, value): &(String, Node)| matches!(value, Node::Text(_) | Node::Null);
            match members.iter().all(is_text) {
                true => Decoded::Other,
                false => return Err("has values that are not texts".into()),
            }
        }
        (Kind::Structs(fields), Node::List(elements)) => Decoded::Structs(
            elements
                .iter()
                .map(|element| decode(element, fields))
                .collect::<Result<_, _>>()?,
        ),
        (_, other) => return Err(format!("has another type: {other:?}")),
    };
    Ok(Some(decoded))
}

/// Parses a text, which PostgreSQL or a test wrote.
pub fn parse(text: &str) -> Result<Node, String> {
    let mut rest = text.trim_start();
    let node = parse_value(&mut rest)?;
    match rest.trim_start() {
        "" => Ok(node),
        more => Err(format!("more after the document: {more}")),
    }
}

fn parse_value(rest: &mut &str) -> Result<Node, String> {
    *rest = rest.trim_start();
    let take = |rest: &mut &str, length: usize| {
        let (taken, after) = rest.split_at(length);
        *rest = after;
        taken.to_owned()
    };
    for (word, node) in [
        ("null", Node::Null),
        ("true", Node::Bool),
        ("false", Node::Bool),
    ] {
        if let Some(after) = rest.strip_prefix(word) {
            *rest = after;
            return Ok(node);
        }
    }
    match rest.bytes().next() {
        Some(b'"') => {
            let mut end = 1;
            while rest.as_bytes().get(end).is_some_and(|byte| *byte != b'"') {
                end += 1 + usize::from(rest.as_bytes()[end] == b'\\');
            }
            let quoted = take(rest, end + 1);
            let text = serde_json::from_str(&quoted).map_err(|error| format!("{quoted}: {error}"));
            Ok(Node::Text(text?))
        }
        Some(b'[') => {
            let mut elements = Vec::new();
            while !closes(rest, ']')? {
                elements.push(parse_value(rest)?);
            }
            Ok(Node::List(elements))
        }
        Some(b'{') => {
            let mut members = Vec::new();
            while !closes(rest, '}')? {
                let Node::Text(name) = parse_value(rest)? else {
                    return Err("a member without a name".into());
                };
                *rest = rest.trim_start().strip_prefix(':').ok_or("no colon")?;
                members.push((name, parse_value(rest)?));
            }
            Ok(Node::Object(members))
        }
        _ => {
            let in_number = |c: char| c.is_ascii_digit() || "+-.eE".contains(c);
            let length = rest.find(|c| !in_number(c)).unwrap_or(rest.len());
            let number = take(rest, length);
            let is_number = serde_json::from_str::<&serde_json::value::RawValue>(&number).is_ok();
            match is_number {
                true => Ok(Node::Number(number)),
                false => Err(format!("not a value: {number}{rest}")),
            }
        }
    }
}

/// Goes past an opening bracket or a comma; returns whether the list or object ends instead.
fn closes(rest: &mut &str, close: char) -> Result<bool, String> {
    let inner = rest.trim_start();
    let opens = if close == ']' { '[' } else { '{' };
    if let Some(after) = inner.strip_prefix(close) {
        *rest = after;
        return Ok(true);
    }
    let after = inner
        .strip_prefix(opens)
        .or_else(|| inner.strip_prefix(','))
        .ok_or_else(|| format!("neither a comma nor an end: {inner}"))?;
    if let Some(end) = after.trim_start().strip_prefix(close) {
        *rest = end;
        return Ok(true);
    }
    *rest = after;
    Ok(false)
}

/// The text of a string as JSON.
pub fn quoted(text: &str) -> String {
    Json::from(text).to_string()
}
