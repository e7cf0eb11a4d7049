//! The text of a checkpoint (C2SP tlog-checkpoint), and what is signed with a time over one (C2SP tlog-cosignature): what a log's key signs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Begins what is signed with a time. No log is called so: its checkpoints would look like that.
const COSIGNATURE: &str = "cosignature/v1";
/// In bytes.
const LONGEST_ORIGIN: usize = 255;
/// In bytes, of a root: a SHA-256.
const ROOT: usize = 32;

/// Whether it is one of the two, to the byte: each has one form.
pub(super) fn is_checkpoint(message: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(message) else { return false };
    match text.strip_prefix(COSIGNATURE).and_then(|rest| rest.strip_prefix("\ntime ")) {
        Some(timed) => timed.split_once('\n').is_some_and(|(time, text)| is_number(time) && is_text(text)),
        None => is_text(text),
    }
}

/// Three lines: origin, size, root. Lines of extensions are signed by none of our logs.
fn is_text(text: &str) -> bool {
    let Some(lines) = text.strip_suffix('\n') else { return false };
    match lines.split('\n').collect::<Vec<_>>()[..] {
        [origin, size, root] => is_origin(origin) && is_number(size) && is_root(root),
        _ => false,
    }
}

fn is_origin(line: &str) -> bool {
    let is_bad = |character: char| character.is_whitespace() || character.is_control() || character == '+';
    (1..=LONGEST_ORIGIN).contains(&line.len()) && !line.contains(is_bad) && line != COSIGNATURE
}

/// A size or a time: decimal, without leading zeros, below 2^63.
fn is_number(line: &str) -> bool {
    let is_decimal = line.bytes().all(|byte| byte.is_ascii_digit()) && (line == "0" || !line.starts_with('0'));
    is_decimal && line.parse::<i64>().is_ok()
}

/// Of the ways to write it in base64, the one that RFC 4648 §4 has.
fn is_root(line: &str) -> bool {
    STANDARD.decode(line).is_ok_and(|root| root.len() == ROOT)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::super::Kind;
    use super::*;

    const ROOT_LINE: &str = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";
    /// The example of C2SP tlog-checkpoint.
    const TEXT: &str = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

    fn timed(time: impl std::fmt::Display, text: &str) -> String {
        format!("cosignature/v1\ntime {time}\n{text}")
    }

    fn with(origin: &str, size: &str, root: &str) -> String {
        format!("{origin}\n{size}\n{root}\n")
    }

    #[test]
    fn a_checkpoint_is_three_lines_with_or_without_a_time_before_them() {
        let longest = "ö".repeat(127) + "o";
        let zeros = format!("{}=", "A".repeat(43));
        for text in [
            TEXT.to_owned(),
            with("o", "0", &zeros),
            with(&longest, "9223372036854775807", ROOT_LINE),
            // What begins as other kinds do.
            with("0.example/log", "1", ROOT_LINE),
            with("eyJhbGciOiJFUzI1NiJ9.e30", "1", ROOT_LINE),
            with("cosignature/v10", "1", ROOT_LINE),
        ] {
            for message in [
                text.clone(),
                timed(0, &text),
                timed(1_679_315_147, &text),
                timed(9_223_372_036_854_775_807_u64, &text),
            ] {
                assert!(is_checkpoint(message.as_bytes()), "{message:?}");
                assert_eq!(Kind::of(message.as_bytes()), Some(Kind::Checkpoint), "{message:?}");
            }
        }
    }

    #[test]
    fn what_differs_from_a_checkpoint_by_anything_is_none() {
        let too_long = "o".repeat(256);
        let origins = [
            "",
            "a b",
            " a",
            "a\u{a0}b",
            "a\u{2028}b",
            "a\u{3000}",
            "a+b",
            "a\tb",
            "a\rb",
            "a\0b",
            "a\u{7f}b",
            "a\u{85}b",
            "cosignature/v1",
            &too_long,
        ];
        let numbers = ["", "00", "01", "-1", "+1", " 1", "1 ", "1\r", "0x1", "1_0", "٣", "9223372036854775808", "1e3"];
        let spared = ROOT_LINE.trim_end_matches('=');
        let other_bits = ROOT_LINE.replace("2I=", "2J=");
        let other_alphabet = ROOT_LINE.replace('/', "_");
        let roots = [
            "",
            spared,
            &other_bits,
            &other_alphabet,
            &ROOT_LINE[4..],
            "AAAA",
            &format!("{ROOT_LINE}="),
            &format!("AAAA{ROOT_LINE}"),
            &format!(" {ROOT_LINE}"),
            &format!("{ROOT_LINE}\r"),
            &"A".repeat(44),
            &format!("{}==", "A".repeat(42)),
        ];
        let mut wrong: Vec<String> = Vec::new();
        wrong.extend(origins.iter().map(|origin| with(origin, "1", ROOT_LINE)));
        wrong.extend(numbers.iter().map(|size| with("o", size, ROOT_LINE)));
        wrong.extend(roots.iter().map(|root| with("o", "1", root)));
        wrong.extend(wrong.clone().iter().map(|text| timed(1, text)));
        wrong.extend(numbers.iter().map(|time| timed(time, TEXT)));
        let cut = &TEXT[..TEXT.len() - 1];
        wrong
            .extend(["", "\n", cut, "o\n1\n", "\n\n\n"].into_iter().flat_map(|text| [text.to_owned(), timed(1, text)]));
        for more in ["\n", "an extension\n", " ", "\0", "\n— o AAAA\n"] {
            for text in [format!("{TEXT}{more}"), format!("{more}{TEXT}")] {
                wrong.extend([timed(1, &text), text]);
            }
        }
        wrong.push(TEXT.replace('\n', "\r\n"));
        wrong.push(timed(1, &timed(1, TEXT)));
        wrong.push(format!("cosignature/v1\n{TEXT}"));
        wrong.push(format!("cosignature/v2\ntime 1\n{TEXT}"));
        wrong.push(format!("Cosignature/v1\ntime 1\n{TEXT}"));
        wrong.push(format!("cosignature/v1\ntime  1\n{TEXT}"));
        wrong.push(format!("time 1\n{TEXT}"));
        for message in wrong {
            assert!(!is_checkpoint(message.as_bytes()), "{message:?}");
        }
        assert!(!is_checkpoint(&[&[0xff], TEXT.as_bytes()].concat()));
    }

    proptest! {
        #[test]
        fn whatever_is_written_as_one_is_one_and_of_no_other_kind(
            origin in "[^\\s\\p{Cc}+]{1,60}", size in 0..=i64::MAX, root in any::<[u8; 32]>(), time in 0..=i64::MAX,
        ) {
            prop_assume!(origin != COSIGNATURE);
            let text = with(&origin, &size.to_string(), &STANDARD.encode(root));
            for message in [text.clone(), timed(time, &text)] {
                prop_assert_eq!(Kind::of(message.as_bytes()), Some(Kind::Checkpoint));
            }
        }

        #[test]
        fn one_with_anything_behind_it_or_without_its_end_is_none(more in "\\PC{0,3}\n?|\n+", cut in 1..TEXT.len()) {
            prop_assume!(!more.is_empty());
            prop_assert!(!is_checkpoint([TEXT, &more].concat().as_bytes()));
            prop_assert!(!is_checkpoint(&TEXT.as_bytes()[..cut]));
        }

        #[test]
        fn random_bytes_are_none(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(!is_checkpoint(&bytes));
        }
    }
}
