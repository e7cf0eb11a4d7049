//! By which index certificates are looked at, and how a page goes on where the one before ended.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use signet_policy::Pattern;
use sqlx::any::AnyArguments;
use sqlx::query::QueryAs;
use sqlx::{Any, Arguments as _};

use super::{Order, Selection, SvidFilter};

/// The order in which they are looked at. Each is that of an index.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Walk {
    Issued,
    Expiry,
    Id,
    /// Those of one attestation, as they were issued.
    Agent,
    /// Those that are revoked one by one, as they were revoked.
    Revoked,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Direction {
    Up,
    Down,
}

/// Where a page ended, in words that a caller brings back. A SPIFFE ID is not in them: it may be one that the caller does not see.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Cursor {
    pub(super) walk: Walk,
    pub(super) direction: Direction,
    pub(super) last: Last,
}

/// The certificate that was looked at last, as far as an order needs it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Last {
    pub(super) id: String,
    /// Its end, Unix seconds; by [`Walk::Revoked`], the epoch.
    pub(super) first: i64,
    /// Its beginning, Unix seconds.
    pub(super) second: i64,
    pub(super) position: i64,
}

/// One that was looked at.
#[derive(Debug)]
pub(super) struct Seen {
    /// None of one that has left the record.
    pub(super) position: Option<i64>,
    /// Empty where nobody asks for it.
    pub(super) id: String,
    pub(super) fits: bool,
    pub(super) place: Last,
}

/// Position, SPIFFE ID, the two numbers of [`Last`], and whether it is wanted.
pub(super) type SeenRow = (Option<i64>, Option<String>, i64, i64, i64);

/// SQL with what its parameters stand for.
#[derive(Debug, Default)]
pub(in crate::store) struct Statement {
    sql: String,
    values: Vec<Value>,
}

#[derive(Clone, Debug)]
enum Value {
    Number(i64),
    Text(String),
    Bytes(Vec<u8>),
}

/// Read by one statement: so few that one which waits for the disk for each ends in time, too.
pub(super) const AT_ONCE: usize = 512;

const IS_REVOKED: &str = "(EXISTS (SELECT 1 FROM revoked WHERE value = issued.serial AND revoked.kind = 0 \
    AND revoked.authority_key_id = issued.authority_key_id) \
    OR EXISTS (SELECT 1 FROM revoked WHERE revoked.kind = 2 AND revoked.authority_key_id = issued.authority_key_id))";

impl Walk {
    /// The one in a given order, or that which has the least to pass by. `is_individual`: whatever is revoked is so by itself.
    pub(super) fn to(filter: &SvidFilter, order: Option<Order>, is_individual: bool) -> Self {
        let is_exact = filter.ids.as_ref().is_some_and(|ids| ids.literal().is_some());
        let is_bounded = filter.expiring_until.is_some();
        match order {
            Some(Order::Expiry) => Self::Expiry,
            Some(Order::Id) => Self::Id,
            Some(Order::Issued) | None if filter.agent.is_some() => Self::Agent,
            Some(Order::Issued) => Self::Issued,
            None if is_exact => Self::Id,
            None if is_individual => Self::Revoked,
            None if filter.ids.is_some() && !is_bounded => Self::Id,
            None => match filter.selection {
                Selection::Unexpired | Selection::Expired => Self::Expiry,
                Selection::Revoked | Selection::All if is_bounded => Self::Expiry,
                Selection::Revoked | Selection::All => Self::Issued,
            },
        }
    }

    /// Whether it can be meant by somebody who has these filters.
    pub(super) fn fits(self, filter: &SvidFilter) -> bool {
        match self {
            Self::Issued | Self::Expiry | Self::Id => true,
            Self::Agent => filter.agent.is_some(),
            Self::Revoked => filter.selection == Selection::Revoked,
        }
    }

    /// Those behind `last`, in parts: of the same as it up to the last column of the order, up to the one before that, and so on. Of
    /// rows that are compared whole, PostgreSQL weighs the first column only, and reads the table where many are the same in it.
    pub(super) fn statements(
        self,
        direction: Direction,
        filter: &SvidFilter,
        last: Option<&Last>,
        now: i64,
    ) -> Vec<Statement> {
        let columns = self.columns(filter);
        let Some(last) = last else {
            return vec![self.statement(direction, filter, (&columns, None), now)];
        };
        let parts = (0..columns.len()).rev();
        parts.map(|same| self.statement(direction, filter, (&columns, Some((same, last))), now)).collect()
    }

