//! In which order a listing shows what is in a directory, and behind which entry it begins, as its query says:
//! `?sort=size&order=desc&after=NAME&at=NUMBER`. What it says that is not known is ignored.

use http1::number::decimal;
use percent_encoding::percent_decode_str;
use std::cmp::Ordering;

/// What entries are sorted by; directories come first in any case, and what is equal stands by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    pub by: By,
    pub descending: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Name,
    Size,
    Modified,
}

impl By {
    /// All, as the columns stand.
    pub const ALL: [By; 3] = [By::Name, By::Size, By::Modified];

    /// Its word in a query.
    pub fn word(self) -> &'static str {
        match self {
            By::Name => "name",
            By::Size => "size",
            By::Modified => "modified",
        }
    }
}

/// What of an entry its place hangs on.
#[derive(Clone, Copy, Debug)]
pub struct Key<'n> {
    pub is_directory: bool,
    /// Bytes or seconds, by what is sorted by; nothing for names.
    pub number: u64,
    pub name: &'n [u8],
}

impl Order {
    pub const NAMES: Order = Order { by: By::Name, descending: false };

    pub fn compare(self, one: Key<'_>, other: Key<'_>) -> Ordering {
        let directed = |order: Ordering| if self.descending { order.reverse() } else { order };
        let names = || natural(one.name, other.name).then_with(|| one.name.cmp(other.name));
        let kind = other.is_directory.cmp(&one.is_directory);
        kind.then_with(|| match self.by {
            By::Name => directed(names()),
            By::Size | By::Modified => directed(one.number.cmp(&other.number)).then_with(names),
        })
    }
}

