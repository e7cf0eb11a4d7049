//! The files of a log, by their names (C2SP tlog-tiles, “APIs”).

use std::fmt;
use std::num::NonZeroU8;

use crate::digest::Hour;
use crate::{MOST_ENTRIES, TILE};

#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Resource {
    Checkpoint,
    /// The last one that a quorum of witnesses has cosigned.
    Witnessed,
    /// Hashes of `256^level` entries each.
    Tile {
        level: u8,
        index: u64,
        width: Width,
    },
    /// The entries themselves.
    Entries {
        index: u64,
        width: Width,
    },
    /// What was logged in the hours from this one on.
    Digest(Hour),
    /// The same as the last of them.
    LatestDigest,
}

/// How many of 256 a tile or bundle has.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Width {
    Whole,
    Partial(NonZeroU8),
}

const WITNESSED: &str = "checkpoint.witnessed";
/// Six levels hold the tallest tree.
pub(crate) const MAX_LEVEL: u8 = 5;

impl Width {
    /// None where there is nothing. `count` beyond 256 is whole.
    pub fn of(count: u64) -> Option<Self> {
        match u8::try_from(count) {
            Ok(count) => NonZeroU8::new(count).map(Self::Partial),
            Err(_) => Some(Self::Whole),
        }
    }

    pub fn count(self) -> usize {
        match self {
            Self::Whole => TILE as usize,
            Self::Partial(count) => usize::from(count.get()),
        }
    }
}

impl Resource {
    /// The one that a path names: each has one name only, which caches know it by.
    pub fn parse(path: &str) -> Option<Self> {
        if path == "checkpoint" {
            return Some(Self::Checkpoint);
        }
        if path == WITNESSED {
            return Some(Self::Witnessed);
        }
        if let Some(rest) = path.strip_prefix("digest/") {
            return if rest == "latest" { Some(Self::LatestDigest) } else { Hour::parse_path(rest).map(Self::Digest) };
        }
        let (kind, rest) = path.strip_prefix("tile/")?.split_once('/')?;
        let (number, width) = match rest.split_once(".p/") {
            None => (rest, Width::Whole),
            Some((number, width)) => (number, Width::Partial(decimal(width)?.parse().ok()?)),
        };
        let index = index(number)?;
        let level = match kind {
            "entries" => 0,
            level => decimal(level)?.parse().ok().filter(|level| *level <= MAX_LEVEL)?,
        };
        // That of the tallest tree.
        if index > MOST_ENTRIES >> (8 * (u32::from(level) + 1)) {
            return None;
        }
        Some(match kind {
            "entries" => Self::Entries { index, width },
            _ => Self::Tile { level, index, width },
        })
    }

    /// The same as a whole one: it may stand in for a partial one that is gone.
    pub fn whole(self) -> Self {
        match self {
            Self::Checkpoint | Self::Witnessed | Self::Digest(_) | Self::LatestDigest => self,
            Self::Tile { level, index, .. } => Self::Tile { level, index, width: Width::Whole },
            Self::Entries { index, .. } => Self::Entries { index, width: Width::Whole },
        }
    }

    /// Whether it is what it is for ever.
    pub fn is_immutable(self) -> bool {
        !matches!(self, Self::Checkpoint | Self::Witnessed | Self::LatestDigest)
    }
}

/// Three digits for each thousand; all but the last begin with an x.
impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (index, width) = match *self {
            Self::Checkpoint => return f.write_str("checkpoint"),
            Self::Witnessed => return f.write_str(WITNESSED),
            Self::Digest(hour) => return write!(f, "digest/{}", hour.path()),
            Self::LatestDigest => return f.write_str("digest/latest"),
            Self::Tile { level, index, width } => {
                write!(f, "tile/{level}/")?;
                (index, width)
            }
            Self::Entries { index, width } => {
                f.write_str("tile/entries/")?;
                (index, width)
            }
        };
        let mut thousands = 1;
        while index / thousands >= 1000 {
            thousands *= 1000;
        }
        while thousands > 1 {
            write!(f, "x{:03}/", index / thousands % 1000)?;
            thousands /= 1000;
        }
        write!(f, "{:03}", index % 1000)?;
        match width {
            Width::Whole => Ok(()),
            Width::Partial(width) => write!(f, ".p/{width}"),
        }
    }
}

