//! One connection to Redis, and what is said on it.

use super::Settings;
use pubsub::{Followed, Message, Position, Topic};
use redis::{Connection, ErrorKind, IntoConnectionInfo, RedisError, ServerErrorKind, Value};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// For a connection, and for each answer: a Redis that says nothing for so long is none.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// How long the connection that reads waits for a message.
pub const BLOCK: Duration = Duration::from_secs(1);
/// Entries that are asked for at a time.
const COUNT: usize = 500;
/// Names of namespaces that are kept.
const NAMESPACES: usize = 1024;
/// The first that has streams, and scripts that may ask for the time.
const OLDEST: u32 = 5;
const SCRIPTS: &str = include_str!("scripts.lua");

/// Why something that was asked of Redis has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It has said no: nothing has happened.
    Refused(String),
    /// The connection is of no use, or says nothing: what was asked may have happened.
    Lost(String),
    /// The same where it has ended, or this process stood still: another may be as good as ever.
    Broken(String),
}

impl Failure {
    fn of(error: &RedisError) -> Failure {
        let text = match (error.code(), error.detail()) {
            (Some(code), Some(detail)) => one_line(&format!("{code} {detail}")),
            _ => one_line(&error.to_string()),
        };
        match error.kind() {
            ErrorKind::Parse => Failure::Lost("what answers there does not speak as Redis does".into()),
            // It has the scripts no more: a new connection brings them.
            ErrorKind::Server(ServerErrorKind::NoScript) => Failure::Lost(text),
            ErrorKind::Server(_) | ErrorKind::Extension => Failure::Refused(text),
            ErrorKind::AuthenticationFailed => Failure::Refused(text),
            _ if error.is_connection_dropped() || is_interrupted(error) => Failure::Broken(text),
            _ if error.is_timeout() => Failure::Lost(format!("no answer within {} s", PATIENCE.as_secs())),
            _ => Failure::Lost(text),
        }
    }

    pub fn reason(self) -> String {
        match self {
            Failure::Refused(reason) | Failure::Lost(reason) | Failure::Broken(reason) => reason,
        }
    }
}

fn is_interrupted(error: &RedisError) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<std::io::Error>());
    source.is_some_and(|error| error.kind() == std::io::ErrorKind::Interrupted)
}

fn one_line(text: &str) -> String {
    text.replace(|one: char| one.is_control(), " ").trim().to_owned()
}

fn unexpected() -> Failure {
    Failure::Lost("an answer that is none of Redis's".into())
}

/// How the bus stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Empty where nothing was published and nobody ticks.
    pub epoch: String,
    /// The last offset that was given out.
    pub offset: u64,
    /// The last before this epoch.
    pub base: u64,
    /// Epochs before it, each with the last offset that is the same everywhere.
    pub lineage: Vec<Position>,
    /// Of the oldest entry that is kept, 0 for none, and of the last.
    pub first: u64,
    pub last: u64,
    /// Of what has the place that was asked for, if anything has.
    pub mark: Option<u64>,
    /// Its clock, in milliseconds.
    pub now: i64,
}

/// What came of a tick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticked {
    pub epoch: u64,
    pub offset: u64,
    /// How many subscribers each host has.
    pub hosts: Vec<(String, u64)>,
}

/// What came of a publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placed {
    At(Position),
    Repeated(Position),
    Reused,
    /// It has failed when something of it was there already.
    Partly(String),
}

/// An entry of the stream.
#[derive(Debug)]
pub struct Entry {
    pub epoch: u64,
    /// When Redis was given it, by its clock.
    pub time: i64,
    pub message: Followed,
}

pub struct Link {
    connection: Connection,
    sha: String,
    keys: [String; 4],
    /// Of topics that were read, so that those of one name are one.
    namespaces: HashMap<String, Arc<str>>,
}

