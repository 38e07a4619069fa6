//! `--memory`: one number for the whole process, from which all that grows with clients is derived.
//!
//! The number is a ceiling for the resident set. What the program itself takes is measured at start; workers get their
//! stacks and buffers in full; of what is left a third is for connections that wait, at what an idle one takes, and
//! the rest for requests that are half here and answers that wait for their client ([`Budget`]). Whoever finds that
//! used up is told 503.
//!
//! [`Budget`]: crate::engine::connection::Budget

use crate::config::push::PUSH_MEMORY;
use crate::config::{DEFAULT_WORKER_STACK, size_text};
use crate::engine::connection::Slot;
use crate::engine::connection::{Connection, worker_buffers};
use crate::sys::allocator;
use crate::{Config, Error, Limits};
use http1::number::decimal;
use std::fs;

/// A parked idle connection: its place, its entry in the table and in the queue, its socket. Allocators round up.
pub const IDLE: u64 = (size_of::<Slot>() + size_of::<Connection>()).next_multiple_of(512) as u64;

/// The acceptor only moves descriptors and deadlines.
pub const ACCEPTOR_STACK: usize = 128 * 1024;

/// The status thread reads a request's head and writes a line.
pub const STATUS_STACK: usize = 96 * 1024;

/// What the other threads touch of their stacks, and what all of them allocate now and then: a log line, the list of
/// deadlines that have passed, the state of a link.
const THREADS: u64 = (ACCEPTOR_STACK + STATUS_STACK / 4) as u64 + 256 * 1024;

/// What a handler of the program allocates for one request: paths, header fields, a page it makes.
const HANDLER: u64 = 128 * 1024;

/// A stack under which no derived one goes: the program's own handlers stay below a third of it.
const LEAST_STACK: u64 = 96 * 1024;

/// Where the program's size cannot be read.
const PROGRAM: u64 = 5 << 20;

/// The most connections that are derived; more have to be asked for.
const MOST_CONNECTIONS: u64 = 64 * 1024;
const LEAST_CONNECTIONS: u64 = 16;

/// What push gets where its share does not fit.
const PUSH_LEAST: u64 = *PUSH_MEMORY.start();

/// What threads take before the first request: the stacks and buffers of workers, and what all others do.
pub fn threads(config: &Config) -> u64 {
    (config.workers * (config.worker_stack + worker_buffers(&config.limits))) as u64 + THREADS
}

/// How a process's memory is divided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    total: u64,
    program: u64,
    workers: u64,
    worker: u64,
    /// Threads that may wait for clients.
    streamers: u64,
    streamer: u64,
    connections: u64,
    /// For requests and answers that wait, as far as allocators leave it usable.
    budget: u64,
    cache: u64,
    /// For what push keeps.
    push: u64,
}

impl Plan {
    /// Derives limits from `config.memory` and sets them; `None` where there is none. A limit that is not at its
    /// default stays as it is, and has to fit.
    ///
    /// # Errors
    /// A configuration error where the memory is too little, which says how much is needed.
    pub fn apply(config: &mut Config) -> Result<Option<Plan>, Error> {
        let Some(total) = config.memory else { return Ok(None) };
        let plan = Plan::derive(config, total, program_size());
        let plan = plan.map_err(|wrong| config.error("memory", format_args!("{wrong}")))?;
        bound_allocator();
        Ok(Some(plan))
    }

