//! The part of VRL that is evaluated without VRL: paths, literals, comparisons, `&&`, `||`, `!`, parentheses, `if` and `else`.
//!
//! It must mean what VRL means. Whatever it does not understand it leaves to VRL, so it need not be complete.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::{Operand, Scope};
use crate::tape::Name;

#[derive(Debug)]
pub(super) enum Native {
    Path(Vec<Name>),
    Record(Field),
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Box<str>),
    Not(Box<Native>),
    And(Box<Native>, Box<Native>),
    Or(Box<Native>, Box<Native>),
    Compare(Comparison, Box<Native>, Box<Native>),
    /// A path compared with a string, the most frequent of all conditions: equal (`true`) or unequal.
    IsText(Vec<Name>, Box<str>, bool),
    /// Condition, then, else.
    If(Box<Native>, Box<Native>, Box<Native>),
}

/// What `%name` stands for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Field {
    Key,
    Topic,
    Partition,
    Offset,
    Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    Unequal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

impl Native {
    /// `None` when the text needs VRL.
    pub(super) fn parse(text: &str) -> Option<Native> {
        let mut parser = Parser { rest: text };
        let native = parser.or()?;
        parser.skip_space();
        parser.rest.is_empty().then_some(native)
    }

    pub(super) fn evaluate<'a>(&'a self, scope: Scope<'a>) -> Result<Operand<'a>, String> {
        Ok(match self {
            Native::Path(path) => scope.doc.find(path).map_or(Operand::Null, Operand::from),
            Native::Record(field) => field.of(scope)?,
            Native::Null => Operand::Null,
            Native::Bool(value) => Operand::Bool(*value),
            Native::Int(number) => Operand::Int(*number),
            Native::Float(number) => Operand::Float(*number),
            Native::Text(text) => Operand::Text(Cow::Borrowed(text)),
            Native::Not(inner) => match inner.evaluate(scope)? {
                Operand::Bool(value) => Operand::Bool(!value),
                other => return Err(format!("! wants true or false, not {other}")),
            },
            Native::Or(left, right) => match left.evaluate(scope)? {
                Operand::Null | Operand::Bool(false) => right.evaluate(scope)?,
                other => other,
            },
            Native::And(left, right) => match left.evaluate(scope)? {
                Operand::Null | Operand::Bool(false) => Operand::Bool(false),
                Operand::Bool(true) => match right.evaluate(scope)? {
                    Operand::Null => Operand::Bool(false),
                    Operand::Bool(value) => Operand::Bool(value),
                    other => return Err(format!("&& wants true or false, not {other}")),
                },
                other => return Err(format!("&& wants true or false, not {other}")),
            },
            Native::Compare(comparison, left, right) => Operand::Bool(comparison.holds(&left.evaluate(scope)?, &right.evaluate(scope)?)?),
            Native::IsText(path, text, wanted) => Operand::Bool(is_text(scope, path, text) == *wanted),
            Native::If(condition, then, otherwise) => {
                // The most frequent condition, without a detour.
                let holds = match &**condition {
                    Native::IsText(path, text, wanted) => is_text(scope, path, text) == *wanted,
                    other => matches!(other.evaluate(scope)?, Operand::Bool(true)),
                };
                let chosen = if holds { then } else { otherwise };
                if matches!(**chosen, Native::Null) { Operand::Null } else { chosen.evaluate(scope)? }
            }
        })
    }

    /// Whether it is true or false, whatever the record holds. VRL wants that of a condition, and says so when it is not.
    fn is_condition(&self) -> bool {
        match self {
            Native::Bool(_) | Native::Compare(..) | Native::IsText(..) => true,
            Native::Not(inner) => inner.is_condition(),
            Native::And(left, right) | Native::Or(left, right) => left.is_condition() && right.is_condition(),
            Native::Path(_) | Native::Record(_) | Native::Null | Native::Int(_) | Native::Float(_) | Native::Text(_) | Native::If(..) => {
                false
            }
        }
    }

    pub(super) fn sees(&self, field: &str) -> bool {
        match self {
            Native::Path(path) | Native::IsText(path, ..) => path.first().is_none_or(|first| first.as_str() == field),
            Native::Not(inner) => inner.sees(field),
            Native::And(left, right) | Native::Or(left, right) | Native::Compare(_, left, right) => left.sees(field) || right.sees(field),
            Native::If(condition, then, otherwise) => condition.sees(field) || then.sees(field) || otherwise.sees(field),
            Native::Record(_) | Native::Null | Native::Bool(_) | Native::Int(_) | Native::Float(_) | Native::Text(_) => false,
        }
    }
}

