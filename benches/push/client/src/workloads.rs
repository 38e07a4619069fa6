//! What is asked of a server, and what is said about it.

use crate::description::Description;
use crate::figures::{Figures, summary};
use crate::message::now;
use crate::posts;
use crate::process::{Cpu, Processes};
use crate::publisher::{Connection, Published, Publisher};
use crate::subscribers::{Subscribers, Watched};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

#[derive(Clone, Debug)]
pub struct Plan {
    pub description: Description,
    pub subscribers: usize,
    pub topics: u32,
    pub sources: u8,
    /// Messages a second.
    pub rate: u64,
    pub messages: u64,
    pub window: u64,
    pub seconds: f64,
    /// Connections that publish without subscribers.
    pub connections: u32,
    pub pid: u32,
    /// The pid file of who is sent HUP, read each time since a reload may change it, and how often.
    pub reload: Option<PathBuf>,
    pub reloads: u32,
    pub every: f64,
    pub patience: f64,
    /// Microseconds that the client lets deliveries come together, see `Subscribers::nap`.
    pub nap: u64,
}

/// Servers settle for so long before something is counted, and whoever is silent for so long has nothing more.
const SETTLE: Duration = Duration::from_millis(700);
const SILENCE: Duration = Duration::from_secs(2);
/// Memory is given back, if at all, when nothing has been asked for some time.
const REST: Duration = Duration::from_millis(2500);

pub const NAMES: [&str; 9] = ["one", "rate", "window", "posts", "connect", "idle", "pauses", "flood", "echo"];

pub fn run(plan: &Plan, workload: &str) -> io::Result<Figures> {
    match workload {
        "one" => one(plan),
        "rate" => rate(plan),
        "window" => window(plan),
        "posts" => without_subscribers(plan),
        "connect" => connect(plan),
        "idle" => idle(plan),
        "pauses" => pauses(plan),
        "flood" => flood(plan),
        "echo" => echo(plan),
        _ => Err(io::Error::other(format!("no workload {workload:?}; there are {NAMES:?}"))),
    }
}

struct Watch {
    processes: Processes,
    cpu: Cpu,
}

impl Watch {
    fn begin(plan: &Plan) -> Watch {
        let processes = Processes::of(plan.pid);
        Watch { cpu: processes.cpu(), processes }
    }

    /// Seconds until now.
    fn cpu(&self) -> f64 {
        self.processes.cpu().since(&self.cpu, self.processes.count())
    }
}

fn there<'a>(plan: &'a Plan, topic: impl Fn(usize) -> u32) -> io::Result<Subscribers<'a>> {
    let mut subscribers = Subscribers::new(&plan.description, plan.subscribers, plan.sources, topic)?;
    subscribers.connect(Duration::from_secs_f64(plan.patience))?;
    subscribers.turns_for(SETTLE)?;
    subscribers.nap = Duration::from_micros(plan.nap);
    Ok(subscribers)
}

/// Runs the publisher beside the subscribers, and then waits for what is still on its way.
fn beside<'a>(subscribers: &mut Subscribers<'a>, publish: impl FnOnce() -> Published + Send) -> io::Result<Published> {
    let published = thread::scope(|scope| {
        let publisher = scope.spawn(publish);
        if let Some(watched) = &mut subscribers.watched {
            watched.publisher = Some(publisher.thread().clone());
        }
        while !publisher.is_finished() {
            subscribers.turn(Duration::from_millis(5))?;
        }
        publisher.join().map_err(|_| io::Error::other("the publisher panicked"))
    })?;
    subscribers.drain(&published.last, SILENCE)?;
    Ok(published)
}

