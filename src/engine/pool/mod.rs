//! The fixed number of threads that drive connections, and the channel that they take them from.

pub mod job;
pub mod work_queue;
pub mod worker;
