//! Constraints as text: a bounded parser, and a printer whose text parses back.

use std::fmt;
use std::str::FromStr;

use super::{Constraint, Key, Rule, order};

/// Longest text of a constraint.
pub const CHARACTERS_MAX: usize = 1024;
/// Values in one list.
pub const VALUES_MAX: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseConstraintError {
    #[error("is {0} characters long, at most {CHARACTERS_MAX} are allowed")]
    TooLong(usize),
    #[error(
        "`{0}` has no operator: write KEY==VALUE or KEY!=VALUE, or use <, <=, >, >=, in (A, B), \
         !in (A, B), exists or !exists; for example node.labels.zone==a"
    )]
    NoOperator(String),
    #[error("`{0}` has no value after the operator; write for example node.labels.zone==a")]
    NoValue(String),
    #[error(
        "`{0}` has text after the operator, which takes no value; write node.labels.gpu exists"
    )]
    Surplus(String),
    #[error(
        "`{0}` is no list: write one to {VALUES_MAX} values in parentheses, with commas between \
         them; for example node.labels.zone in (a, b)"
    )]
    List(String),
    #[error(
        "`{0}` has {1} values in its list, at most {VALUES_MAX} are allowed; split it or give the \
         nodes a label in common"
    )]
    TooMany(String, usize),
    #[error(
        "`{0}` compares with what is neither a number nor a version; write for example \
         node.labels.disks>=4 or engine.labels.kernel>=5.15.0"
    )]
    Unordered(String),
    #[error(
        "`{0}` is not a key: use node.id, node.hostname, node.ip, node.role, node.platform.os, \
         node.platform.arch, node.labels.NAME or engine.labels.NAME"
    )]
    UnknownKey(String),
}

/// User text for an error: one line, bounded as it is shown.
fn shown(text: &str) -> String {
    let mut escaped = text.chars().flat_map(char::escape_debug);
    let mut short: String = escaped.by_ref().take(120).collect();
    if escaped.next().is_some() {
        short.push('…');
    }
    short
}

/// No key has these, so the first of them ends it.
fn ends_key(c: char) -> bool {
    c.is_whitespace() || matches!(c, '=' | '!' | '<' | '>')
}

impl FromStr for Constraint {
    type Err = ParseConstraintError;

    fn from_str(text: &str) -> Result<Self, ParseConstraintError> {
        let length = text.chars().count();
        if length > CHARACTERS_MAX {
            return Err(ParseConstraintError::TooLong(length));
        }
        let trimmed = text.trim();
        let (key, rest) = trimmed.split_at(trimmed.find(ends_key).unwrap_or(trimmed.len()));
        let rule = rule(text, rest.trim_start())?;
        Ok(Self { key: key.parse()?, rule })
    }
}

/// An operator of signs, the rule it makes, and whether it is an order.
type Sign = (&'static str, fn(String) -> Rule, bool);

fn rule(text: &str, rest: &str) -> Result<Rule, ParseConstraintError> {
    let signs: [Sign; 6] = [
        ("==", Rule::Equal, false),
        ("!=", Rule::NotEqual, false),
        ("<=", Rule::AtMost, true),
        (">=", Rule::AtLeast, true),
        ("<", Rule::Less, true),
        (">", Rule::Greater, true),
    ];
    for (sign, make, ordered) in signs {
        let Some(value) = rest.strip_prefix(sign) else { continue };
        let value = value.trim();
        if value.is_empty() {
            return Err(ParseConstraintError::NoValue(shown(text)));
        }
        if ordered && !order::comparable(value) {
            return Err(ParseConstraintError::Unordered(shown(text)));
        }
        return Ok(make(value.to_owned()));
    }
    let (negated, word) = match rest.strip_prefix('!') {
        Some(word) => (true, word.trim_start()),
        None => match after_word(rest, "not") {
            Some(word) => (true, word.trim_start()),
            None => (false, rest),
        },
    };
    if let Some(after) = after_word(word, "exists") {
        if !after.trim().is_empty() {
            return Err(ParseConstraintError::Surplus(shown(text)));
        }
        return Ok(if negated { Rule::NotExists } else { Rule::Exists });
    }
    if let Some(after) = after_word(word, "in") {
        let values = list(text, after.trim())?;
        return Ok(if negated { Rule::NotIn(values) } else { Rule::In(values) });
    }
    Err(ParseConstraintError::NoOperator(shown(text)))
}

/// What follows a word that ends there.
fn after_word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let rest = text.strip_prefix(word)?;
    (rest.is_empty() || rest.starts_with(|c: char| c.is_whitespace() || c == '(')).then_some(rest)
}

fn list(text: &str, list: &str) -> Result<Vec<String>, ParseConstraintError> {
    let refused = || ParseConstraintError::List(shown(text));
    let inner =
        list.strip_prefix('(').and_then(|list| list.strip_suffix(')')).ok_or_else(refused)?;
    let values: Vec<&str> = inner.split(',').map(str::trim).collect();
    if values.len() > VALUES_MAX {
        return Err(ParseConstraintError::TooMany(shown(text), values.len()));
    }
    if values.iter().any(|value| value.is_empty() || value.contains(['(', ')'])) {
        return Err(refused());
    }
    Ok(values.into_iter().map(str::to_owned).collect())
}

impl FromStr for Key {
    type Err = ParseConstraintError;

    fn from_str(text: &str) -> Result<Self, ParseConstraintError> {
        let label = |prefix: &str| {
            text.strip_prefix(prefix)
                .filter(|name| !name.is_empty() && name.len() <= CHARACTERS_MAX)
                .filter(|name| !name.contains(ends_key))
                .map(str::to_owned)
        };
        Ok(match text {
            "node.id" => Key::NodeId,
            "node.hostname" => Key::NodeHostname,
            "node.ip" => Key::NodeIp,
            "node.role" => Key::NodeRole,
            "node.platform.os" => Key::PlatformOs,
            "node.platform.arch" => Key::PlatformArch,
            _ => {
                if let Some(name) = label("node.labels.") {
                    Key::NodeLabel(name)
                } else if let Some(name) = label("engine.labels.") {
                    Key::EngineLabel(name)
                } else {
                    return Err(ParseConstraintError::UnknownKey(shown(text)));
                }
            }
        })
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::NodeId => f.write_str("node.id"),
            Key::NodeHostname => f.write_str("node.hostname"),
            Key::NodeIp => f.write_str("node.ip"),
            Key::NodeRole => f.write_str("node.role"),
            Key::PlatformOs => f.write_str("node.platform.os"),
            Key::PlatformArch => f.write_str("node.platform.arch"),
            Key::NodeLabel(name) => write!(f, "node.labels.{name}"),
            Key::EngineLabel(name) => write!(f, "engine.labels.{name}"),
        }
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match &self.rule {
            Rule::Equal(value) => write!(f, "{key}=={value}"),
            Rule::NotEqual(value) => write!(f, "{key}!={value}"),
            Rule::Less(value) => write!(f, "{key}<{value}"),
            Rule::AtMost(value) => write!(f, "{key}<={value}"),
            Rule::Greater(value) => write!(f, "{key}>{value}"),
            Rule::AtLeast(value) => write!(f, "{key}>={value}"),
            Rule::In(values) => write!(f, "{key} in ({})", values.join(", ")),
            Rule::NotIn(values) => write!(f, "{key} !in ({})", values.join(", ")),
            Rule::Exists => write!(f, "{key} exists"),
            Rule::NotExists => write!(f, "{key} !exists"),
        }
    }
}
