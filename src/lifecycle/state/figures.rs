//! What is counted, as it is written down: a part of version 5 of the state, and of what the link says.

use serde::{Deserialize, Serialize};

/// What goes on in a successor of what its predecessors have counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedFigures {
    /// Each series of the metrics that only grows, by its name and labels. What a reader does not know it hands on.
    pub totals: Vec<(String, u64)>,
    /// The last reloads, the newest at the end.
    pub reloads: Vec<SavedReload>,
    /// The one by which this process becomes another.
    pub begun: Option<SavedBegun>,
}

impl SavedFigures {
    /// So many more of that series.
    pub fn count(&mut self, series: &str, number: u64) {
        match self.totals.iter_mut().find(|(name, _)| name == series) {
            Some((_, total)) => *total += number,
            None if number > 0 => self.totals.push((series.to_owned(), number)),
            None => {}
        }
    }

    /// Takes that series out.
    pub fn take(&mut self, series: &str) -> u64 {
        let at = self.totals.iter().position(|(name, _)| name == series);
        at.map_or(0, |at| self.totals.swap_remove(at).1)
    }
}

/// A reload that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedReload {
    /// When it was over, in seconds since 1970.
    pub at: u64,
    /// The generation that served after it.
    pub generation: u64,
    /// By exec, and not by overlap.
    pub exec: bool,
    /// Why nothing came of it.
    pub failure: Option<String>,
    /// From the signal to the moment in which the successor served, in milliseconds.
    pub took: u64,
    /// For how much of that no work was given out, in milliseconds.
    pub held: u64,
}

/// A reload under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedBegun {
    /// In milliseconds of the monotonic clock.
    pub at: u64,
    /// From when on no work was given out, in the same.
    pub held: Option<u64>,
}