    /// By which it is ordered.
    fn columns(self, filter: &SvidFilter) -> Vec<&'static str> {
        match self {
            Self::Issued | Self::Agent => vec!["issued.position"],
            Self::Revoked => vec!["epoch"],
            Self::Expiry => vec!["issued.not_after", "issued.not_before", "issued.position"],
            Self::Id if filter.ids.as_ref().is_some_and(|ids| ids.literal().is_some()) => {
                vec!["issued.not_after", "issued.position"]
            }
            Self::Id => vec!["issued.spiffe_id", "issued.not_after", "issued.position"],
        }
    }

    fn statement(
        self,
        direction: Direction,
        filter: &SvidFilter,
        (columns, part): (&[&'static str], Option<(usize, &Last)>),
        now: i64,
    ) -> Statement {
        let mut statement = Statement::default();
        let (first, second) = match self {
            Self::Issued | Self::Agent => ("0", "0"),
            Self::Expiry => ("issued.not_after", "issued.not_before"),
            Self::Id => ("issued.not_after", "0"),
            Self::Revoked => ("epoch", "0"),
        };
        statement.push(&format!("SELECT issued.position, issued.spiffe_id, {first}, {second}, "));
        statement.wanted(self, filter, now);
        statement.push(match self {
            Self::Revoked => {
                " FROM revoked LEFT JOIN issued ON issued.serial = revoked.value \
                 AND issued.authority_key_id = revoked.authority_key_id WHERE revoked.kind = 0"
            }
            Self::Issued | Self::Expiry | Self::Id | Self::Agent => " FROM issued WHERE 1 = 1",
        });
        statement.bounds(self, filter, now);
        if let Some((same, last)) = part {
            for column in &columns[..same] {
                statement.and(column, "=", last.value(column));
            }
            let beyond = match direction {
                Direction::Up => ">",
                Direction::Down => "<",
            };
            statement.and(columns[same], beyond, last.value(columns[same]));
        }
        let order: Vec<_> = columns.iter().map(|column| format!("{column}{}", direction.sql())).collect();
        statement.push(&format!(" ORDER BY {} LIMIT {AT_ONCE}", order.join(", ")));
        statement
    }

    pub(super) fn seen(self, (position, id, first, second, fits): SeenRow, last: Option<&Last>) -> Seen {
        let id = id.unwrap_or_default();
        // That of an order by SPIFFE IDs alone.
        let of_order = if self == Self::Id { id.clone() } else { String::new() };
        let before = last.map_or(0, |last| last.position);
        let place = Last { id: of_order, first, second, position: position.unwrap_or(before) };
        Seen { position, id, fits: fits != 0, place }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Expiry => "expiry",
            Self::Id => "id",
            Self::Agent => "agent",
            Self::Revoked => "revoked",
        }
    }
}

impl Statement {
    pub(super) fn query(&self) -> QueryAs<'_, Any, SeenRow, AnyArguments> {
        // Of constants and numbers of parameters.
        sqlx::query_as_with(sqlx::AssertSqlSafe(self.sql.clone()), self.arguments())
    }

    /// How the database would carry it out.
    #[cfg(test)]
    pub(in crate::store) fn explained(&self, explain: &str) -> sqlx::query::Query<'_, Any, AnyArguments> {
        sqlx::query_with(sqlx::AssertSqlSafe(format!("{explain} {}", self.sql)), self.arguments())
    }

    fn arguments(&self) -> AnyArguments {
        let mut arguments = AnyArguments::default();
        for value in &self.values {
            // Numbers, texts and bytes are encoded whatever they are.
            let _ = match value {
                Value::Number(number) => arguments.add(*number),
                Value::Text(text) => arguments.add(text.clone()),
                Value::Bytes(bytes) => arguments.add(bytes.clone()),
            };
        }
        arguments
    }

    fn push(&mut self, sql: &str) {
        self.sql.push_str(sql);
    }

    fn and(&mut self, column: &str, is: &str, value: Value) {
        self.values.push(value);
        // Writing to a String cannot fail.
        let _ = write!(self.sql, " AND {column} {is} ${}", self.values.len());
    }

    /// Where the index begins and ends.
    fn bounds(&mut self, walk: Walk, filter: &SvidFilter, now: i64) {
        match walk {
            Walk::Issued | Walk::Revoked => {}
            Walk::Expiry => self.times(filter, now),
            Walk::Agent => {
                if let Some(number) = filter.agent {
                    self.and("issued.attestation_number", "=", Value::Number(number.0));
                }
            }
            Walk::Id => {
                let Some(ids) = &filter.ids else { return };
                if let Some(id) = ids.literal() {
                    self.and("issued.spiffe_id", "=", Value::Text(id.to_owned()));
                    return self.times(filter, now);
                }
                self.and("issued.spiffe_id", ">=", Value::Text(ids.beginning().to_owned()));
                if let Some(end) = end_of(ids) {
                    self.and("issued.spiffe_id", "<", Value::Text(end));
                }
            }
        }
    }

    /// What of the filters is about ends.
    fn times(&mut self, filter: &SvidFilter, now: i64) {
        match filter.selection {
            Selection::Unexpired => self.and("issued.not_after", ">=", Value::Number(now)),
            Selection::Expired => self.and("issued.not_after", "<", Value::Number(now)),
            Selection::Revoked | Selection::All => {}
        }
        if let Some(until) = filter.expiring_until {
            self.and("issued.not_after", ">=", Value::Number(now));
            self.and("issued.not_after", "<=", Value::Number(until.unix_timestamp()));
        }
    }

    /// Whether one is wanted, as far as the database can say. Patterns are matched elsewhere.
    fn wanted(&mut self, walk: Walk, filter: &SvidFilter, now: i64) {
        self.push("CASE WHEN 1 = 1");
        if filter.selection == Selection::Revoked && walk != Walk::Revoked {
            self.push(" AND ");
            self.push(IS_REVOKED);
        }
        if walk != Walk::Expiry {
            self.times(filter, now);
        }
        if let Some(key_id) = &filter.authority {
            self.and("issued.authority_key_id", "=", Value::Bytes(key_id.clone()));
        }
        if let Some(number) = filter.agent.filter(|_| walk != Walk::Agent) {
            self.and("issued.attestation_number", "=", Value::Number(number.0));
        }
        if let Some(rule) = &filter.rule {
            self.and("issued.rule", "=", Value::Text(rule.clone()));
        }
        if let Some(profile) = &filter.profile {
            self.and("issued.profile", "=", Value::Text(profile.clone()));
        }
        self.push(" THEN 1 ELSE 0 END");
    }
}

