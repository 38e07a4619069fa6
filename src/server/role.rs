//! What this process was started as: the first, or a successor; and which listeners that leaves to bind.

use crate::Error;
use crate::generation::{resume, succeed};
use crate::lifecycle::activation;
use crate::lifecycle::exec::{self, InheritedConnection, TakenOver};
use crate::lifecycle::pid_file::Legacy;
use crate::lifecycle::predecessor::{Hello, Predecessor};
use crate::lifecycle::program;
use crate::lifecycle::state::Inheritance;
use crate::lifecycle::way_back::{self, CameBack};
use crate::listener::{Address, Listener};
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
    pub predecessor: Option<Predecessor>,
    pub legacy: Legacy,
    /// If this process had become a program that did not serve.
    pub came_back: Option<CameBack>,
}

/// Its listeners, those it inherited and no longer needs, and the rest.
#[derive(Default)]
pub struct Startup {
    pub listeners: Vec<Listener>,
    pub obsolete: Vec<Listener>,
    pub inherited: Inherited,
}

impl Role {
    /// Whether the process was started to check itself.
    pub fn is_check() -> bool {
        std::env::var_os(program::CHECK).is_some()
    }

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
        let (mut inheritance, connections, predecessor, descriptors, legacy, came_back) = match self {
            Role::First => {
                let (listeners, obsolete) = bind_or_keep(addresses, activation::inherited_from_env()?, false)?;
                return Ok(Startup { listeners, obsolete, inherited: Inherited::default() });
            }
            Role::Exec(TakenOver { inheritance, listeners, connections }, legacy, came_back) => {
                (inheritance, connections, None, listeners, legacy, came_back)
            }
            Role::Overlap(Hello { predecessor, inheritance, listeners }, legacy) => {
                (inheritance, Vec::new(), Some(predecessor), listeners, legacy, None)
            }
        };
        // Who may still come back removes no file.
        let inherited = inherit(&mut inheritance, descriptors, predecessor.is_none() && !way_back::is_armed());
        // Where there is no way back: one listener that cannot be bound must not end all others.
        let (listeners, obsolete) = bind_or_keep(addresses, inherited, predecessor.is_none() && !way_back::is_armed())
            .inspect_err(|error| predecessor.iter().for_each(|predecessor| predecessor.hears_why(error)))?;
        let inherited = Inherited { inheritance, connections, predecessor, legacy, came_back };
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
    for (inherited, (fd, spare)) in std::mem::take(&mut inheritance.listeners).into_iter().zip(descriptors) {
        match Listener::inherit(fd, spare, inherited.address, inherited.file, own_files) {
            Ok(listener) => listeners.push(listener),
            Err(error) => log::error!("cannot go on with an inherited listener: {error}"),
        }
    }
    listeners
}

/// Moves those that are `wanted`, in their order.
fn take(from: &mut Vec<Listener>, to: &mut Vec<Listener>, wanted: &dyn Fn(&Listener) -> bool) {
    while let Some(at) = from.iter().position(wanted) {
        to.push(from.remove(at));
    }
}

/// Keeps the inherited listeners that the configuration still names, binds the others, and answers which have become
/// obsolete. Where the service manager passed listeners it decides, and the configuration's are not bound.
fn bind_or_keep(
    addresses: &[Address],
    mut inherited: Vec<Listener>,
    forgiving: bool,
) -> Result<(Vec<Listener>, Vec<Listener>), Error> {
    let mut listeners = Vec::new();
    take(&mut inherited, &mut listeners, &Listener::is_shared);
    if !listeners.is_empty() {
        log::info!("the listeners are the service manager's, not those of the configuration");
        return Ok((listeners, inherited));
    }
    for address in addresses {
        let text = address.to_string();
        let before = listeners.len();
        take(&mut inherited, &mut listeners, &|listener| listener.inheritance().0 == text);
        if listeners.len() > before {
            continue;
        }
        match Listener::bind(address) {
            Ok(bound) => listeners.extend(bound),
            Err(error) if forgiving => log::error!("{error}; serving without it"),
            Err(error) => return Err(error),
        }
    }
    Ok((listeners, inherited))
}
