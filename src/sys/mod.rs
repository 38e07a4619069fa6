//! What only the operating system can do, behind safe functions.
//!
//! The contract: every `unsafe` of the library and the program stands below this folder, each with the reason why it is
//! sound; what it offers is safe for any argument. Nothing here knows of requests, connections or settings. Linux only:
//! which call needs which kernel, and what happens where it is refused, stands beside the call.

pub mod allocator;
pub mod clock;
pub mod come_back;
pub mod descriptors;
pub mod landlock;
pub mod limits;
pub mod privileges;
pub mod process;
pub mod readiness;
pub mod regular_file;
pub mod resident;
pub mod scheduling;
pub mod signals;
pub mod socket_options;
pub mod stdio;
pub mod terminal;
pub mod working_directory;