/// As people sort names: `a2` before `a10`, and whatever the case of ASCII letters is.
///
/// A name is read as bytes and numbers, of which a number is as long as its digits go. Numbers have no limit, as nothing is
/// computed of them.
fn natural(mut one: &[u8], mut other: &[u8]) -> Ordering {
    loop {
        let order = match (one, other) {
            ([], _) | (_, []) => return one.len().cmp(&other.len()),
            ([b'0'..=b'9', ..], [b'0'..=b'9', ..]) => {
                let (mine, theirs);
                (mine, one) = number(one);
                (theirs, other) = number(other);
                mine.len().cmp(&theirs.len()).then_with(|| mine.cmp(theirs))
            }
            ([mine, rest @ ..], [theirs, others @ ..]) => {
                (one, other) = (rest, others);
                mine.to_ascii_lowercase().cmp(&theirs.to_ascii_lowercase())
            }
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// The digits that a name begins with, without zeros in front, and what follows.
fn number(name: &[u8]) -> (&[u8], &[u8]) {
    let end = name.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(name.len());
    let (digits, rest) = name.split_at(end);
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    (&digits[zeros..], rest)
}

/// What a query asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct View {
    pub order: Order,
    /// The last entry of the page before. It need not be there any more.
    pub after: Option<After>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct After {
    is_directory: bool,
    number: u64,
    name: Vec<u8>,
}

impl After {
    pub fn key(&self) -> Key<'_> {
        Key { is_directory: self.is_directory, number: self.number, name: &self.name }
    }
}

impl View {
    /// Reads a query. Of what stands there twice the first counts.
    pub fn of(query: Option<&str>) -> View {
        let (mut by, mut descending, mut after, mut number) = (None, None, None, None);
        for (key, value) in query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('=')) {
            match (key, value) {
                ("sort", word) => by = by.or(By::ALL.into_iter().find(|by| by.word() == word)),
                ("order", "asc") => _ = descending.get_or_insert(false),
                ("order", "desc") => _ = descending.get_or_insert(true),
                // A name is bytes, and need not be UTF-8.
                ("after", name) => _ = after.get_or_insert_with(|| percent_decode_str(name).collect::<Vec<u8>>()),
                ("at", text) => number = number.or(decimal(text)),
                _ => {}
            }
        }
        let order = Order { by: by.unwrap_or(By::Name), descending: descending.unwrap_or(false) };
        let number = if order.by == By::Name { Some(0) } else { number };
        let after = after.zip(number).and_then(|(mut name, number)| {
            let is_directory = name.last() == Some(&b'/');
            name.truncate(name.len() - usize::from(is_directory));
            (!name.is_empty()).then_some(After { is_directory, number, name })
        });
        View { order, after }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key<'_> {
        Key { is_directory: false, number: 0, name: name.as_bytes() }
    }

    #[test]
    fn numbers_in_names_are_numbers() {
        let sorted = [
            "",
            "0",
            "00",
            "1",
            "1.5",
            "2",
            "02",
            "9",
            "10",
            "a",
            "A1",
            "a2",
            "a02",
            "a2b",
            "a10",
            "a10b2",
            "a10b10",
            "B",
            "b1",
            "z99999999999999999999999998",
            "z99999999999999999999999999",
        ];
        let mut names = sorted;
        names.reverse();
        names.sort_by(|one, other| Order::NAMES.compare(key(one), key(other)));
        // What is a number of the same value stands by its bytes.
        let expected = sorted.map(|name| match name {
            "2" => "02",
            "02" => "2",
            "a2" => "a02",
            "a02" => "a2",
            name => name,
        });
        assert_eq!(names, expected);
    }

    /// Whatever is compared: one way round is the other way round turned about, and what is less than the less is less.
    #[test]
    fn any_names_have_one_order() {
        const PIECES: [&[u8]; 8] = [b"", b"0", b"1", b"10", b"a", b"A", b"-", b"\xff"];
        let names: Vec<Vec<u8>> = (0..512)
            .map(|number: usize| (0..3).flat_map(|at| PIECES[(number >> (3 * at)) & 7]).copied().collect())
            .collect();
        for order in By::ALL.map(|by| [false, true].map(|descending| Order { by, descending })).into_iter().flatten() {
            let compare = |one: usize, other: usize| {
                let key =
                    |at: usize| Key { is_directory: at.is_multiple_of(3), number: at as u64 % 5, name: &names[at] };
                order.compare(key(one), key(other))
            };
            let mut sorted: Vec<usize> = (0..names.len()).collect();
            sorted.sort_by(|one, other| compare(*one, *other));
            for at in 0..sorted.len() {
                for other in (at..sorted.len()).step_by(37) {
                    let (one, two) = (sorted[at], sorted[other]);
                    assert!(compare(one, two).is_le() && compare(two, one) == compare(one, two).reverse());
                }
            }
        }
    }

    #[test]
    fn directories_come_first_in_every_order() {
        let directory = Key { is_directory: true, number: 0, name: b"z" };
        for by in By::ALL {
            for descending in [false, true] {
                assert!(Order { by, descending }.compare(directory, key("a")).is_lt());
            }
        }
        let size = |number| Key { is_directory: false, number, name: b"a" };
        let by_size = Order { by: By::Size, descending: true };
        assert!(by_size.compare(size(2), size(1)).is_lt());
        assert!(by_size.compare(Key { name: b"b", ..size(1) }, size(1)).is_gt(), "what is equal stands by name");
    }

    #[test]
    fn a_query_is_read_as_far_as_it_is_known() {
        let view = |query: &str| {
            let View { order, after } = View::of(Some(query));
            let after = after.map(|after| (after.is_directory, after.number, after.name));
            (order.by.word(), order.descending, after)
        };
        let name = |name: &[u8], is_directory: bool, number: u64| Some((is_directory, number, name.to_vec()));
        for (query, expected) in [
            ("", ("name", false, None)),
            ("x&sort&order=&sort=", ("name", false, None)),
            ("sort=size&order=desc", ("size", true, None)),
            ("order=desc", ("name", true, None)),
            ("order=up&sort=colour&a=b", ("name", false, None)),
            ("sort=Size", ("name", false, None)),
            ("sort=x&sort=modified&sort=size", ("modified", false, None)),
            ("after=a%2Fb%20%FF%&x", ("name", false, name(b"a/b \xff%", false, 0))),
            ("after=a/", ("name", false, name(b"a", true, 0))),
            ("after=a&after=b&at=9", ("name", false, name(b"a", false, 0))),
            ("after=", ("name", false, None)),
            ("after=/", ("name", false, None)),
            // By size it has to be known of which.
            ("sort=size&after=a", ("size", false, None)),
            ("sort=size&after=a&at=x", ("size", false, None)),
            ("sort=size&after=a&at=18446744073709551616", ("size", false, None)),
            ("sort=size&after=a&at=-1&at=3", ("size", false, name(b"a", false, 3))),
        ] {
            assert_eq!(view(query), expected, "{query:?}");
        }
        assert_eq!(View::of(None), View { order: Order::NAMES, after: None });
    }
}