/// One message to all, again and again with rests between them.
fn one(plan: &Plan) -> io::Result<Figures> {
    let mut subscribers = there(plan, |_| 0)?;
    let watch = Watch::begin(plan);
    let mut publisher = Publisher::new(&plan.description, 1);
    let (mut all, mut lasts) = (Vec::new(), Vec::new());
    for _ in 0..plan.messages {
        subscribers.latencies.clear();
        let number = publisher.published.last[0] + 1;
        publisher = thread::scope(|scope| {
            let publishing = scope.spawn(move || {
                publisher.publish(0, None);
                publisher
            });
            while !publishing.is_finished() {
                subscribers.turn(Duration::from_millis(1))?;
            }
            publishing.join().map_err(|_| io::Error::other("the publisher panicked"))
        })?;
        subscribers.drain(&[number], SILENCE)?;
        lasts.push(subscribers.latencies.iter().copied().max().unwrap_or(0));
        all.push(summary(&mut subscribers.latencies));
        subscribers.turns_for(Duration::from_millis(200))?;
    }
    let cpu = watch.cpu();
    subscribers.finish(&publisher.published.last);
    let mut figures = Figures::default();
    figures.checked(&subscribers).published(&publisher.published);
    figures.say("cpu_us", cpu * 1e6 / subscribers.counts.deliveries.max(1) as f64);
    figures.say("last", summary(&mut lasts)).say("messages", all);
    Ok(figures)
}

/// Messages at a fixed rate, over the topics in turn.
fn rate(plan: &Plan) -> io::Result<Figures> {
    let topics = plan.topics;
    let mut subscribers = there(plan, |number| number as u32 % topics)?;
    let watch = Watch::begin(plan);
    let publisher = Publisher::new(&plan.description, topics);
    let topic = |number| (number % u64::from(topics)) as u32;
    let published = beside(&mut subscribers, || publisher.at_rate(plan.rate, plan.seconds, false, topic))?;
    let cpu = watch.cpu();
    subscribers.finish(&published.last);
    let mut figures = Figures::default();
    figures.checked(&subscribers).published(&published);
    figures.say("cpu_us", cpu * 1e6 / subscribers.counts.deliveries.max(1) as f64);
    figures.say("latency", summary(&mut subscribers.latencies));
    Ok(figures)
}

/// The next message goes when everybody has the one `window` before it.
fn window(plan: &Plan) -> io::Result<Figures> {
    let mut subscribers = there(plan, |_| 0)?;
    let watched = Watched::new(subscribers.count());
    let complete = watched.complete.clone();
    subscribers.watched = Some(watched);
    let watch = Watch::begin(plan);
    let publisher = Publisher::new(&plan.description, 1);
    let began = now();
    let published = beside(&mut subscribers, || publisher.in_window(plan.window, plan.seconds, &complete))?;
    let took = (subscribers.last_delivery.saturating_sub(began)).max(1) as f64 / 1e9;
    let cpu = watch.cpu();
    subscribers.finish(&published.last);
    let mut figures = Figures::default();
    figures.checked(&subscribers).published(&published);
    let deliveries = subscribers.counts.deliveries;
    figures.say("rate", deliveries as f64 / took);
    figures.say("cpu_us", cpu * 1e6 / deliveries.max(1) as f64);
    figures.say("latency", summary(&mut subscribers.latencies));
    Ok(figures)
}

fn without_subscribers(plan: &Plan) -> io::Result<Figures> {
    posts::run(&plan.description, plan.connections, 0.3)?;
    let watch = Watch::begin(plan);
    let began = Instant::now();
    let answered = posts::run(&plan.description, plan.connections, plan.seconds)?;
    let (took, cpu) = (began.elapsed().as_secs_f64(), watch.cpu());
    let mut figures = Figures::default();
    figures.say("posts", answered).say("rate", answered as f64 / took).say("cpu_us", cpu * 1e6 / answered as f64);
    Ok(figures)
}

/// All at once.
fn connect(plan: &Plan) -> io::Result<Figures> {
    let mut subscribers = Subscribers::new(&plan.description, plan.subscribers, plan.sources, |_| 0)?;
    let watch = Watch::begin(plan);
    let began = Instant::now();
    subscribers.connect(Duration::from_secs_f64(plan.patience))?;
    let took = began.elapsed().as_secs_f64();
    // Some register a subscriber after its head has gone.
    subscribers.turns_for(Duration::from_millis(200))?;
    let cpu = watch.cpu();
    let mut publisher = Publisher::new(&plan.description, 1);
    publisher.publish(0, None);
    subscribers.drain(&publisher.published.last, SILENCE)?;
    subscribers.finish(&publisher.published.last);
    let mut figures = Figures::default();
    figures.checked(&subscribers).published(&publisher.published);
    figures.say("all_there_ms", took * 1e3).say("cpu_us", cpu * 1e6 / subscribers.count() as f64);
    Ok(figures)
}

