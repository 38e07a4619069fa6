//! Stopping, reloading, upgrading.
//!
//! # Starting it
//!
//! ```text
//! $ items --check -c /etc/items.toml        # says all settings, and what is wrong; binds nothing
//! $ items -c /etc/items.toml --pid-file /run/items.pid
//! ```
//!
//! A configuration file has the server's settings, in TOML; flags win over it. `contrib/` of the repository has units for
//! systemd, and files for supervisord, runit, s6, OpenWrt and containers.
//!
//! # Upgrading it
//!
//! Put the new program in the place of the old one, by rename, and ask for a reload:
//!
//! ```text
//! $ cp items.new /usr/local/bin/.items && mv /usr/local/bin/.items /usr/local/bin/items
//! $ items reload --pid-file /run/items.pid --wait
//! reloaded: process 4243 has taken over from 4242, after 0.12 s
//! ```
//!
//! The server has the new program check itself, and goes on as before where that fails: `--wait` says why, and fails too.
//! Otherwise the new one takes over: listeners, live connections, half-read requests, half-sent files, subscribers, and what is
//! carried over. A change of the configuration is the same command.
//!
//! So an application does nothing before [`Server::run`](crate::Server::run) that a check must not do: what it opens for
//! writing, and threads that it starts, belong into handlers or into [`background`](crate::Builder::background).
//!
//! # What an application can know
//!
//! [`generation`](crate::generation) says which execution this is, [`stopping`](crate::stopping) whether a long handler is to
//! come to an end.
//!
//! ```
//! let server = handover::Server::builder().handler(|_| format!("generation {}\n", handover::generation()));
//! let server = handover::test::Server::start(server)?;
//! assert_eq!(server.get("/").send().text(), "generation 1\n");
//! # Ok::<(), handover::Error>(())
//! ```
//!
//! # Stopping it
//!
//! TERM finishes what is under way, for up to `--stop-deadline`; a second one ends it at once. The exit code is 0 where
//! nothing was lost, 3 where the deadline has cut requests, each of which is in the log, and 4 where it was stopped at once.
//! Behind a balancer `--lame-duck SECS` goes on serving for a while with `/-/ready` at 503.
//!
//! # On several hosts
//!
//! With the feature `redis` and a [`BusConfig`](crate::BusConfig) hubs of several hosts are one: what is published in one is heard
//! in all. [`Namespace::publish`](crate::Namespace::publish) then waits for its message to come back, for 5 seconds at most, and
//! says [`Unavailable`](crate::PublishError::Unavailable) where nothing was published, and
//! [`Unanswered`](crate::PublishError::Unanswered) where nobody knows. A session of SockJS, the client of a conversation and what
//! waits for it stay on the host that they came to.
//!
//! # As which user, and with how much
//!
//! `--user NAME` binds as root and serves as another user for good; [`Builder::confine`](crate::Builder::confine) lets handlers
//! open nothing but the paths that are named. `--memory 20M` is one ceiling for all that clients can hold.