    fn derive(config: &mut Config, total: u64, program: u64) -> Result<Plan, String> {
        let defaults = Limits::default();
        let cache = config.file_cache() as u64;
        let push = config.push.room(Some(total)) as u64;
        let streamers = config.streamers();
        let limits = &mut config.limits;
        if config.worker_stack == DEFAULT_WORKER_STACK {
            config.worker_stack =
                (total / 64).next_multiple_of(4096).clamp(LEAST_STACK, DEFAULT_WORKER_STACK as u64) as usize;
        }
        if limits.buffered_body == defaults.buffered_body {
            limits.buffered_body = limits.buffered_body.min((total / 128) as usize);
        }
        let (workers, streamers) = (config.workers as u64, streamers as u64);
        let worker = (config.worker_stack + worker_buffers(limits)) as u64 + HANDLER;
        // A thread that streams a body has besides what was buffered of it, and what it reads ahead. None of the program's
        // own handlers needs one.
        let streamer = worker - HANDLER + (limits.buffered_body + 2 * limits.head_size) as u64;
        let fixed = program + THREADS + workers * worker + streamers * streamer + cache + push;
        let connections = match limits.connections == defaults.connections {
            true => {
                let room = total.saturating_sub(fixed);
                (room / 3 / IDLE).clamp(LEAST_CONNECTIONS, MOST_CONNECTIONS)
            }
            false => limits.connections as u64,
        };
        // A request as large as may be has to find room, and allocators leave a third unused at worst.
        let request = crate::engine::connection::connection_buffers(limits) as u64;
        let least = fixed + connections * IDLE + request * 3 / 2;
        if total < least && config.push.memory.is_none() && config.push.max_message.is_none() && push > PUSH_LEAST {
            // What nobody has asked for is no reason not to start: it has room for the largest message, and no more.
            config.push.memory = Some(PUSH_LEAST as usize);
            return Plan::derive(config, total, program);
        }
        if total < least {
            let (given, need) = (size_text(total), size_text(least.next_multiple_of(1 << 20)));
            let push =
                if push > PUSH_LEAST { format!(", with push_memory {}", size_text(push)) } else { String::new() };
            return Err(format!(
                "memory is {given}, too little: {workers} workers and {connections} connections need {need}{push}"
            ));
        }
        limits.connections = connections as usize;
        let budget = (total - fixed - connections * IDLE) * 2 / 3;
        let program = program + THREADS;
        Ok(Plan { total, program, workers, worker, streamers, streamer, connections, budget, cache, push })
    }

    /// What parked connections may hold together.
    pub fn budget(&self) -> u64 {
        self.budget
    }

    /// What follows from the settings alone: the rest is measured, and different each time.
    pub fn asked_for(&self) -> String {
        let Plan { total, workers, worker, streamers, streamer, cache, push, .. } = self;
        format!("{total} {workers} {worker} {streamers} {streamer} {cache} {push}")
    }

    /// How it is divided, on one line.
    pub fn describe(&self) -> String {
        let push = match self.push {
            0 => String::new(),
            push => format!("push {}, ", kibibytes(push)),
        };
        format!(
            "{}: program {}, {} workers x {}, {} for streams x {}, files {}, {push}{} connections x {IDLE} bytes, {} for \
             requests and answers that wait",
            size_text(self.total),
            mebibytes(self.program),
            self.workers,
            kibibytes(self.worker),
            self.streamers,
            kibibytes(self.streamer),
            kibibytes(self.cache),
            self.connections,
            mebibytes(self.budget),
        )
    }
}

/// What the process takes before it serves: everything that is mapped from files, of which any page may become
/// resident, and what it has allocated.
fn program_size() -> u64 {
    let (Ok(maps), Ok(status)) = (fs::read_to_string("/proc/self/maps"), fs::read_to_string("/proc/self/status"))
    else {
        return PROGRAM;
    };
    let from_files = maps.lines().filter_map(file_mapping).sum::<u64>();
    let allocated =
        status.lines().find_map(|line| decimal(line.strip_prefix("RssAnon:")?.trim().strip_suffix("kB")?.trim_end()));
    from_files + allocated.unwrap_or(512_u64) * 1024
}

/// The length of a line of `/proc/self/maps` (proc_pid_maps(5)) that maps a file.
fn file_mapping(line: &str) -> Option<u64> {
    let mut words = line.split_ascii_whitespace();
    let (from, to) = words.next()?.split_once('-')?;
    // Permissions, offset, device, inode, path.
    let path = words.nth(4)?;
    let address = |text| u64::from_str_radix(text, 16).ok();
    path.starts_with('/').then_some(address(to)?.checked_sub(address(from)?)?)
}

/// What is freed has to be there for the next, on whichever thread, and go back to the system when it is large.
/// glibc's allocator otherwise makes an arena for nearly every thread, and one cannot use what is free in another.
fn bound_allocator() {
    const LARGE: u16 = 32 * 1024;
    if !(allocator::limit_arenas(1) && allocator::give_back_from(LARGE)) {
        log::warn!("the allocator cannot be told to use one arena; it may take more than --memory says");
    }
}

/// Two arenas, where the process is the server's alone: one for whoever does not get the other's lock.
pub fn bound_arenas() {
    // Where it fails there are more of them, as everywhere.
    let _ = allocator::limit_arenas(2);
}

