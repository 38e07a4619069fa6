//! What holds for any snapshot that a connection is to go on with.

use super::Connection;
use crate::lifecycle::invariants as lifecycle;
use crate::lifecycle::state::{Snapshot, encode, versions};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Whatever a successor is given: see [`lifecycle::state`].
pub fn state(bytes: &[u8]) {
    lifecycle::state(bytes, restored);
}

/// A connection that could be restored is written down as it was.
fn restored(snapshot: Snapshot) {
    let version = *versions().end();
    let written = encode(snapshot.clone(), version);
    let null = || OwnedFd::from(File::open("/dev/null").expect("/dev/null"));
    if let Ok(restored) = Connection::restore(snapshot, null(), Some(&Arc::new(null().into()))) {
        let (again, _) = restored.connection.snapshot(restored.deadline).expect("nothing in it is the application's");
        assert_eq!(encode(again, version), written);
    }
}