/// Memory for each, and CPU while nothing is published.
fn idle(plan: &Plan) -> io::Result<Figures> {
    // What comes with the first of all is no part of the others.
    let mut first = Subscribers::new(&plan.description, 1, 1, |_| 0)?;
    first.connect(Duration::from_secs_f64(plan.patience))?;
    drop(first);
    thread::sleep(REST);
    let processes = Processes::of(plan.pid);
    let before = processes.memory();
    let mut subscribers = there(plan, |_| 0)?;
    subscribers.turns_for(REST)?;
    let with = processes.memory();
    let watch = Watch::begin(plan);
    let began = Instant::now();
    subscribers.turns_for(Duration::from_secs_f64(plan.seconds))?;
    let (cpu, took) = (watch.cpu(), began.elapsed().as_secs_f64());
    let mut figures = Figures::default();
    if plan.description.publish.is_empty() {
        subscribers.ping_all(SILENCE)?;
    } else {
        let mut publisher = Publisher::new(&plan.description, 1);
        publisher.publish(0, None);
        subscribers.drain(&publisher.published.last, SILENCE)?;
        subscribers.finish(&publisher.published.last);
        figures.published(&publisher.published);
    }
    let count = subscribers.count() as f64;
    figures.checked(&subscribers);
    figures.say("anonymous_before", before.anonymous).say("anonymous_with", with.anonymous);
    figures.say("shared_before", before.shared).say("shared_with", with.shared);
    figures.say("bytes_each", (with.anonymous as f64 - before.anonymous as f64) / count);
    figures.say("shared_each", (with.shared as f64 - before.shared as f64) / count);
    figures.say("cpu_percent", cpu / took * 100.0);
    Ok(figures)
}

/// Each client says something, waits until it hears that, and says the next.
fn echo(plan: &Plan) -> io::Result<Figures> {
    let mut subscribers = there(plan, |number| number as u32)?;
    let watch = Watch::begin(plan);
    let began = now();
    subscribers.answers = true;
    for number in 0..subscribers.count() {
        subscribers.say(number)?;
    }
    subscribers.turns_for(Duration::from_secs_f64(plan.seconds))?;
    subscribers.answers = false;
    let said = subscribers.said.clone();
    subscribers.drain(&said, SILENCE)?;
    let took = (subscribers.last_delivery.saturating_sub(began)).max(1) as f64 / 1e9;
    let cpu = watch.cpu();
    subscribers.finish(&said);
    let mut figures = Figures::default();
    let deliveries = subscribers.counts.deliveries;
    figures.checked(&subscribers).say("rate", deliveries as f64 / took);
    figures.say("cpu_us", cpu * 1e6 / deliveries.max(1) as f64);
    figures.say("latency", summary(&mut subscribers.latencies));
    Ok(figures)
}