pub fn kibibytes(bytes: u64) -> String {
    format!("{}K", bytes.div_ceil(1 << 10))
}

pub fn mebibytes(bytes: u64) -> String {
    // In tenths, rounded up: without floating point.
    let tenths = (bytes * 10).div_ceil(1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PushConfig;

    const PROGRAM_SIZE: u64 = 4 << 20;

    #[test]
    fn everything_together_is_what_was_given() {
        for total in [8 << 20, 16 << 20, 1 << 30] {
            let mut config = Config::default();
            let plan = Plan::derive(&mut config, total, PROGRAM_SIZE).expect("enough");
            let threads = plan.workers * plan.worker + plan.streamers * plan.streamer;
            let fixed = plan.program + threads + plan.cache + plan.connections * IDLE;
            let rest = total - fixed;
            assert!(plan.budget * 3 / 2 <= rest && plan.budget * 3 / 2 + 2 > rest, "{plan:?}");
            assert_eq!(config.limits.connections as u64, plan.connections);
            assert!((LEAST_STACK..=DEFAULT_WORKER_STACK as u64).contains(&(config.worker_stack as u64)));
        }
    }

    #[test]
    fn more_memory_is_more_connections() {
        let connections = |total| {
            let mut config = Config::default();
            Plan::derive(&mut config, total, PROGRAM_SIZE).expect("enough").connections
        };
        assert!(connections(8 << 20) >= 400, "{}", connections(8 << 20));
        assert!(connections(64 << 20) > 4 * connections(8 << 20));
        assert_eq!(connections(64 << 30), MOST_CONNECTIONS);
    }

    #[test]
    fn what_is_set_stays_and_has_to_fit() {
        let limits = Limits { connections: 3000, buffered_body: 1000, ..Limits::default() };
        let mut config = Config { limits, worker_stack: 128 << 10, ..Config::default() };
        let wrong = Plan::derive(&mut config.clone(), 6 << 20, PROGRAM_SIZE).expect_err("too little");
        assert!(wrong.contains("4 workers and 3000 connections need 9M"), "{wrong}");
        Plan::derive(&mut config, 10 << 20, PROGRAM_SIZE).expect("enough");
        assert_eq!((config.limits.connections, config.limits.buffered_body), (3000, 1000));
        assert_eq!(config.worker_stack, 128 << 10);
    }

    #[test]
    fn what_push_would_keep_is_no_reason_not_to_start_unless_it_was_asked_for() {
        let push = PushConfig { used: true, ..PushConfig::default() };
        let config = Config { push, ..Config::default() };
        let least = (1..64)
            .map(|mebibytes| mebibytes << 20)
            .find(|total| Plan::derive(&mut Config::default(), *total, PROGRAM_SIZE).is_ok());
        let plan = Plan::derive(&mut config.clone(), least.expect("enough") + PUSH_LEAST, PROGRAM_SIZE);
        assert_eq!(plan.expect("the least").push, PUSH_LEAST);
        let plan = Plan::derive(&mut config.clone(), 16 << 20, PROGRAM_SIZE).expect("its share");
        assert_eq!(plan.push, 2 << 20);
        let push = PushConfig { memory: Some(4 << 20), ..config.push };
        let wrong = Plan::derive(&mut Config { push, ..config }, 8 << 20, PROGRAM_SIZE).expect_err("too little");
        assert!(wrong.ends_with(", with push_memory 4M"), "{wrong}");
    }

    #[test]
    fn mappings_of_files_count() {
        let line = "55d5c0a00000-55d5c0a10000 r-xp 00002000 08:01 1234  /usr/bin/with space";
        assert_eq!(file_mapping(line), Some(0x10000));
        assert_eq!(file_mapping("7ffd8c0c1000-7ffd8c0e2000 rw-p 00000000 00:00 0 [stack]"), None);
        assert_eq!(file_mapping("7ffd8c0c1000-7ffd8c0e2000 rw-p 00000000 00:00 0"), None);
        assert!(program_size() > 1 << 20);
    }

    #[test]
    fn sizes_are_rounded_up() {
        assert_eq!((kibibytes(1), mebibytes(1), mebibytes(3 << 20)), ("1K".into(), "0.1 MiB".into(), "3.0 MiB".into()));
    }
}
