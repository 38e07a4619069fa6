//! `report::error!`, `warn!` and `info!`, which log as those of the crate `log` do.
//!
//! Those take some 70 bytes more of program in each place: for the level and for a table of where that is.

use log::{Level, Record};
use std::fmt;
use std::panic::Location;

macro_rules! error {
    ($($message:tt)+) => { $crate::report::report(log::Level::Error, module_path!(), format_args!($($message)+)) };
}

// Under its own name `warn` would be taken for the attribute.
macro_rules! warning {
    ($($message:tt)+) => { $crate::report::report(log::Level::Warn, module_path!(), format_args!($($message)+)) };
}

macro_rules! info {
    ($($message:tt)+) => { $crate::report::report(log::Level::Info, module_path!(), format_args!($($message)+)) };
}

pub(crate) use {error, info, warning as warn};

/// Logs a record for the place that calls it.
#[cold]
#[inline(never)]
#[track_caller]
pub fn report(level: Level, module: &'static str, message: fmt::Arguments<'_>) {
    if level <= log::STATIC_MAX_LEVEL && level <= log::max_level() {
        let place = Location::caller();
        let mut record = Record::builder();
        record.level(level).target(module).module_path_static(Some(module));
        record.file_static(Some(place.file())).line(Some(place.line()));
        log::logger().log(&record.args(message).build());
    }
}
