//! JSON into a tape: the grammar of RFC 8259, and on top of it an object must not have a name twice: readers of JSON disagree on what that means,
//! and a document that means two things is no fact to count.
//!
//! A parser of the project's own, since those of libraries do not say where in the text a value lies: what is passed on is copied from there, not
//! written anew. A test compares it with serde_json's, broken texts included.

use super::{Doc, Kind, Node, Span, Tape, hash, narrow, slot_of};
use crate::document::special_from;

/// More than any document needs; recursion over a document stays far from the end of a thread's stack.
const DEPTH_MAX: usize = 128;

/// The depth at which the members of the document itself are read.
const OWN_DEPTH: usize = 1;

/// Digits that any 64-bit integer has room for.
const DIGITS_SURE: usize = 18;

impl Tape {
    /// Reads one JSON object, and nothing behind it but white space. `Err` says what is wrong with the text.
    pub(crate) fn parse_json(&mut self, text: &str) -> Result<(), String> {
        self.clear();
        let mut parser = Parser { tape: self, text, bytes: text.as_bytes(), at: 0, spaces: 0 };
        parser.document().map_err(|fault| format!("the value is not JSON: {fault}"))?;
        match (Doc { text, tape: self }).root().kind() {
            Kind::Object => Ok(()),
            Kind::Null => Err("the value is JSON, but null and not an object".into()),
            Kind::Bool(_) => Err("the value is JSON, but a boolean and not an object".into()),
            Kind::Int(_) | Kind::Float(_) => Err("the value is JSON, but a number and not an object".into()),
            Kind::Text(_) => Err("the value is JSON, but a string and not an object".into()),
            Kind::Array => Err("the value is JSON, but an array and not an object".into()),
        }
    }
}

struct Parser<'t> {
    tape: &'t mut Tape,
    text: &'t str,
    bytes: &'t [u8],
    /// The next byte to read.
    at: usize,
    /// White space between tokens so far.
    spaces: usize,
}

