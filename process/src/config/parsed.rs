//! Text that becomes one of our types while it is read.

use std::any::TypeId;
use std::fmt;
use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::str::FromStr;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer};
use signet_identity::{SpiffeId, SpiffeIdPattern, TrustDomain, WorkloadId};

/// A value written as text and read by its `FromStr`: SPIFFE IDs, trust domains, patterns, addresses.
///
/// The types of `signet-identity` know no serde; `Located<Parsed<WorkloadId>>` is one in a file. When the parse error's
/// text has a second line, that line is the fix.
#[derive(Clone, Eq, PartialEq)]
pub struct Parsed<T>(pub T);

impl<T> Deref for Parsed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: fmt::Debug> fmt::Debug for Parsed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de, T> Deserialize<'de> for Parsed<T>
where
    T: FromStr + 'static,
    T::Err: fmt::Display,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text(PhantomData))
    }
}

struct Text<T>(PhantomData<T>);

impl<T> Visitor<'_> for Text<T>
where
    T: FromStr + 'static,
    T::Err: fmt::Display,
{
    type Value = Parsed<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Parsed<T>, E> {
        text.parse().map(Parsed).map_err(|cause: T::Err| {
            let cause = format!("`{}`: {cause}", text.escape_debug());
            match example::<T>() {
                Some(example) if !cause.contains('\n') => E::custom(format_args!("{cause}\nwrite {example}")),
                Some(_) | None => E::custom(cause),
            }
        })
    }
}

/// What to write instead, for types whose own errors only say what is wrong.
fn example<T: 'static>() -> Option<&'static str> {
    let examples = [
        (TypeId::of::<SocketAddr>(), "an IP address and a port, such as `127.0.0.1:8080` or `[::1]:8080`"),
        (TypeId::of::<IpAddr>(), "an IP address, such as `127.0.0.1`"),
        (TypeId::of::<TrustDomain>(), "a trust domain, such as `example.org`"),
        (TypeId::of::<SpiffeId>(), "a SPIFFE ID, such as `spiffe://example.org/shop/cart`"),
        (TypeId::of::<WorkloadId>(), "a SPIFFE ID with a path, such as `spiffe://example.org/shop/cart`"),
        (
            TypeId::of::<SpiffeIdPattern>(),
            "a pattern, such as `spiffe://example.org/shop/*` or `spiffe://example.org/**`",
        ),
    ];
    examples.into_iter().find_map(|(of, example)| (of == TypeId::of::<T>()).then_some(example))
}