/// As it is written, without a sign or leading zeroes.
fn decimal(text: &str) -> Option<&str> {
    let is_one = (1..=20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    (is_one && (text == "0" || !text.starts_with('0'))).then_some(text)
}

fn index(text: &str) -> Option<u64> {
    let (before, last) = text.rsplit_once('/').map_or((None, text), |(before, last)| (Some(before), last));
    let digits = |part: &str| {
        let is_three = part.len() == 3 && part.bytes().all(|byte| byte.is_ascii_digit());
        is_three.then(|| part.parse::<u64>().ok()).flatten()
    };
    let Some(before) = before else { return digits(last) };
    // Of as many thousands as u64 has room for.
    if before.len() > 4 * 5 + 4 {
        return None;
    }
    let mut number = 0;
    for (position, part) in before.split('/').enumerate() {
        let thousands = digits(part.strip_prefix('x')?)?;
        if position == 0 && thousands == 0 {
            return None;
        }
        number = number * 1000 + thousands;
    }
    Some(number * 1000 + digits(last)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use tlog_tiles::Tile;

    use super::*;

    #[test]
    fn a_path_names_one_resource_in_one_way() {
        for (path, resource) in [
            ("checkpoint", Resource::Checkpoint),
            ("checkpoint.witnessed", Resource::Witnessed),
            ("tile/0/x001/x234/067", Resource::Tile { level: 0, index: 1_234_067, width: Width::Whole }),
            ("tile/entries/000.p/255", Resource::Entries { index: 0, width: Width::of(255).unwrap() }),
            ("tile/2/000.p/1", Resource::Tile { level: 2, index: 0, width: Width::of(1).unwrap() }),
        ] {
            assert_eq!(Resource::parse(path), Some(resource), "{path}");
            assert_eq!(resource.to_string(), path);
        }
        for wrong in [
            "",
            "tile",
            "checkpoint/",
            "/checkpoint",
            "tile/0/0",
            "tile/0/0000",
            "tile/00/000",
            "tile/6/000",
            "tile/64/000",
            "tile/data/000",
            "tile/0/x000/000",
            "tile/0/001/000",
            "tile/0/x001",
            "tile/0/x001/",
            "tile/0/000.p/0",
            "tile/0/000.p/01",
            "tile/0/000.p/256",
            "tile/0/000.p/+1",
            "tile/0/000.p/",
            "tile/0/000.p/1.p/1",
            "tile/0/x999/x999/x999/x999/x999/x999/999",
            "tile/5/001",
            "tile/4/256",
            "tile/0/../../etc/passwd",
            "tile/entries/x1/000",
            "tile/0/٠٠٠",
        ] {
            assert_eq!(Resource::parse(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_as_others_write_it(level in 0..=MAX_LEVEL, index: u64, count in 1_u64..=256) {
            let index = index % ((MOST_ENTRIES >> (8 * (u32::from(level) + 1))) + 1);
            let width = Width::of(count).unwrap();
            let tile = Resource::Tile { level, index, width };
            prop_assert_eq!(Resource::parse(&tile.to_string()), Some(tile));
            let others = Tile::new(8, level, index, count as u32, false).path();
            prop_assert_eq!(tile.to_string(), others.replacen("tile/8/", "tile/", 1));
            if level == 0 {
                let entries = Resource::Entries { index, width };
                prop_assert_eq!(Resource::parse(&entries.to_string()), Some(entries));
            }
        }

        #[test]
        fn whatever_is_read_is_written_the_same(path in "(tile/)?(0|1|5|6|entries)?/?(x[0-9]{3}/){0,4}[0-9]{2,3}(\\.p/[0-9]{1,3})?") {
            if let Some(resource) = Resource::parse(&path) {
                prop_assert_eq!(resource.to_string(), path);
            }
        }
    }
}