/// The first text behind all that begin as this pattern does; none where there is none.
fn end_of(pattern: &Pattern) -> Option<String> {
    let mut beginning = pattern.beginning().to_owned();
    let next = char::from_u32(u32::from(beginning.pop()?) + 1)?;
    beginning.push(next);
    Some(beginning)
}

impl Last {
    fn value(&self, column: &str) -> Value {
        match column {
            "issued.spiffe_id" => Value::Text(self.id.clone()),
            "issued.not_after" | "epoch" => Value::Number(self.first),
            "issued.not_before" => Value::Number(self.second),
            _ => Value::Number(self.position),
        }
    }
}

impl Direction {
    fn sql(self) -> &'static str {
        match self {
            Self::Up => "",
            Self::Down => " DESC",
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

impl Cursor {
    pub(super) fn behind(walk: Walk, direction: Direction, last: &Last) -> Self {
        Self { walk, direction, last: Last { id: String::new(), ..last.clone() } }
    }
}

/// `expiry:up:1800003600:1800000000:4711`
impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Last { first, second, position, .. } = self.last;
        write!(f, "{}:{}:{first}:{second}:{position}", self.walk.as_str(), self.direction.as_str())
    }
}

/// What no page ended with.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("none that an issuer gave")]
pub(crate) struct NoCursor;

impl FromStr for Cursor {
    type Err = NoCursor;

    fn from_str(text: &str) -> Result<Self, NoCursor> {
        let [walk, direction, numbers @ ..] = &text.splitn(5, ':').collect::<Vec<_>>()[..] else {
            return Err(NoCursor);
        };
        let walks = [Walk::Issued, Walk::Expiry, Walk::Id, Walk::Agent, Walk::Revoked];
        let walk = walks.into_iter().find(|one| one.as_str() == *walk).ok_or(NoCursor)?;
        let directions = [Direction::Up, Direction::Down];
        let direction = directions.into_iter().find(|one| one.as_str() == *direction).ok_or(NoCursor)?;
        let numbers = numbers.iter().map(|number| number.parse()).collect::<Result<Vec<i64>, _>>();
        let [first, second, position] = numbers.map_err(|_| NoCursor)?[..] else { return Err(NoCursor) };
        Ok(Self { walk, direction, last: Last { id: String::new(), first, second, position } })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_nothing_else_is_one() {
        for text in ["expiry:up:1800003600:1800000000:4711", "id:down:-1:0:9", "revoked:up:7:0:0"] {
            assert_eq!(text.parse::<Cursor>().unwrap().to_string(), text);
        }
        for wrong in
            ["", "expiry", "expiry:up:1:2", "expiry:up:1:2:3:4", "expiry:up:1:2:x", "x:up:1:2:3", "id:over:1:2:3"]
        {
            assert_eq!(wrong.parse::<Cursor>(), Err(NoCursor), "{wrong}");
        }
    }

    proptest! {
        /// The index is asked for a range: nothing that matches lies beside it.
        #[test]
        fn what_matches_a_pattern_lies_between_its_beginning_and_its_end(
            beginning in "[a-c/\u{7f}\u{7ff}\u{ffff}\u{10ffff}]{1,3}", rest in "\\*[a-c*]{0,3}", more in "\\PC{0,4}",
        ) {
            let pattern: Pattern = format!("{beginning}{rest}").parse().unwrap();
            let value = format!("{beginning}{more}");
            if pattern.matches(&value) {
                prop_assert!(value.as_str() >= pattern.beginning());
                prop_assert!(end_of(&pattern).is_none_or(|end| value < end));
            }
        }

        #[test]
        fn random_text_is_a_cursor_or_none(text in "(expiry:up:)?[0-9:a-z-]{0,60}") {
            let _either_is_fine = text.parse::<Cursor>();
        }
    }
}
