//! Text to parts: a recursive descent with one token of look-ahead.

use super::{Comparison, DEPTH_MAX, Field, Function, NODES_MAX, Node};
use crate::route::Pattern;

/// What is wrong, and where.
type Problem = String;

/// The parts of a text, and whether it asks about a request.
pub(super) fn parse(text: &str) -> Result<(Node, bool), Problem> {
    let mut parser = Parser {
        text,
        at: 0,
        nodes: 0,
        depth: 0,
        needs_http: false,
    };
    let node = parser.expression()?;
    parser.skip_blanks();
    if parser.at < text.len() {
        return Err(parser.problem("ends before this"));
    }
    Ok((node, parser.needs_http))
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    nodes: usize,
    depth: usize,
    needs_http: bool,
}

impl<'a> Parser<'a> {
    fn problem(&self, problem: &str) -> Problem {
        format!("byte {}: {problem}", self.at)
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_ascii_start().len();
    }

    /// Takes a sign, if it comes next.
    fn takes(&mut self, sign: &str) -> bool {
        self.skip_blanks();
        let comes = self.rest().starts_with(sign);
        self.at += if comes { sign.len() } else { 0 };
        comes
    }

    fn expect(&mut self, sign: &str) -> Result<(), Problem> {
        match self.takes(sign) {
            true => Ok(()),
            false => Err(self.problem(&format!("{sign} is missing"))),
        }
    }