impl Parser<'_> {
    fn document(&mut self) -> Result<(), String> {
        self.skip_space();
        self.value(0)?;
        self.skip_space();
        if self.at < self.bytes.len() { Err(self.expected("nothing more")) } else { Ok(()) }
    }

    /// `depth`: how many containers are around it.
    fn value(&mut self, depth: usize) -> Result<(), String> {
        match self.peek() {
            Some(b'"') => {
                let span = self.string()?;
                self.tape.nodes.push(Node::Text(span));
                Ok(())
            }
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b't') => self.literal("true", Node::Bool(true)),
            Some(b'f') => self.literal("false", Node::Bool(false)),
            Some(b'n') => self.literal("null", Node::Null),
            _ => Err(self.expected("a value")),
        }
    }

    fn object(&mut self, depth: usize) -> Result<(), String> {
        let (from, spaces) = self.begin(depth)?;
        let (at, names_from) = (self.tape.open(), self.tape.fingerprints.len());
        self.skip_space();
        let mut more = !self.eat(b'}');
        while more {
            if self.peek() != Some(b'"') {
                return Err(self.expected("a name in quotes"));
            }
            let name = self.string()?;
            self.push_name(name, depth + 1);
            self.skip_space();
            if !self.eat(b':') {
                return Err(self.expected("a colon"));
            }
            self.skip_space();
            self.value(depth + 1)?;
            more = self.goes_on(b'}', "a comma or the object's end")?;
        }
        let text = self.text_since(from, spaces, depth);
        self.tape.close(at, |end| Node::Object { end, text });
        self.check_names(names_from)?;
        self.tape.fingerprints.truncate(names_from);
        Ok(())
    }

    fn array(&mut self, depth: usize) -> Result<(), String> {
        let (from, spaces) = self.begin(depth)?;
        let at = self.tape.open();
        self.skip_space();
        let mut more = !self.eat(b']');
        while more {
            self.value(depth + 1)?;
            more = self.goes_on(b']', "a comma or the array's end")?;
        }
        let text = self.text_since(from, spaces, depth);
        self.tape.close(at, |end| Node::Array { end, text });
        Ok(())
    }

    /// Steps into a container.
    fn begin(&mut self, depth: usize) -> Result<(usize, usize), String> {
        if depth >= DEPTH_MAX {
            return Err(format!("it is nested deeper than {DEPTH_MAX}"));
        }
        self.at += 1;
        Ok((self.at - 1, self.spaces))
    }

    /// Behind a value in a container: whether another one follows.
    fn goes_on(&mut self, closing: u8, what: &str) -> Result<bool, String> {
        self.skip_space();
        if self.eat(b',') {
            self.skip_space();
            return Ok(true);
        }
        if self.eat(closing) { Ok(false) } else { Err(self.expected(what)) }
    }

    /// The text of a container that ends here, if it can be passed on as it is. The document itself may be added to; white space is left out.
    fn text_since(&self, from: usize, spaces: usize, depth: usize) -> Span {
        if depth == 0 || self.spaces != spaces { Span::NONE } else { Span::of(from, self.at) }
    }

    /// What is between the quotes.
    fn string(&mut self) -> Result<Span, String> {
        let start = self.at + 1;
        let stop = special_from(self.bytes, start);
        if self.bytes.get(stop) == Some(&b'"') {
            self.at = stop + 1;
            return Ok(Span::of(start, stop));
        }
        self.escaped(start, stop)
    }

    /// A string with escapes: it is put together in the arena.
    fn escaped(&mut self, mut from: usize, mut stop: usize) -> Result<Span, String> {
        let arena = self.tape.arena.len();
        loop {
            self.tape.arena.push_str(&self.text[from..stop]);
            self.at = stop;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(self.tape.interned_since(arena));
                }
                Some(b'\\') => {
                    let meant = self.escape()?;
                    self.tape.arena.push(meant);
                    from = self.at;
                    stop = special_from(self.bytes, from);
                }
                Some(_) => return Err(self.expected("no control character in a string")),
                None => return Err(self.expected("the string's end")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, String> {
        let code = self.bytes.get(self.at + 1).copied();
        let meant = match code {
            Some(b'"' | b'\\' | b'/') => code.map(char::from),
            Some(b'b') => Some('\u{8}'),
            Some(b'f') => Some('\u{c}'),
            Some(b'n') => Some('\n'),
            Some(b'r') => Some('\r'),
            Some(b't') => Some('\t'),
            Some(b'u') => return self.unicode(),
            _ => None,
        };
        let meant = meant.ok_or_else(|| self.expected("an escape that JSON has"))?;
        self.at += 2;
        Ok(meant)
    }

    /// `\u` and four digits; two of them for what lies beyond.
    fn unicode(&mut self) -> Result<char, String> {
        let first = self.unit(self.at);
        let (code, len) = match first {
            Some(high @ 0xd800..=0xdbff) => {
                let low = self.unit(self.at + 6).filter(|low| (0xdc00..=0xdfff).contains(low));
                (low.map(|low| 0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00)), 12)
            }
            other => (other, 6),
        };
        let meant = code.and_then(char::from_u32).ok_or_else(|| self.expected("an escape that stands for a character"))?;
        self.at += len;
        Ok(meant)
    }

    fn unit(&self, at: usize) -> Option<u32> {
        let digits = self.bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
        digits.iter().try_fold(0, |number, digit| Some(number << 4 | char::from(*digit).to_digit(16)?))
    }

    fn number(&mut self) -> Result<(), String> {
        let start = self.at;
        let is_negative = self.eat(b'-');
        let first = self.at;
        let mut number: i64 = 0;
        // A number that begins with a zero is over behind it.
        let digits_max = if self.peek() == Some(b'0') { 1 } else { usize::MAX };
        while let Some(digit @ b'0'..=b'9') = self.peek()
            && self.at - first < digits_max
        {
            number = number.wrapping_mul(10).wrapping_add(i64::from(digit - b'0'));
            self.at += 1;
        }
        let digits = self.at - first;
        if digits == 0 {
            return Err(self.expected("a digit"));
        }
        let is_whole = !matches!(self.peek(), Some(b'.' | b'e' | b'E'));
        let node = match is_whole {
            // An integer knows no -0.
            true if digits <= DIGITS_SURE && !(is_negative && number == 0) => Node::Int(if is_negative { -number } else { number }),
            // One that is too large for the language of expressions becomes a float there; what is passed on keeps its text.
            true => match self.text[start..self.at].parse() {
                Ok(number) if number != 0 => Node::Int(number),
                _ => self.float(start)?,
            },
            false => {
                self.skip_fraction()?;
                self.float(start)?
            }
        };
        self.tape.nodes.push(node);
        Ok(())
    }

    fn skip_fraction(&mut self) -> Result<(), String> {
        if self.eat(b'.') {
            self.skip_digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.skip_digits()?;
        }
        Ok(())
    }

    fn skip_digits(&mut self) -> Result<(), String> {
        let from = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == from { Err(self.expected("a digit")) } else { Ok(()) }
    }

    fn float(&self, start: usize) -> Result<Node, String> {
        let number = self.text[start..self.at].parse().ok().filter(|number: &f64| number.is_finite());
        number.map(Node::Float).ok_or_else(|| format!("the number at byte {start} is too large"))
    }

    fn literal(&mut self, word: &str, node: Node) -> Result<(), String> {
        if !self.bytes[self.at..].starts_with(word.as_bytes()) {
            return Err(self.expected("a value"));
        }
        self.at += word.len();
        self.tape.nodes.push(node);
        Ok(())
    }

    fn push_name(&mut self, span: Span, depth: usize) {
        let name = Doc { text: self.text, tape: self.tape }.bytes(span);
        let (hash, at) = (hash(name), narrow(self.tape.nodes.len()));
        self.tape.fingerprints.push((hash, at));
        if depth == OWN_DEPTH {
            self.tape.slots[slot_of(hash)] = at;
        }
        self.tape.nodes.push(Node::Key(span));
    }

    fn check_names(&mut self, from: usize) -> Result<(), String> {
        let names = &mut self.tape.fingerprints[from..];
        // Few names are compared with each other, which is faster than putting them in order.
        let twice = if names.len() <= 24 {
            let twice = |(index, (print, _)): (usize, &(u64, u32))| names[..index].iter().any(|(before, _)| before == print);
            names.iter().enumerate().any(twice)
        } else {
            names.sort_unstable();
            names.windows(2).any(|pair| pair[0].0 == pair[1].0)
        };
        if twice { self.check_names_for_certain(from) } else { Ok(()) }
    }

    /// Two fingerprints are the same: maybe two names are.
    #[cold]
    fn check_names_for_certain(&self, from: usize) -> Result<(), String> {
        let doc = Doc { text: self.text, tape: self.tape };
        let mut seen = std::collections::HashSet::new();
        for (_, key_at) in &self.tape.fingerprints[from..] {
            let Node::Key(span) = self.tape.nodes[*key_at as usize] else { unreachable!("fingerprints are of keys") };
            if !seen.insert(doc.span(span)) {
                return Err(format!("the name {:?} comes twice in one object", doc.span(span)));
            }
        }
        Ok(())
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
            self.spaces += 1;
        }
    }

    fn eat(&mut self, wanted: u8) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[cold]
    fn expected(&self, what: &str) -> String {
        match self.text.get(self.at..).map(|rest| rest.chars().next()) {
            Some(None) => format!("it ends where {what} is expected"),
            Some(Some(found)) => format!("{found:?} at byte {}, where {what} is expected", self.at),
            // Every place that is read lies between two characters.
            None => format!("byte {}, where {what} is expected", self.at),
        }
    }
}
