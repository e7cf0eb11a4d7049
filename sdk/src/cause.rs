//! An error in one line with all its causes.

use std::{error::Error, fmt::Write as _, sync::Arc};

/// What tonic says above the cause that matters.
const SAYS_NOTHING: &str = "transport error";

/// The error's text and that of each cause below it, without those that only repeat what was said.
pub(crate) fn whole(error: &(dyn Error + 'static)) -> Arc<str> {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) && (said != SAYS_NOTHING || cause.source().is_none()) {
            // Writing to a String cannot fail.
            let _ = write!(text, ": {said}");
        }
        next = cause.source();
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Layer(&'static str, #[source] Option<Box<Layer>>);

    #[test]
    fn causes_are_told_once_each() {
        let error =
            Layer("issuer cannot be reached", Some(Box::new(Layer("refused", Some(Box::new(Layer("refused", None)))))));
        assert_eq!(&*whole(&error), "issuer cannot be reached: refused");
    }
}