    /// Takes a name, if one comes next.
    fn name(&mut self) -> Option<&'a str> {
        self.skip_blanks();
        let rest = self.rest();
        let is_part = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let length = rest.bytes().take_while(|b| is_part(*b)).count();
        let is_name = rest.bytes().next().is_some_and(|b| !b.is_ascii_digit());
        if length == 0 || !is_name {
            return None;
        }
        self.at += length;
        Some(&rest[..length])
    }

    /// Counts a part.
    fn node(&mut self, node: Node) -> Result<Node, Problem> {
        self.nodes += 1;
        match self.nodes > NODES_MAX {
            true => Err(self.problem("has too many parts")),
            false => Ok(node),
        }
    }

    fn expression(&mut self) -> Result<Node, Problem> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.problem("is nested too deeply"));
        }
        let condition = self.or()?;
        let node = match self.takes("?") {
            false => condition,
            true => {
                let then = self.expression()?;
                self.expect(":")?;
                let otherwise = self.expression()?;
                self.node(Node::If(Box::new([condition, then, otherwise])))?
            }
        };
        self.depth -= 1;
        Ok(node)
    }

    fn or(&mut self) -> Result<Node, Problem> {
        let mut left = self.and()?;
        while self.takes("||") {
            let right = self.and()?;
            left = self.node(Node::Or(left.into(), right.into()))?;
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Node, Problem> {
        let mut left = self.relation()?;
        while self.takes("&&") {
            let right = self.relation()?;
            left = self.node(Node::And(left.into(), right.into()))?;
        }
        Ok(left)
    }

    fn relation(&mut self) -> Result<Node, Problem> {
        let left = self.unary()?;
        // Longer signs first.
        let signs = [
            ("==", Comparison::Equal),
            ("!=", Comparison::Unequal),
            ("<=", Comparison::AtMost),
            (">=", Comparison::AtLeast),
            ("<", Comparison::Less),
            (">", Comparison::More),
        ];
        for (sign, comparison) in signs {
            if self.takes(sign) {
                let right = self.unary()?;
                return self.node(Node::Compare(comparison, left.into(), right.into()));
            }
        }
        let before = self.at;
        match self.name() {
            Some("in") => {
                let right = self.unary()?;
                self.node(Node::In(left.into(), right.into()))
            }
            _ => {
                self.at = before;
                Ok(left)
            }
        }
    }

    fn unary(&mut self) -> Result<Node, Problem> {
        let mut negated = false;
        while self.takes("!") {
            negated = !negated;
        }
        let node = self.member()?;
        match negated {
            true => self.node(Node::Not(node.into())),
            false => Ok(node),
        }
    }

    fn member(&mut self) -> Result<Node, Problem> {
        let mut node = self.primary()?;
        loop {
            if self.takes("[") {
                let index = self.expression()?;
                self.expect("]")?;
                node = self.node(Node::Index(node.into(), index.into()))?;
            } else if self.takes(".") {
                let name = self
                    .name()
                    .ok_or_else(|| self.problem("a name is missing"))?;
                node = match self.takes("(") {
                    true => self.call(node, name)?,
                    false => {
                        let name = Node::Text(name.to_owned());
                        self.node(Node::Index(node.into(), name.into()))?
                    }
                };
            } else {
                return Ok(node);
            }
        }
    }

    fn call(&mut self, of: Node, name: &str) -> Result<Node, Problem> {
        let function = match name {
            "startsWith" => Function::StartsWith,
            "endsWith" => Function::EndsWith,
            "contains" => Function::Contains,
            "size" => {
                self.expect(")")?;
                return self.node(Node::Size(of.into()));
            }
            "matches" => {
                let Node::Text(text) = self.expression()? else {
                    return Err(self.problem("matches takes a literal"));
                };
                self.expect(")")?;
                // CEL finds it anywhere.
                let anywhere = format!("(?s:.*)(?:{text})(?s:.*)");
                let checked = Pattern::new("matches", &text);
                let pattern = checked.and_then(|_| Pattern::new("matches", &anywhere));
                let pattern = pattern.map_err(|e| self.problem(&e.to_string()))?;
                return self.node(Node::Matches(of.into(), pattern));
            }
            _ => return Err(self.problem(&format!("there is no function {name}"))),
        };
        let argument = self.expression()?;
        self.expect(")")?;
        self.node(Node::Call(function, of.into(), argument.into()))
    }

    fn primary(&mut self) -> Result<Node, Problem> {
        self.skip_blanks();
        match self.rest().bytes().next() {
            Some(b'(') => {
                self.at += 1;
                let node = self.expression()?;
                self.expect(")")?;
                Ok(node)
            }
            Some(b'[') => {
                self.at += 1;
                let list = self.list()?;
                self.node(Node::List(list))
            }
            Some(quote @ (b'\'' | b'"')) => {
                let text = self.text(quote)?;
                self.node(Node::Text(text))
            }
            Some(b'0'..=b'9' | b'-') => {
                let rest = self.rest();
                let digits = rest[1..].bytes().take_while(u8::is_ascii_digit).count();
                let number = rest[..=digits].parse();
                let number = number.map_err(|_| self.problem("is no whole number"))?;
                self.at += digits + 1;
                self.node(Node::Int(number))
            }
            _ => {
                let name = self.name();
                let name = name.ok_or_else(|| self.problem("a value is missing"))?;
                let node = self.named(name)?;
                self.node(node)
            }
        }
    }

    fn list(&mut self) -> Result<Vec<Node>, Problem> {
        let mut list = Vec::new();
        while !self.takes("]") {
            if !list.is_empty() {
                self.expect(",")?;
            }
            list.push(self.expression()?);
        }
        Ok(list)
    }

    fn text(&mut self, quote: u8) -> Result<String, Problem> {
        let mut text = String::new();
        let mut rest = self.rest()[1..].char_indices();
        while let Some((at, char)) = rest.next() {
            match char {
                char if char == char::from(quote) => {
                    self.at += at + 2;
                    return Ok(text);
                }
                '\\' => match rest.next() {
                    Some((_, escaped @ ('\\' | '\'' | '"'))) => text.push(escaped),
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 't')) => text.push('\t'),
                    _ => return Err(self.problem("a text has an escape that is not known")),
                },
                char => text.push(char),
            }
        }
        Err(self.problem("a text does not end"))
    }

    fn named(&mut self, name: &str) -> Result<Node, Problem> {
        Ok(match name {
            "true" => Node::Bool(true),
            "false" => Node::Bool(false),
            "null" => Node::Null,
            "has" => {
                self.expect("(")?;
                let of = self.member()?;
                self.expect(")")?;
                if !matches!(of, Node::Index(..)) {
                    return Err(self.problem("has() takes a field"));
                }
                Node::Has(of.into())
            }
            "claims" => {
                self.needs_http = true;
                Node::Claims
            }
            "request" | "source" | "destination" => {
                self.expect(".")?;
                let field = self.name().unwrap_or_default();
                self.needs_http |= name == "request";
                match (name, field) {
                    ("request", "method") => Node::Field(Field::Method),
                    ("request", "path") => Node::Field(Field::Path),
                    ("request", "host") => Node::Field(Field::Host),
                    ("request", "headers") => Node::Headers,
                    ("source", "identity") => Node::Field(Field::Identity),
                    ("source", "namespace") => Node::Field(Field::Namespace),
                    ("source", "serviceAccount") => Node::Field(Field::ServiceAccount),
                    ("source", "trustDomain") => Node::Field(Field::TrustDomain),
                    ("source", "address") => Node::Field(Field::Address),
                    ("destination", "port") => Node::Field(Field::Port),
                    _ => return Err(self.problem(&format!("there is no {name}.{field}"))),
                }
            }
            _ => return Err(self.problem(&format!("there is no {name}"))),
        })
    }
}