/// Watchers of topic 0 get half of the messages, so that each of them sees a pause; the others, on their own topics, say
/// that nobody misses one. Times count from when a message was due, so that a publisher that has to wait hides nothing.
fn pauses(plan: &Plan) -> io::Result<Figures> {
    const WATCHERS: usize = 100;
    let each = (plan.subscribers / WATCHERS).max(1);
    let topics = plan.topics.max(2);
    let wide = |number: u64| 1 + (number % u64::from(topics - 1)) as u32;
    let mut subscribers = there(plan, |number| if number.is_multiple_of(each) { 0 } else { wide(number as u64) })?;
    subscribers.return_when_lost = true;
    let began = now();
    let publisher = Publisher::new(&plan.description, topics);
    let seconds = 2.0 + f64::from(plan.reloads) * plan.every;
    let topic = |number: u64| if number.is_multiple_of(2) { 0 } else { wide(number / 2) };
    let mut windows = Vec::new();
    let mut before = Vec::new();
    let published = thread::scope(|scope| {
        let publisher = scope.spawn(|| publisher.at_rate(plan.rate, seconds, true, topic));
        subscribers.turns_for(Duration::from_secs(2))?;
        before.extend([subscribers.pauses(0)]);
        for _ in 0..plan.reloads {
            subscribers.forget_pauses();
            let lost = subscribers.reconnects;
            let at = now();
            if let Some(file) = &plan.reload {
                let pid = fs::read_to_string(file)?.trim().parse().ok().and_then(Pid::from_raw);
                kill_process(pid.ok_or_else(|| io::Error::other("no pid in the pid file"))?, Signal::HUP)?;
            }
            subscribers.turns_for(Duration::from_secs_f64(plan.every))?;
            windows.push((at, subscribers.pauses(0), subscribers.reconnects - lost));
        }
        while !publisher.is_finished() {
            subscribers.turn(Duration::from_millis(5))?;
        }
        publisher.join().map_err(|_| io::Error::other("the publisher panicked"))
    })?;
    subscribers.drain(&published.last, SILENCE)?;
    subscribers.finish(&published.last);
    let mut figures = Figures::default();
    figures.checked(&subscribers).published(&published);
    let said = |from: u64, to: u64, (mut widest, mut latest): (Vec<u64>, Vec<u64>), lost: u64| {
        let within = published.times.iter().filter(|(due, _)| (from..to).contains(due));
        let worst = within.map(|(_, took)| *took).max().unwrap_or(0);
        let max = |values: &mut Vec<u64>| values.iter().max().copied().unwrap_or(0) as f64 / 1e6;
        serde_json::json!({
            "gap_ms": max(&mut widest), "delivery_ms": max(&mut latest), "post_ms": worst as f64 / 1e6, "reconnects": lost,
        })
    };
    let every = (plan.every * 1e9) as u64;
    let quiet = before.pop().map(|pauses| said(began, began + 2_000_000_000, pauses, 0));
    let reloads: Vec<_> = windows.into_iter().map(|(at, pauses, lost)| said(at, at + every, pauses, lost)).collect();
    let worst = |key: &str| reloads.iter().filter_map(|one| one[key].as_f64()).fold(0.0, f64::max);
    figures.say("gap_ms", worst("gap_ms")).say("delivery_ms", worst("delivery_ms")).say("post_ms", worst("post_ms"));
    figures.say("before", quiet.unwrap_or_default()).say("reloads", reloads.clone());
    Ok(figures)
}

/// An ordinary client without and then with one publisher that goes as fast as it can.
fn flood(plan: &Plan) -> io::Result<Figures> {
    const PIPELINED: u64 = 64;
    let mut subscribers = there(plan, |_| 0)?;
    let time = Duration::from_secs_f64(plan.seconds);
    let mut quiet = thread::scope(|scope| {
        let client = scope.spawn(|| ordinary(&plan.description, time));
        while !client.is_finished() {
            subscribers.turn(Duration::from_millis(5))?;
        }
        client.join().map_err(|_| io::Error::other("the client panicked"))?
    })?;
    let over = AtomicBool::new(false);
    let publisher = Publisher::new(&plan.description, 1);
    let watch = Watch::begin(plan);
    let (mut busy, published) = thread::scope(|scope| {
        let client = scope.spawn(|| ordinary(&plan.description, time));
        let publisher = scope.spawn(|| publisher.flood(PIPELINED, &over));
        while !client.is_finished() {
            if let Err(error) = subscribers.turn(Duration::from_millis(5)) {
                over.store(true, Ordering::Relaxed);
                return Err(error);
            }
        }
        over.store(true, Ordering::Relaxed);
        while !publisher.is_finished() {
            subscribers.turn(Duration::from_millis(5))?;
        }
        let busy = client.join().map_err(|_| io::Error::other("the client panicked"))??;
        Ok((busy, publisher.join().map_err(|_| io::Error::other("the publisher panicked"))?))
    })?;
    subscribers.drain(&published.last, SILENCE)?;
    let memory = watch.processes.memory();
    subscribers.finish(&published.last);
    let mut figures = Figures::default();
    figures.checked(&subscribers).published(&published);
    figures.say("rate", published.posts as f64 / plan.seconds);
    figures.say("without", summary(&mut quiet)).say("with", summary(&mut busy));
    figures.say("peak", memory.peak);
    Ok(figures)
}

/// About one request a millisecond; how long each took, in microseconds.
fn ordinary(description: &Description, time: Duration) -> io::Result<Vec<u64>> {
    let mut connection = Connection::new(description.address);
    let request = description.ordinary();
    let until = Instant::now() + time;
    let mut times = Vec::new();
    while Instant::now() < until {
        let began = Instant::now();
        connection.ask(&request)?;
        times.push(began.elapsed().as_micros() as u64);
        thread::sleep(Duration::from_millis(1));
    }
    Ok(times)
}