impl Field {
    fn of(self, scope: Scope<'_>) -> Result<Operand<'_>, String> {
        Ok(match self {
            Field::Key => match scope.record.key.map(std::str::from_utf8) {
                Some(Ok(key)) => Operand::Text(Cow::Borrowed(key)),
                Some(Err(_)) => return Err("the record's key is not UTF-8".into()),
                None => Operand::Null,
            },
            Field::Topic => Operand::Text(Cow::Borrowed(scope.topic)),
            Field::Partition => Operand::Int(i64::from(scope.record.partition.get())),
            Field::Offset => Operand::Int(i64::try_from(scope.record.offset.get()).unwrap_or(i64::MAX)),
            Field::Timestamp => Operand::Int(scope.record.timestamp.as_millis()),
        })
    }
}

impl Comparison {
    fn holds(self, left: &Operand<'_>, right: &Operand<'_>) -> Result<bool, String> {
        match self {
            Comparison::Equal => return Ok(equal(left, right)),
            Comparison::Unequal => return Ok(!equal(left, right)),
            Comparison::Greater | Comparison::GreaterOrEqual | Comparison::Less | Comparison::LessOrEqual => {}
        }
        let order = compare(left, right).ok_or_else(|| format!("{left} cannot be compared with {right}"))?;
        Ok(match self {
            Comparison::Greater => order == Ordering::Greater,
            Comparison::GreaterOrEqual => order != Ordering::Less,
            Comparison::Less => order == Ordering::Less,
            Comparison::LessOrEqual => order != Ordering::Greater,
            Comparison::Equal | Comparison::Unequal => unreachable!("answered above"),
        })
    }
}

fn is_text(scope: Scope<'_>, path: &[Name], text: &str) -> bool {
    scope.doc.find(path).is_some_and(|item| item.is_text(text))
}

fn equal(left: &Operand<'_>, right: &Operand<'_>) -> bool {
    match (left, right) {
        (Operand::Item(_) | Operand::Made(_), Operand::Item(_) | Operand::Made(_)) => left.is_same(right),
        (Operand::Null, Operand::Null) => true,
        (Operand::Bool(left), Operand::Bool(right)) => left == right,
        _ => compare(left, right) == Some(Ordering::Equal),
    }
}

/// Numbers with numbers, strings with strings.
#[expect(clippy::cast_precision_loss, reason = "as VRL does")]
pub(crate) fn compare(left: &Operand<'_>, right: &Operand<'_>) -> Option<Ordering> {
    match (left, right) {
        (Operand::Int(left), Operand::Int(right)) => Some(left.cmp(right)),
        (Operand::Int(left), Operand::Float(right)) => (*left as f64).partial_cmp(right),
        (Operand::Float(left), Operand::Int(right)) => left.partial_cmp(&(*right as f64)),
        (Operand::Float(left), Operand::Float(right)) => left.partial_cmp(right),
        (Operand::Text(left), Operand::Text(right)) => Some(left.as_bytes().cmp(right.as_bytes())),
        _ => None,
    }
}

struct Parser<'t> {
    rest: &'t str,
}

/// Longer ones first, where one is the beginning of another.
const COMPARISONS: [(&str, Comparison); 6] = [
    ("==", Comparison::Equal),
    ("!=", Comparison::Unequal),
    (">=", Comparison::GreaterOrEqual),
    ("<=", Comparison::LessOrEqual),
    (">", Comparison::Greater),
    ("<", Comparison::Less),
];

impl<'t> Parser<'t> {
    fn or(&mut self) -> Option<Native> {
        let mut left = self.and()?;
        while self.eat("||") {
            left = Native::Or(Box::new(left), Box::new(self.and()?));
        }
        Some(left)
    }

    fn and(&mut self) -> Option<Native> {
        let mut left = self.comparison()?;
        while self.eat("&&") {
            left = Native::And(Box::new(left), Box::new(self.comparison()?));
        }
        Some(left)
    }

