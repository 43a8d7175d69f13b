//! Parts to a verdict.

use std::cmp::Ordering;
use std::fmt::Write;
use std::net::IpAddr;

use serde_json::Value as Json;

use super::{Comparison, Expression, Field, Function, Node};
use crate::policy::condition::{Asked, Claims};
use crate::policy::effort::{Effort, Unknown};

#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Text(&'a str),
    List(&'a [Node]),
    Json(&'a Json),
    Headers,
    Claims(&'a Claims),
    Address(IpAddr),
}

impl Expression {
    /// Whether it holds, of the request if it had that path.
    pub(in crate::policy) fn holds<'a, F>(
        &self,
        asked: &Asked<'a, F>,
        path: &str,
        effort: &Effort,
    ) -> Result<bool, Unknown>
    where
        F: IntoIterator<Item = (&'a [u8], &'a [u8])> + Clone,
    {
        Evaluation {
            asked,
            path,
            effort,
        }
        .bool(&self.root)
    }
}

/// Values live as long as the expression and what is asked both do.
struct Evaluation<'v, 'a, F> {
    asked: &'v Asked<'a, F>,
    path: &'v str,
    effort: &'v Effort,
}

impl<'v, 'a: 'v, F> Evaluation<'v, 'a, F>
where
    F: IntoIterator<Item = (&'a [u8], &'a [u8])> + Clone,
{
    fn spend(&self, cost: usize) -> Result<(), Unknown> {
        self.effort.spend(cost)
    }

    fn bool(&self, node: &'v Node) -> Result<bool, Unknown> {
        match self.value(node)? {
            Value::Bool(bool) | Value::Json(&Json::Bool(bool)) => Ok(bool),
            _ => Err(Unknown),
        }
    }

    fn text(&self, node: &'v Node) -> Result<&'v str, Unknown> {
        match self.value(node)? {
            Value::Text(text) => Ok(text),
            Value::Json(Json::String(text)) => Ok(text),
            _ => Err(Unknown),
        }
    }

    fn value(&self, node: &'v Node) -> Result<Value<'v>, Unknown> {
        self.spend(1)?;
        Ok(match node {
            Node::Null => Value::Null,
            Node::Bool(bool) => Value::Bool(*bool),
            Node::Int(int) => Value::Int(*int),
            Node::Text(text) => Value::Text(text),
            Node::List(list) => Value::List(list),
            Node::Headers => Value::Headers,
            Node::Claims => Value::Claims(self.claims()?),
            Node::Field(field) => self.field(*field)?,
            Node::Index(of, name) => self.index(of, name)?.ok_or(Unknown)?,
            Node::Has(of) => match &**of {
                Node::Index(of, name) => Value::Bool(self.index(of, name)?.is_some()),
                _ => return Err(Unknown),
            },
            Node::Not(of) => Value::Bool(!self.bool(of)?),
            Node::And(left, right) => self.both(left, right, false)?,
            Node::Or(left, right) => self.both(left, right, true)?,
            Node::If(parts) => {
                let [condition, then, otherwise] = &**parts;
                let chosen = if self.bool(condition)? {
                    then
                } else {
                    otherwise
                };
                self.value(chosen)?
            }
            Node::Compare(comparison, left, right) => {
                let (left, right) = (self.value(left)?, self.value(right)?);
                Value::Bool(self.compare(*comparison, left, right)?)
            }
            Node::In(left, right) => Value::Bool(self.is_in(left, right)?),
            Node::Call(function, of, argument) => {
                let (of, argument) = (self.text(of)?, self.text(argument)?);
                self.spend(of.len() + argument.len())?;
                Value::Bool(match function {
                    Function::StartsWith => of.starts_with(argument),
                    Function::EndsWith => of.ends_with(argument),
                    Function::Contains => of.contains(argument),
                })
            }
            Node::Matches(of, pattern) => {
                let of = self.text(of)?;
                // Each byte may cost as much as the expression is large.
                self.spend(of.len() * pattern.as_str().len())?;
                Value::Bool(pattern.holds(of))
            }
            Node::Size(of) => self.size(of)?,
        })
    }

    /// `decisive` is what decides whatever the other side is, be it an error.
    fn both(&self, left: &'v Node, right: &'v Node, decisive: bool) -> Result<Value<'v>, Unknown> {
        let left = self.bool(left);
        if left == Ok(decisive) {
            return Ok(Value::Bool(decisive));
        }
        let right = self.bool(right)?;
        if right == decisive {
            return Ok(Value::Bool(decisive));
        }
        left.map(Value::Bool)
    }

    fn claims(&self) -> Result<&'v Claims, Unknown> {
        let http = self.asked.http.as_ref().ok_or(Unknown)?;
        http.claims.ok_or(Unknown)
    }

    fn field(&self, field: Field) -> Result<Value<'v>, Unknown> {
        let identity = || self.asked.caller.identity.ok_or(Unknown);
        let http = || self.asked.http.as_ref().ok_or(Unknown);
        Ok(match field {
            Field::Method => Value::Text(http()?.method),
            Field::Path => http().map(|_| Value::Text(self.path))?,
            Field::Host => Value::Text(http()?.host.ok_or(Unknown)?),
            Field::Identity => Value::Text(identity()?.as_str()),
            Field::Namespace => Value::Text(identity()?.namespace()),
            Field::ServiceAccount => Value::Text(identity()?.service_account()),
            Field::TrustDomain => Value::Text(identity()?.trust_domain_name()),
            Field::Address => Value::Address(self.asked.caller.address),
            Field::Port => Value::Int(self.asked.port.into()),
        })
    }

    /// None where there is no such element.
    fn index(&self, of: &'v Node, name: &'v Node) -> Result<Option<Value<'v>>, Unknown> {
        let of = match of {
            // Without a token there are none.
            Node::Claims if self.claims().is_err() => return Ok(None),
            of => self.value(of)?,
        };
        let name = self.text(name)?;
        match of {
            Value::Headers => Ok(self.header(name)?.map(Value::Text)),
            Value::Claims(claims) => Ok(claims.get(name).map(Value::Json)),
            Value::Json(Json::Object(object)) => Ok(object.get(name).map(Value::Json)),
            _ => Err(Unknown),
        }
    }

    /// The one value of a header.
    fn header(&self, name: &str) -> Result<Option<&'v str>, Unknown> {
        let http = self.asked.http.as_ref().ok_or(Unknown)?;
        let mut found = None;
        for (own, value) in http.fields.clone() {
            self.spend(1)?;
            if own.eq_ignore_ascii_case(name.as_bytes()) && found.replace(value).is_some() {
                return Err(Unknown);
            }
        }
        let text = found.map(|value| std::str::from_utf8(value).map_err(|_| Unknown));
        text.transpose()
    }

    fn is_in(&self, left: &'v Node, right: &'v Node) -> Result<bool, Unknown> {
        let element = self.value(left)?;
        match (self.value(right)?, element) {
            (Value::List(list), element) => {
                for one in list {
                    let one = self.value(one)?;
                    if self.equal(element, one)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            (Value::Json(Json::Array(list)), element) => {
                for one in list {
                    self.spend(1)?;
                    if self.equal(element, Value::Json(one))? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            (Value::Headers, Value::Text(name)) => {
                let http = self.asked.http.as_ref().ok_or(Unknown)?;
                let mut fields = http.fields.clone().into_iter();
                Ok(fields.any(|(own, _)| own.eq_ignore_ascii_case(name.as_bytes())))
            }
            (Value::Claims(claims), Value::Text(name)) => Ok(claims.contains_key(name)),
            (Value::Json(Json::Object(object)), Value::Text(name)) => Ok(object.contains_key(name)),
            _ => Err(Unknown),
        }
    }

    fn compare(
        &self,
        comparison: Comparison,
        left: Value<'v>,
        right: Value<'v>,
    ) -> Result<bool, Unknown> {
        let ordering = || self.order(left, right);
        match comparison {
            Comparison::Equal => self.equal(left, right),
            Comparison::Unequal => self.equal(left, right).map(|equal| !equal),
            Comparison::Less => Ok(ordering()? == Ordering::Less),
            Comparison::AtMost => Ok(ordering()? != Ordering::Greater),
            Comparison::More => Ok(ordering()? == Ordering::Greater),
            Comparison::AtLeast => Ok(ordering()? != Ordering::Less),
        }
    }

    /// Values of different kinds are different.
    fn equal(&self, left: Value<'v>, right: Value<'v>) -> Result<bool, Unknown> {
        Ok(match (plain(left), plain(right)) {
            (Value::Null, Value::Null) => true,
            (Value::Bool(left), Value::Bool(right)) => left == right,
            (Value::Int(left), Value::Int(right)) => left == right,
            (Value::Text(left), Value::Text(right)) => {
                self.spend(left.len().min(right.len()))?;
                left == right
            }
            (Value::Address(left), Value::Text(right))
            | (Value::Text(right), Value::Address(left)) => is_address(left, right),
            (Value::Address(left), Value::Address(right)) => left == right,
            (Value::Headers | Value::Claims(_) | Value::List(_), _)
            | (_, Value::Headers | Value::Claims(_) | Value::List(_)) => return Err(Unknown),
            _ => false,
        })
    }

    fn order(&self, left: Value<'v>, right: Value<'v>) -> Result<Ordering, Unknown> {
        match (plain(left), plain(right)) {
            (Value::Int(left), Value::Int(right)) => Ok(left.cmp(&right)),
            (Value::Text(left), Value::Text(right)) => {
                self.spend(left.len().min(right.len()))?;
                Ok(left.cmp(right))
            }
            _ => Err(Unknown),
        }
    }

    fn size(&self, of: &'v Node) -> Result<Value<'v>, Unknown> {
        let size = match plain(self.value(of)?) {
            Value::Text(text) => {
                self.spend(text.len())?;
                text.chars().count()
            }
            Value::List(list) => list.len(),
            Value::Json(Json::Array(list)) => list.len(),
            Value::Json(Json::Object(object)) => object.len(),
            Value::Claims(claims) => claims.len(),
            _ => return Err(Unknown),
        };
        i64::try_from(size).map(Value::Int).map_err(|_| Unknown)
    }
}

/// JSON's simple values are the language's.
fn plain(value: Value<'_>) -> Value<'_> {
    match value {
        Value::Json(Json::Null) => Value::Null,
        Value::Json(Json::Bool(bool)) => Value::Bool(*bool),
        Value::Json(Json::String(text)) => Value::Text(text),
        Value::Json(Json::Number(number)) => number.as_i64().map_or(value, Value::Int),
        other => other,
    }
}

/// Compares as it is written, without writing it to the heap.
fn is_address(address: IpAddr, text: &str) -> bool {
    struct Rest<'a>(&'a str);
    impl Write for Rest<'_> {
        fn write_str(&mut self, part: &str) -> std::fmt::Result {
            self.0 = self.0.strip_prefix(part).ok_or(std::fmt::Error)?;
            Ok(())
        }
    }
    let mut rest = Rest(text);
    write!(rest, "{address}").is_ok() && rest.0.is_empty()
}