impl Link {
    /// Connects, says who it is, and leaves the scripts there.
    pub fn open(settings: &Settings) -> Result<Link, Failure> {
        #[cfg(feature = "redis-tls")]
        // Somebody may have said it before: an application with TLS of its own.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut info = settings.url.as_str().into_connection_info().map_err(|error| Failure::of(&error))?;
        if let Some(password) = &settings.password {
            let redis = info.redis_settings().clone().set_password(password);
            info = info.set_redis_settings(redis);
        }
        let open = || -> Result<Connection, RedisError> {
            let client = redis::Client::open(info)?;
            let connection = client.get_connection_with_timeout(PATIENCE)?;
            connection.set_read_timeout(Some(PATIENCE))?;
            connection.set_write_timeout(Some(PATIENCE))?;
            Ok(connection)
        };
        let connection = open().map_err(|error| Failure::of(&error))?;
        let prefix = &settings.prefix;
        let keys = ["log", "state", "retained", "hosts"].map(|name| format!("{{{prefix}}}:{name}"));
        let mut link = Link { connection, sha: String::new(), keys, namespaces: HashMap::new() };
        link.look_at_version()?;
        let sha = link.ask(redis::cmd("SCRIPT").arg("LOAD").arg(SCRIPTS))?;
        link.sha = text(sha).ok_or_else(unexpected)?;
        Ok(link)
    }

    fn look_at_version(&mut self) -> Result<(), Failure> {
        let info = match self.ask(redis::cmd("INFO").arg("server")) {
            Ok(info) => text(info).ok_or_else(unexpected)?,
            // Not every user may ask that.
            Err(Failure::Refused(_)) => return Ok(()),
            Err(lost) => return Err(lost),
        };
        let version = info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap_or_default().trim();
        let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        match major {
            Some(major) if major < OLDEST => Err(Failure::Refused(format!(
                "it is Redis {version}, which has no streams; needed is {OLDEST}.0 or newer"
            ))),
            _ => Ok(()),
        }
    }

    fn ask(&mut self, command: &redis::Cmd) -> Result<Value, Failure> {
        self.send(&command.get_packed_command())?;
        self.answer()
    }

    fn send(&mut self, packed: &[u8]) -> Result<(), Failure> {
        self.connection.send_packed_command(packed).map_err(|error| Failure::of(&error))
    }

    fn answer(&mut self) -> Result<Value, Failure> {
        let value = self.connection.recv_response().map_err(|error| Failure::of(&error))?;
        value.extract_error().map_err(|error| Failure::of(&error))
    }

