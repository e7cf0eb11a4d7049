//! Which names a profile permits: an expression in CEL, the Common Expression Language, over what is asked for.
//!
//! ```text
//! spiffe_id, path   text       dns_names   list of texts       key_type   text       ttl_seconds   number
//! ```

use std::fmt;
use std::sync::Arc;

use cel::{Context, Env, Program, Value};

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Permit(Arc<Inner>);

struct Inner {
    text: String,
    program: Program,
    env: Arc<Env>,
}

/// What is asked for.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) spiffe_id: &'a str,
    /// With its slash.
    pub(crate) path: &'a str,
    pub(crate) dns_names: &'a [String],
    pub(crate) key_type: &'a str,
    pub(crate) ttl_seconds: u64,
}

/// Why an expression is none, or says neither yes nor no.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PermitError {
    #[error("the expression is longer than {MAX_BYTES} bytes")]
    TooLong,
    #[error("no expression in CEL: {0}")]
    Malformed(String),
    #[error("it cannot be evaluated: {0}")]
    Evaluation(String),
    #[error("it comes to something else than true or false")]
    NoVerdict,
}

const MAX_BYTES: usize = 1024;

impl Permit {
    /// # Errors
    /// What is wrong with it is found here, as far as an example shows it: a name that there is not, a verdict that is none.
    pub(crate) fn parse(text: &str) -> Result<Self, PermitError> {
        if text.len() > MAX_BYTES {
            return Err(PermitError::TooLong);
        }
        let env = Arc::new(Env::stdlib());
        let program = env.compile(text).map_err(|errors| PermitError::Malformed(one_line(&errors)))?;
        let permit = Self(Arc::new(Inner { text: text.to_owned(), program, env }));
        let example = Request {
            spiffe_id: "spiffe://example.org/a/b",
            path: "/a/b",
            dns_names: &["a.b.example.org".to_owned()],
            key_type: "p256",
            ttl_seconds: 3600,
        };
        permit.allows(example)?;
        Ok(permit)
    }

    /// # Errors
    /// It has no verdict on this; then nothing is permitted.
    pub(crate) fn allows(&self, request: Request<'_>) -> Result<bool, PermitError> {
        let Request { spiffe_id, path, dns_names, key_type, ttl_seconds } = request;
        let mut context = Context::with_env(Arc::clone(&self.0.env));
        context.add_variable_from_value("spiffe_id", spiffe_id.to_owned());
        context.add_variable_from_value("path", path.to_owned());
        let names = dns_names.iter().map(|name| Value::from(name.clone())).collect::<Vec<_>>();
        context.add_variable_from_value("dns_names", names);
        context.add_variable_from_value("key_type", key_type.to_owned());
        context.add_variable_from_value("ttl_seconds", i64::try_from(ttl_seconds).unwrap_or(i64::MAX));
        match self.0.program.execute(&context) {
            Ok(Value::Bool(verdict)) => Ok(verdict),
            Ok(_) => Err(PermitError::NoVerdict),
            Err(error) => Err(PermitError::Evaluation(one_line(&error))),
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0.text
    }
}

fn one_line(error: &impl fmt::Display) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ").chars().take(256).collect()
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Permit({:?})", self.0.text)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn allows(text: &str, dns_names: &[&str]) -> Result<bool, PermitError> {
        let dns_names: Vec<_> = dns_names.iter().map(|name| (*name).to_owned()).collect();
        Permit::parse(text).unwrap().allows(Request {
            spiffe_id: "spiffe://example.org/web/shop",
            path: "/web/shop",
            dns_names: &dns_names,
            key_type: "rsa2048",
            ttl_seconds: 600,
        })
    }

    #[test]
    fn names_keys_and_lives_are_judged() {
        let below = "dns_names.all(name, name.endsWith('.web.example.org'))";
        assert_eq!(allows(below, &["a.web.example.org", "b.web.example.org"]), Ok(true));
        assert_eq!(allows(below, &["a.web.example.org", "bank.example"]), Ok(false));
        assert_eq!(allows("path.startsWith('/web/') && ttl_seconds <= 600", &[]), Ok(true));
        assert_eq!(allows("spiffe_id.matches('^spiffe://example[.]org/web/[a-z]+$')", &[]), Ok(true));
        assert_eq!(allows("key_type != 'rsa2048'", &[]), Ok(false));
    }

    #[test]
    fn an_expression_that_says_neither_yes_nor_no_is_refused_when_it_is_read() {
        for text in ["", "dns_names", "1 + 1", "dns_name == []", "path.startsWith(", "ttl_seconds.endsWith('a')"] {
            assert!(Permit::parse(text).is_err(), "{text}");
        }
        assert_eq!(Permit::parse(&format!("true {}", " ".repeat(1020))).unwrap_err(), PermitError::TooLong);
    }

    #[test]
    fn what_has_no_verdict_on_a_request_permits_nothing() {
        // The example has one name.
        assert!(matches!(allows("dns_names[0] != 'a'", &[]), Err(PermitError::Evaluation(_))));
    }

    #[test]
    fn an_expression_of_any_nesting_is_read_or_refused() {
        for text in ["(".repeat(1000), "!".repeat(1000), "[".repeat(1000), "dns_names.all(a,".repeat(60)] {
            assert!(Permit::parse(&text).is_err());
        }
    }
}
