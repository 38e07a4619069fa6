//! What threads meet at, compiled with loom's types: the slot's word and the work queue. The models in `tests/` run
//! them in every order of their steps that so many preemptions can bring about.

pub mod sync;

/// Where the product has them.
pub mod engine {
    pub use crate::sync;
}

#[path = "../../src/engine/pool/work_queue.rs"]
pub mod queue;
#[path = "../../src/engine/slot/word.rs"]
pub mod word;

/// The queue with one fault in each; see `build.rs`.
pub mod faulty {
    macro_rules! faulty {
        ($($name:ident),+) => {$(
            pub mod $name {
                include!(concat!(env!("OUT_DIR"), "/", stringify!($name), ".rs"));
            }
        )+};
    }
    faulty!(no_second_look, nobody_wakes_the_next, no_look_after_the_last, searches_for_ever, woken_before_the_end);
}

/// Runs the model in every order in which threads are interrupted so many times where they could go on, or as many as
/// `LOOM_MAX_PREEMPTIONS` says.
pub fn check(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    builder.max_branches = 10_000;
    builder.check(model);
}