    /// A call of the scripts, with that key of a publisher's.
    fn call(&self, key: Option<&str>) -> redis::Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.sha).arg(5).arg(&self.keys[..]);
        match key {
            Some(key) => command.arg(format!("{}key:{key}", self.keys[0].trim_end_matches("log"))),
            None => command.arg(&self.keys[0]),
        };
        command
    }

    /// How the bus stands, and what is in that place.
    pub fn look(&mut self, offset: u64) -> Result<Standing, Failure> {
        let answer = self.ask(self.call(None).arg("look").arg(offset))?;
        let fields = texts(answer).ok_or_else(unexpected)?;
        let [epoch, offset, base, lineage, first, last, mark, now] = &fields[..] else { return Err(unexpected()) };
        let number = |text: &str| text.parse().map_err(|_| unexpected());
        Ok(Standing {
            epoch: epoch.clone(),
            offset: number(offset)?,
            base: number(base)?,
            lineage: lineage.split_whitespace().filter_map(lineage_of).collect(),
            first: number(first)?,
            last: number(last)?,
            mark: mark.parse().ok(),
            now: now.parse().map_err(|_| unexpected())?,
        })
    }

    /// Says that this host is there, and begins an epoch where there is none.
    pub fn tick(
        &mut self,
        candidate: u64,
        heard: u64,
        host: &str,
        subscribers: usize,
        lifetime: Duration,
    ) -> Result<Ticked, Failure> {
        let mut call = self.call(None);
        call.arg("tick").arg(candidate).arg(heard).arg(host).arg(subscribers).arg(lifetime.as_millis() as u64);
        let fields = texts(self.ask(&call)?).ok_or_else(unexpected)?;
        let [epoch, offset, hosts @ ..] = &fields[..] else { return Err(unexpected()) };
        let number = |text: &String| text.parse().map_err(|_| unexpected());
        let hosts = hosts.chunks_exact(2).filter_map(|pair| Some((pair[0].clone(), pair[1].parse().ok()?)));
        Ok(Ticked { epoch: number(epoch)?, offset: number(offset)?, hosts: hosts.collect() })
    }

    /// Another epoch instead of that one, which is the same everywhere up to there.
    pub fn renew(&mut self, lost: &str, candidate: u64, heard: u64, same: u64) -> Result<(), Failure> {
        self.ask(self.call(None).arg("renew").arg(lost).arg(candidate).arg(heard).arg(same)).map(drop)
    }

    /// Sends publications, one behind the other, each of which has its answer then.
    pub fn send_publications<'p>(
        &mut self,
        publications: impl Iterator<Item = &'p super::Outgoing>,
        candidate: u64,
        heard: u64,
        (length, lifetime): (usize, i64),
    ) -> Result<(), Failure> {
        let mut packed = Vec::new();
        for one in publications {
            let (key, hash) =
                one.key.as_ref().map_or((None, String::new()), |(key, hash)| (Some(&**key), hash.to_string()));
            let mut call = self.call(key);
            call.arg("publish").arg(candidate).arg(heard).arg(length).arg(lifetime / 1000).arg(hash);
            call.arg(one.messages.len());
            for (topic, message, retain, mark) in &one.messages {
                call.arg(topic.namespace()).arg(topic.name());
                call.arg(u8::from(message.event().is_some())).arg(message.event().unwrap_or_default());
                call.arg(message.data()).arg(u8::from(*retain)).arg(*mark);
            }
            call.write_packed_command(&mut packed);
        }
        self.send(&packed)
    }

    /// The answer to the next of those.
    pub fn placed(&mut self) -> Result<Placed, Failure> {
        let fields = texts(self.answer()?).ok_or_else(unexpected)?;
        let position = || {
            let number = |at: usize| fields.get(at).and_then(|text| text.parse().ok());
            Some(Position { epoch: number(1)?, offset: number(2)? })
        };
        match fields.first().map(String::as_str) {
            Some("published") => position().map(Placed::At),
            Some("repeated") => position().map(Placed::Repeated),
            Some("reused") => Some(Placed::Reused),
            Some("partly") => fields.get(1).map(|reason| Placed::Partly(one_line(reason))),
            _ => None,
        }
        .ok_or_else(unexpected)
    }

    /// Waits a while for what is behind that offset, unless it is to look only. Answers the offset of the last one as well, be it one of ours or not.
    pub fn read_behind(&mut self, offset: u64, waits: bool) -> Result<(Vec<Entry>, Option<u64>), Failure> {
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(COUNT);
        if waits {
            command.arg("BLOCK").arg(BLOCK.as_millis() as u64);
        }
        command.arg("STREAMS").arg(&self.keys[0]).arg(format!("{offset}-0"));
        let Some(streams) = array(self.ask(&command)?) else { return Err(unexpected()) };
        let Some(stream) = streams.into_iter().next() else { return Ok((Vec::new(), None)) };
        let entries =
            array(stream).and_then(|parts| parts.into_iter().nth(1)).and_then(array).ok_or_else(unexpected)?;
        let last = entries.last().and_then(id_of);
        Ok((entries.into_iter().filter_map(|entry| self.entry(entry)).collect(), last))
    }

    /// The last entries behind that offset and up to the other, in their order: so many bytes of data, about.
    pub fn tail(&mut self, behind: u64, end: Option<u64>, most: usize) -> Result<Vec<Entry>, Failure> {
        let up_to = |offset: u64| format!("{offset}-18446744073709551615");
        let (mut entries, mut bytes, mut end) = (Vec::new(), 0, end.map_or_else(|| "+".to_owned(), up_to));
        loop {
            let mut command = redis::cmd("XREVRANGE");
            command.arg(&self.keys[0]).arg(&end).arg(format!("{}-0", behind + 1)).arg("COUNT").arg(COUNT);
            let some = array(self.ask(&command)?).ok_or_else(unexpected)?;
            let count = some.len();
            let mut oldest = None;
            for value in some {
                oldest = id_of(&value).or(oldest);
                let Some(entry) = self.entry(value) else { continue };
                bytes += entry.message.message.data().len() + 256;
                entries.push(entry);
            }
            match oldest {
                Some(oldest) if count == COUNT && bytes < most && oldest > behind + 1 => {
                    end = up_to(oldest - 1);
                }
                _ => break,
            }
        }
        entries.reverse();
        Ok(entries)
    }

    /// What is retained, in its order.
    pub fn retained(&mut self) -> Result<Vec<Entry>, Failure> {
        let answer = self.ask(redis::cmd("HGETALL").arg(&self.keys[2]))?;
        let fields = array(answer).ok_or_else(unexpected)?;
        let mut entries: Vec<Entry> = fields.chunks(2).filter_map(|pair| self.retained_entry(pair)).collect();
        entries.sort_unstable_by_key(|entry| entry.message.offset);
        Ok(entries)
    }

    fn retained_entry(&mut self, pair: &[Value]) -> Option<Entry> {
        let [Value::BulkString(name), Value::BulkString(value)] = pair else { return None };
        let name = std::str::from_utf8(name).ok()?;
        let (length, rest) = name.split_once(':')?;
        let (namespace, topic) = rest.split_at_checked(length.parse().ok()?)?;
        let end = value.iter().position(|&byte| byte == b'\n')?;
        let mut head = std::str::from_utf8(&value[..end]).ok()?.split(' ');
        let (offset, time, mark) = (head.next()?.parse().ok()?, head.next()?.parse().ok()?, head.next()?.parse().ok()?);
        let event = usize::try_from(head.next()?.parse::<i64>().ok()?).ok();
        let (event, data) = match event {
            Some(length) => {
                let (event, data) = value[end + 1..].split_at_checked(length)?;
                (Some(event), data)
            }
            None => (None, &value[end + 1..]),
        };
        let message = self.message(namespace, topic, event, data, (offset, mark))?;
        Some(Entry { epoch: 0, time, message })
    }

    /// `None` for what nobody of ours has put there.
    fn entry(&mut self, value: Value) -> Option<Entry> {
        let offset = id_of(&value)?;
        let fields = array(value)?.into_iter().nth(1).and_then(array)?;
        let field = |name: &[u8]| {
            fields.chunks(2).find_map(|pair| match pair {
                [Value::BulkString(key), Value::BulkString(value)] if key == name => Some(&value[..]),
                _ => None,
            })
        };
        let number = |name: &[u8]| std::str::from_utf8(field(name)?).ok()?.parse::<u64>().ok();
        let (epoch, time, mark) = (number(b"p")?, number(b"m")?, number(b"k")?);
        let name = |name: &[u8]| std::str::from_utf8(field(name)?).ok();
        let message = self.message(name(b"n")?, name(b"t")?, field(b"e"), field(b"d")?, (offset, mark))?;
        Some(Entry { epoch, time: i64::try_from(time).ok()?, message })
    }

    fn message(
        &mut self,
        namespace: &str,
        topic: &str,
        event: Option<&[u8]>,
        data: &[u8],
        (offset, mark): (u64, u64),
    ) -> Option<Followed> {
        let namespace = match self.namespaces.get(namespace) {
            Some(known) => known.clone(),
            None => {
                // Others may put any there.
                if self.namespaces.len() >= NAMESPACES {
                    self.namespaces.clear();
                }
                let name: Arc<str> = namespace.into();
                self.namespaces.insert(namespace.to_owned(), name.clone());
                name
            }
        };
        let message = Message::new(data);
        let message = match event {
            Some(event) => message.with_event(std::str::from_utf8(event).ok()?).ok()?,
            None => message,
        };
        // Its time is said by who knows both clocks.
        Some(Followed { offset, topic: Topic::new(namespace, topic).ok()?, message, time: 0, mark })
    }
}

/// `EPOCH:OFFSET`
fn lineage_of(text: &str) -> Option<Position> {
    let (epoch, offset) = text.split_once(':')?;
    Some(Position { epoch: epoch.parse().ok()?, offset: offset.parse().ok()? })
}

/// The offset in an entry's id.
fn id_of(entry: &Value) -> Option<u64> {
    let Value::Array(parts) = entry else { return None };
    let Some(Value::BulkString(id)) = parts.first() else { return None };
    std::str::from_utf8(id).ok()?.split('-').next()?.parse().ok()
}

fn array(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(values) => Some(values),
        Value::Map(pairs) => Some(pairs.into_iter().flat_map(|(key, value)| [key, value]).collect()),
        Value::Nil => Some(Vec::new()),
        _ => None,
    }
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        Value::VerbatimString { text, .. } => Some(text),
        Value::Int(number) => Some(number.to_string()),
        Value::Okay => Some("OK".into()),
        _ => None,
    }
}

fn texts(value: Value) -> Option<Vec<String>> {
    array(value)?.into_iter().map(text).collect()
}