    /// One comparison at most: VRL refuses chains.
    fn comparison(&mut self) -> Option<Native> {
        let left = self.unary()?;
        match COMPARISONS.into_iter().find(|(token, _)| self.eat(token)) {
            Some((_, comparison)) => Some(match (comparison, left, self.unary()?) {
                (Comparison::Equal, Native::Path(path), Native::Text(text)) => Native::IsText(path, text, true),
                (Comparison::Unequal, Native::Path(path), Native::Text(text)) => Native::IsText(path, text, false),
                (comparison, left, right) => Native::Compare(comparison, Box::new(left), Box::new(right)),
            }),
            None => Some(left),
        }
    }

    fn unary(&mut self) -> Option<Native> {
        if self.eat("!") {
            return Some(Native::Not(Box::new(self.unary()?)));
        }
        if self.eat("(") {
            let inner = self.or()?;
            return self.eat(")").then_some(inner);
        }
        self.skip_space();
        match self.rest.as_bytes().first()? {
            b'.' => self.path(),
            b'%' => self.record_field(),
            b'"' => self.string(),
            b'-' | b'0'..=b'9' => self.number(),
            _ => match self.word()? {
                "true" => Some(Native::Bool(true)),
                "false" => Some(Native::Bool(false)),
                "null" => Some(Native::Null),
                "if" => self.conditional(),
                _ => None,
            },
        }
    }

    /// Behind `if`. Without `else` it is null.
    fn conditional(&mut self) -> Option<Native> {
        let condition = self.or().filter(Native::is_condition)?;
        let then = self.block()?;
        let otherwise = if !self.eat_word("else") {
            Native::Null
        } else if self.eat_word("if") {
            self.conditional()?
        } else {
            self.block()?
        };
        Some(Native::If(Box::new(condition), Box::new(then), Box::new(otherwise)))
    }

    fn block(&mut self) -> Option<Native> {
        if !self.eat("{") {
            return None;
        }
        let inner = self.or()?;
        self.eat("}").then_some(inner)
    }

    fn eat_word(&mut self, wanted: &str) -> bool {
        let before = self.rest;
        self.skip_space();
        let found = self.word() == Some(wanted);
        if !found {
            self.rest = before;
        }
        found
    }

    fn path(&mut self) -> Option<Native> {
        let mut path = Vec::new();
        while let Some(rest) = self.rest.strip_prefix('.') {
            self.rest = rest;
            path.push(Name::new(self.word()?));
        }
        self.ends_cleanly().then_some(Native::Path(path))
    }

    fn record_field(&mut self) -> Option<Native> {
        self.rest = self.rest.strip_prefix('%')?;
        let field = match self.word()? {
            "key" => Field::Key,
            "topic" => Field::Topic,
            "partition" => Field::Partition,
            "offset" => Field::Offset,
            "timestamp" => Field::Timestamp,
            _ => return None,
        };
        self.ends_cleanly().then_some(Native::Record(field))
    }

    /// No escapes and no templates: those are for VRL.
    fn string(&mut self) -> Option<Native> {
        let (text, rest) = self.rest.strip_prefix('"')?.split_once('"')?;
        if text.contains(['\\', '{', '\n']) {
            return None;
        }
        self.rest = rest;
        Some(Native::Text(text.into()))
    }

    fn number(&mut self) -> Option<Native> {
        let sign = usize::from(self.rest.starts_with('-'));
        let body = &self.rest[sign..];
        let len = sign + body.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
        let (text, rest) = self.rest.split_at(len);
        self.rest = rest;
        if !self.ends_cleanly() || !body.starts_with(|first: char| first.is_ascii_digit()) || text.ends_with('.') {
            return None;
        }
        if text.contains('.') { text.parse().ok().map(Native::Float) } else { text.parse().ok().map(Native::Int) }
    }

    fn word(&mut self) -> Option<&'t str> {
        let len = self.rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
        let (word, rest) = self.rest.split_at(len);
        self.rest = rest;
        // A name that begins with a digit is legal in places where VRL reads it otherwise.
        (!word.is_empty() && !word.as_bytes()[0].is_ascii_digit()).then_some(word)
    }

    /// What follows is not part of the token that was just read, nor an index or a call.
    fn ends_cleanly(&self) -> bool {
        !self.rest.starts_with(|next: char| next.is_alphanumeric() || matches!(next, '.' | '[' | '(' | '_' | '@' | '"'))
    }

    fn eat(&mut self, token: &str) -> bool {
        self.skip_space();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t']);
    }
}
