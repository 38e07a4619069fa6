//! What threads meet at. The files that use it and nothing else of this crate are model-checked: `loom/` compiles them
//! with loom's types in the place of these.

pub use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, bounded};
pub use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering, fence};
pub use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
pub use std::thread::{self, Thread};
