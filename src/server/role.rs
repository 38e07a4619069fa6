//! What this process was started as: the first, or a successor; and which listeners that leaves to bind.

use crate::Error;
use crate::generation::{resume, succeed};
use crate::lifecycle::activation;
use crate::lifecycle::exec::{self, InheritedConnection, TakenOver};
use crate::lifecycle::pid_file::Legacy;
use crate::lifecycle::predecessor::{Hello, Predecessor};
use crate::lifecycle::program;
use crate::lifecycle::state::{Inheritance, SavedSession};
use crate::lifecycle::way_back::{self, CameBack};
use crate::listener::{Address, Kept, Listener, Origin, keep_or_bind};
use crate::sys::descriptors::own_one;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

/// What this process was started as. Only the first server that is built is a successor.
pub enum Role {
    First,
    /// This process was the predecessor until execve.
    Exec(TakenOver, Legacy, Option<CameBack>),
    /// The predecessor runs beside us.
    Overlap(Hello, Legacy),
}

/// What a server begins with, besides its configuration.
#[derive(Default)]
pub struct Inherited {
    pub inheritance: Inheritance,
    pub connections: Vec<InheritedConnection>,
    /// What the hub has written down.
    pub hub: Option<Vec<u8>>,
    pub sessions: Vec<SavedSession>,
    pub predecessor: Option<Predecessor>,
    pub legacy: Legacy,
    /// If this process had become a program that did not serve.
    pub came_back: Option<CameBack>,
    /// Whether the predecessor has to say first that we serve.
    pub waits_for_go: bool,
}

/// Its listeners, those it inherited and no longer needs, and the rest.
#[derive(Default)]
pub struct Startup {
    pub listeners: Vec<Listener>,
    pub obsolete: Vec<Listener>,
    pub inherited: Inherited,
}

impl Role {
    /// What the environment says, said once.
    pub fn take() -> Result<Role, Error> {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        let failed = |error: String| Error::runtime(format_args!("cannot take over"), io::Error::other(error));
        if TAKEN.swap(true, Ordering::SeqCst) {
            return Ok(Role::First);
        }
        // Both are for one process: a program of ours that an application starts inherits the variables and no more.
        let told = std::env::var_os(program::RELOAD).unwrap_or_default();
        if let Some(number) = program::state_of_this_process() {
            let legacy =
                Legacy::read(&told, |fd| own_one(fd).ok().and_then(|fd| way_back::copy(fd).ok()).map(File::from));
            let came_back = way_back::came_back();
            let mut taken = exec::take_over(number).map_err(failed)?;
            match &came_back {
                Some(_) => {
                    resume(taken.inheritance.generation);
                    // What was counted for a generation that has not come.
                    let counters = &mut taken.inheritance.counters;
                    counters.reloads = counters.reloads.saturating_sub(1);
                    counters.migrated = counters.migrated.saturating_sub(taken.connections.len() as u64);
                }
                None => succeed(taken.inheritance.generation),
            }
            return Ok(Role::Exec(taken, legacy, came_back));
        }
        if program::is_successor() {
            let legacy = Legacy::read(&told, |_| None);
            let begin = Predecessor::receive_hello().map_err(failed)?;
            succeed(begin.inheritance.generation);
            return Ok(Role::Overlap(begin, legacy));
        }
        Ok(Role::First)
    }

    /// Tells a predecessor that runs beside us why nothing will come of us.
    pub fn hears_why(&self, error: &Error) {
        if let Role::Overlap(begin, _) = self {
            begin.predecessor.hears_why(error);
        }
    }

    /// Binds what is new, keeps what was inherited.
    pub fn begin(self, addresses: &[Address]) -> Result<Startup, Error> {
        let mut waits_for_go = false;
        let mut sessions = Vec::new();
        let (mut inheritance, connections, hub, predecessor, descriptors, legacy, came_back) = match self {
            Role::First => {
                let Kept { mut listeners, obsolete } =
                    keep_or_bind(addresses, activation::inherited_from_env()?, false)?;
                listeners.iter_mut().try_for_each(Listener::listen)?;
                return Ok(Startup { listeners, obsolete, inherited: Inherited::default() });
            }
            Role::Exec(TakenOver { inheritance, listeners, connections, hub, sessions: theirs }, legacy, came_back) => {
                sessions = theirs;
                (inheritance, connections, hub, None, listeners, legacy, came_back)
            }
            Role::Overlap(Hello { predecessor, inheritance, listeners, switch }, legacy) => {
                waits_for_go = switch;
                (inheritance, Vec::new(), None, Some(predecessor), listeners, legacy, None)
            }
        };
        // Where there is no way back, one listener that cannot be bound must not end all others; and who may still come back
        // removes no file.
        let is_final = predecessor.is_none() && !way_back::is_armed();
        let inherited = inherit(&mut inheritance, descriptors, is_final);
        if predecessor.is_none() {
            // Who was executed here before us may have come back in the middle of binding one beside them.
            inherited.iter().for_each(Listener::stand_alone);
        }
        // What is new listens when this process serves, `Acceptor::listen`: until then it takes no client from anybody, who
        // would be reset if this came to nothing.
        let Kept { listeners, obsolete } = keep_or_bind(addresses, inherited, is_final)
            .inspect_err(|error| predecessor.iter().for_each(|predecessor| predecessor.hears_why(error)))?;
        let inherited =
            Inherited { inheritance, connections, hub, sessions, predecessor, legacy, came_back, waits_for_go };
        Ok(Startup { listeners, obsolete, inherited })
    }
}

/// `descriptors` are of each listener, and of its spare socket.
fn inherit(
    inheritance: &mut Inheritance,
    descriptors: Vec<(OwnedFd, Option<OwnedFd>)>,
    own_files: bool,
) -> Vec<Listener> {
    let mut listeners = Vec::new();
    let all = std::mem::take(&mut inheritance.listeners).into_iter().zip(0..);
    for ((inherited, place), (fd, spare)) in all.zip(descriptors) {
        let origin = Origin { place, address: inherited.address };
        match Listener::inherit(fd, spare, inherited.file, own_files, origin) {
            Ok(listener) => listeners.push(listener),
            Err(error) => log::error!("cannot go on with an inherited listener: {error}"),
        }
    }
    listeners
}
