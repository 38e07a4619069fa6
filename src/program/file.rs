//! The configuration file: TOML in, [`Config`] out, and every mistake with its place.

use super::document::{self, KeyValue, Value, entries, unsigned};
use super::file_text::FileText;
use super::settings::{SETTINGS, SITE_KEYS, Setting};
use super::site::{AUTH_ERRORS, SiteTable, auth};
use super::value::{self, Given, ValueError};
use crate::Error;
use crate::config::host::{HostConfig, HostName};
use crate::config::push::{NamespaceConfig, Publish, Subscribe};
use crate::config::site::{Auth, MISDIRECTED, host_key};
use crate::config::{Config, MAX_CONFIGURATION};
use crate::lifecycle::{configuration, way_back};
use crate::sys::{regular_file, working_directory};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use toml::de::DeValue;

pub(super) const HOST_KEYS: [&str; 10] =
    ["name", "root", "precompressed", "listing", "fallback", "headers", "mime", "cache", "error_pages", "route"];
pub(super) const PUSH_KEYS: [&str; 10] = [
    "prefix",
    "publish",
    "subscribe",
    "token_key_file",
    "origins",
    "history",
    "history_age",
    "retain",
    "heartbeat",
    "auth",
];

impl Config {
    /// Reads a configuration file, as `--config` does; `examples/handover.toml` shows all there is.
    ///
    /// Relative paths in it start from the directory that it is in. It must be a regular file of at most 1 MiB, as a
    /// reload reads it again.
    ///
    /// ```no_run
    /// use handover::{Config, Server, Site};
    ///
    /// let config = Config::from_file("/etc/handover.toml")?;
    /// let server = Server::builder().service(Site::open(&config)?).config(config).build()?;
    /// # Ok::<(), handover::Error>(())
    /// ```
    ///
    /// # Errors
    /// A configuration error of one line, which names the file, and for a mistake in it line, column and key, and what
    /// is allowed there.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Config, Error> {
        way_back::arm();
        load(path.as_ref(), None)
    }
}

/// Reads a file. `application` is the name of an application that decides itself what it serves.
pub fn load(path: &Path, application: Option<&str>) -> Result<Config, Error> {
    let failed =
        |path: &Path, what: &str| Error::config(format_args!("cannot read configuration file {path:?}: {what}"));
    // So that the messages and a later reload mean the same file.
    let path = working_directory::absolute(path).map_err(|error| failed(path, &error.to_string()))?;
    let not_regular = "it is not a regular file, which a reload could read again";
    // What was checked, or what was come back to, whatever stands there now.
    let bytes = match configuration::contents(&path) {
        Some(bytes) => Ok(bytes),
        None => regular_file::read(&path, MAX_CONFIGURATION, not_regular, "it has more than 1 MiB"),
    };
    let bytes = bytes.map_err(|what| failed(&path, &what))?;
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count() + 1;
        failed(&path, &format!("line {line} is not UTF-8"))
    })?;
    read(text, path, application)
}

/// Reads the text of the file of that absolute path.
pub fn read(text: &str, path: PathBuf, application: Option<&str>) -> Result<Config, Error> {
    let reader = Reader {
        source: FileText::new(text, path),
        application,
        config: Config::default(),
        top: SiteTable::default(),
        names: HashMap::new(),
        host_errors: Vec::new(),
    };
    reader.read(text)
}

struct Reader<'t> {
    source: FileText<'t>,
    application: Option<&'t str>,
    config: Config,
    /// The site that the top of the file says.
    top: SiteTable,
    /// The names of all hosts, and the lines that they stand in.
    names: HashMap<HostName, usize>,
    /// The errors that routes of hosts answer with.
    host_errors: Vec<u16>,
}

impl Reader<'_> {
    fn read(mut self, text: &str) -> Result<Config, Error> {
        let table = document::parse(text).map_err(|fault| self.source.error(fault.at, &fault.what))?;
        let (pages, others): (Vec<_>, Vec<_>) =
            entries(&table).into_iter().partition(|entry| entry.key == "error_pages");
        for entry in &others {
            self.entry(entry)?;
        }
        for entry in &pages {
            self.is_for_the_program(entry)?;
            let errors = self.errors();
            self.top.error_pages(&mut self.source, entry.value, &errors)?;
        }
        let Reader { source, mut config, top, .. } = self;
        config.file = Some(source.into_file());
        (config.root, config.site) = (top.root, top.site);
        if config.line("max_target").is_none() {
            let limits = &mut config.limits;
            limits.target_size = limits.target_size.min(limits.head_size);
        }
        routes_that_push_hides(&config)?;
        config.validate()?;
        Ok(config)
    }

    fn entry(&mut self, entry: &KeyValue) -> Result<(), Error> {
        self.is_for_the_program(entry)?;
        if self.top.entry(&mut self.source, entry)? {
            return Ok(());
        }
        let key = entry.key;
        let setting = SETTINGS.iter().find(|setting| setting.key().is_some_and(|other| other == key));
        match (key, setting) {
            (_, Some(setting)) if setting.is_array() => self.array(setting, key, entry.value)?,
            (_, Some(setting)) => self.apply(setting, key, entry.value)?,
            ("push", _) => {
                for table in self.source.array_of_tables(entry, "")? {
                    self.push(table)?;
                }
            }
            ("host", _) if entry.value.get_ref().is_str() => {
                let what = "allowed is [[host]], once or more; where to listen is said by listen";
                return Err(self.source.refuse(key, entry.value, what));
            }
            ("host", _) => {
                for table in self.source.array_of_tables(entry, "")? {
                    self.host(table)?;
                }
            }
            _ => {
                let settings = SETTINGS.iter().filter(|setting| !setting.is_of_site()).filter_map(Setting::key);
                let settings: Vec<String> = settings.collect();
                let mut known: Vec<&str> = settings.iter().map(String::as_str).collect();
                if self.application.is_none() {
                    known.extend(SITE_KEYS);
                }
                return Err(self.source.unknown(entry, &known));
            }
        }
        self.source.note(key, entry.value);
        Ok(())
    }

    fn is_for_the_program(&self, entry: &KeyValue) -> Result<(), Error> {
        match self.application.filter(|_| SITE_KEYS.contains(&entry.key)) {
            Some(application) => {
                let what = format!("is not for {application}, which decides itself what it serves");
                Err(self.source.wrong_key(entry, &what))
            }
            None => Ok(()),
        }
    }

    /// The errors that something of this file makes the program answer with.
    fn errors(&self) -> Vec<u16> {
        let mut errors = self.top.errors();
        let asks = self.config.push.namespaces.iter().any(|push| matches!(push.auth, Some(Auth::Users { .. })));
        errors.extend(AUTH_ERRORS.iter().filter(|_| asks));
        // The pages of the top are those of all hosts.
        errors.extend(&self.host_errors);
        errors.extend((!self.config.hosts.is_empty()).then_some(MISDIRECTED));
        errors.sort_unstable();
        errors.dedup();
        errors
    }

    fn array(&mut self, setting: &Setting, key: &str, value: &Value) -> Result<(), Error> {
        let allowed = "allowed is an array of addresses: [\"127.0.0.1:8888\", \"unix:/run/handover.sock\"]";
        let DeValue::Array(values) = value.get_ref() else {
            return Err(self.source.refuse(key, value, allowed));
        };
        if values.is_empty() {
            return Err(self.source.refuse(key, value, allowed));
        }
        for value in values.iter() {
            self.apply(setting, key, value)?;
            if let Some((last, others)) = self.config.listen.split_last()
                && others.contains(last)
            {
                return Err(self.source.refuse(key, value, "which stands twice"));
            }
        }
        Ok(())
    }

    fn apply(&mut self, setting: &Setting, key: &str, value: &Value) -> Result<(), Error> {
        let given = match value.get_ref() {
            DeValue::String(text) => Given::String(text),
            DeValue::Integer(number) => unsigned(number).map_or(Given::Other, Given::Integer),
            DeValue::Float(number) => Given::Float(number.as_str()),
            DeValue::Boolean(value) => Given::Boolean(*value),
            _ => Given::Other,
        };
        let given = value::Value { given, base: Some(&self.source.base) };
        setting.apply(&mut self.config, &given).map_err(|wrong| match wrong {
            ValueError::Value(what) => self.source.refuse(key, value, &what),
            ValueError::Whole(what) => self.source.error(value.span().start, &format!("{key}: {what}")),
        })
    }

    fn host(&mut self, value: &Value) -> Result<(), Error> {
        let number = self.config.hosts.len();
        let table = self.source.table("host", value)?;
        let mut site = SiteTable::of_host(number);
        let mut names = Vec::new();
        for entry in &table {
            match entry.key {
                "name" => {
                    names = self.names(entry.value)?;
                    self.source.note(&host_key(Some(number), "name"), entry.value);
                }
                "error_pages" => {}
                key if HOST_KEYS.contains(&key) => _ = site.entry(&mut self.source, entry)?,
                _ => return Err(self.wrong_in_host(entry)),
            }
        }
        let at = value.span().start;
        if names.is_empty() {
            return Err(self.source.error(at, "a host needs a name: name = [\"example.org\", \"*.example.org\"]"));
        }
        if site.root.is_none() && site.site.routes.is_empty() {
            return Err(self.source.error(at, "a host needs a root or a [[host.route]]: root = \"public\""));
        }
        let errors = site.errors();
        if let Some(entry) = table.iter().find(|entry| entry.key == "error_pages") {
            site.error_pages(&mut self.source, entry.value, &errors)?;
        }
        self.host_errors.extend(errors);
        self.config.hosts.push(HostConfig { names, root: site.root, site: site.site });
        Ok(())
    }

    fn names(&mut self, value: &Value) -> Result<Vec<HostName>, Error> {
        let values = match value.get_ref() {
            DeValue::Array(values) if values.is_empty() => {
                let allowed = "allowed is a name, or an array of names: [\"example.org\", \"*.example.org\"]";
                return Err(self.source.refuse("name", value, allowed));
            }
            DeValue::Array(values) => &values[..],
            _ => std::slice::from_ref(value),
        };
        let mut names = Vec::new();
        for value in values {
            let name = HostName::parse(self.source.text("name", value)?)
                .map_err(|what| self.source.refuse("name", value, what))?;
            if let Some(line) = self.names.insert(name.clone(), self.source.line_of(value)) {
                return Err(self.source.refuse("name", value, &format!("which line {line} has already")));
            }
            names.push(name);
        }
        Ok(names)
    }

    /// What follows a `[[host]]` belongs to it, also where it was meant for the server.
    fn wrong_in_host(&self, entry: &KeyValue) -> Error {
        let key = entry.key;
        if matches!(key, "push" | "host") {
            return self.source.wrong_key(entry, &format!("is for the whole server: [[{key}]]"));
        }
        match SETTINGS.iter().any(|setting| setting.key().is_some_and(|other| other == key)) {
            true => self.source.wrong_key(entry, "is for the whole server, and stands above all [[host]]"),
            false => self.source.unknown(entry, &HOST_KEYS),
        }
    }

    fn push(&mut self, value: &Value) -> Result<(), Error> {
        let number = self.config.push.namespaces.len();
        let table = self.source.table("push", value)?;
        let mut namespace = NamespaceConfig {
            prefix: String::new(),
            publish: Publish::Nobody,
            subscribe: Subscribe::Anyone,
            token_key_file: None,
            origins: Vec::new(),
            history: 100,
            history_age: 600,
            retain: false,
            heartbeat: 15,
            auth: None,
        };
        for KeyValue { key, value, .. } in &table {
            match *key {
                "prefix" => namespace.prefix = self.push_prefix(value)?,
                "publish" => {
                    let text = self.source.text("publish", value)?;
                    let known = Publish::ALL.iter().find(|(name, _)| *name == text);
                    let allowed = "allowed is \"nobody\", \"local\", \"token\" or \"anyone\"";
                    namespace.publish = known.ok_or_else(|| self.source.refuse("publish", value, allowed))?.1;
                }
                "subscribe" => {
                    namespace.subscribe = match self.source.text("subscribe", value)? {
                        "anyone" => Subscribe::Anyone,
                        "token" => Subscribe::Token,
                        _ => return Err(self.source.refuse("subscribe", value, "allowed is \"anyone\" or \"token\"")),
                    }
                }
                "token_key_file" => namespace.token_key_file = Some(self.source.path("token_key_file", value)?),
                "origins" => namespace.origins = self.origins(value)?,
                "history" => namespace.history = self.source.whole("history", value, 0, 1_000_000)? as usize,
                "history_age" => namespace.history_age = self.source.whole("history_age", value, 0, 31_536_000)?,
                "heartbeat" => namespace.heartbeat = self.source.whole("heartbeat", value, 0, 3600)? as u16,
                "auth" => namespace.auth = Some(auth(&self.source, value)?),
                "retain" => match *value.get_ref() {
                    DeValue::Boolean(retain) => namespace.retain = retain,
                    _ => return Err(self.source.refuse("retain", value, "allowed is true or false")),
                },
                _ => {
                    let entry = table.iter().find(|entry| entry.key == *key).expect("it is one of them");
                    return Err(self.source.unknown(entry, &PUSH_KEYS));
                }
            }
            self.source.note(&format!("push[{number}].{key}"), value);
        }
        if namespace.prefix.is_empty() {
            return Err(self.source.error(value.span().start, "push needs a prefix: prefix = \"/events\""));
        }
        let asks = |key: &&KeyValue| matches!(key.key, "publish" | "subscribe") && is_token(key.value);
        let keys = table.iter().find(|entry| entry.key == "token_key_file");
        match (table.iter().find(asks), keys) {
            (Some(entry), None) => {
                let what = "is \"token\", which needs keys: token_key_file = \"push.key\"";
                return Err(self.source.wrong_key(entry, what));
            }
            (None, Some(entry)) => {
                return Err(self.source.wrong_key(entry, "goes with publish = \"token\" or subscribe = \"token\""));
            }
            _ => {}
        }
        self.config.push.namespaces.push(namespace);
        Ok(())
    }

    /// A path that needs no escapes, so that it is written in one way, and names no other's topics.
    fn push_prefix(&self, value: &Value) -> Result<String, Error> {
        let text = self.source.text("prefix", value)?;
        let segment = |segment: &str| {
            let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            !segment.is_empty() && !matches!(segment, "." | "..") && segment.bytes().all(unreserved)
        };
        let path = text.strip_suffix('/').unwrap_or(text);
        if !path.strip_prefix('/').is_some_and(|path| path.split('/').all(segment)) {
            let allowed = "allowed is a path of letters, digits and -._~, as /events";
            return Err(self.source.refuse("prefix", value, allowed));
        }
        let others = self.config.push.namespaces.iter();
        if let Some(first) = others.map(|other| &other.prefix).position(|other| other == path) {
            let line = self.source.line(&format!("push[{first}].prefix"));
            return Err(self.source.refuse("prefix", value, &format!("which line {line} has already")));
        }
        Ok(path.to_owned())
    }

    fn origins(&self, value: &Value) -> Result<Vec<String>, Error> {
        let allowed = "allowed is an array of origins as browsers send them: [\"https://example.org\"], or [\"*\"]";
        let DeValue::Array(values) = value.get_ref() else { return Err(self.source.refuse("origins", value, allowed)) };
        let is_origin = |text: &str| {
            let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
            let plain = |byte: u8| byte.is_ascii_graphic() && !byte.is_ascii_uppercase() && !b"/?#@,".contains(&byte);
            matches!(text, "*" | "null") || host.is_some_and(|host| !host.is_empty() && host.bytes().all(plain))
        };
        values
            .iter()
            .map(|value| match value.get_ref() {
                DeValue::String(text) if is_origin(text) => Ok(text.clone().into_owned()),
                _ => Err(self.source.refuse("origins", value, allowed)),
            })
            .collect()
    }
}

/// Push goes before all routes: what lies below one of its prefixes is a topic.
fn routes_that_push_hides(config: &Config) -> Result<(), Error> {
    let routes = config.sites().flat_map(|site| site.site.routes.iter().enumerate().map(move |it| (site, it)));
    for (site, (number, route)) in routes {
        let path = route.prefix.to_string();
        let below = |prefix: &str| {
            path.strip_prefix(prefix).is_some_and(|rest| matches!(rest.bytes().next(), None | Some(b'/')))
        };
        if let Some(push) = config.push.namespaces.iter().find(|push| below(&push.prefix)) {
            return Err(config.error(
                &site.key(&format!("route[{number}].prefix")),
                format_args!("route {path} never answers: push has {} and what lies below it", push.prefix),
            ));
        }
    }
    Ok(())
}

fn is_token(value: &Value) -> bool {
    matches!(value.get_ref(), DeValue::String(text) if text == "token")
}

#[cfg(test)]
mod tests {
    use super::super::site::{CACHE_KEYS, ROUTE_KEYS};
    use super::*;
    use crate::ReloadMode;
    use std::fs;
    use std::num::NonZeroU32;
    use std::time::Duration;

    struct TempFile(PathBuf);

    impl TempFile {
        fn new(name: &str, text: &str) -> TempFile {
            let path = std::env::temp_dir().join(format!("handover-config-{}-{name}.toml", std::process::id()));
            fs::write(&path, text).expect("a file");
            TempFile(path)
        }
    }

    impl Drop for TempFile {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    #[test]
    fn every_key_reaches_its_setting() {
        let file = TempFile::new(
            "keys",
            "listen = ['127.0.0.1:0', 'unix:/run/a', 'unix:b']\nroot = 'r'\nworkers = 8\nworker_stack = '1M'\n\
             status_routes = false\nlog_file = 'l'\npid_file = '/p'\nstop_deadline = 2.5\nlame_duck = 1\n\
             reload = 'overlap'\nreload_probation = 0.25\nreload_deadline = 9\nexec_stall = 0.5\n\
             max_connections = 2_000\nmax_body = '10M'\nmax_head = '8K'\nmax_target = 1000\nmax_headers = 50\n\
             buffered_body = 0\nhead_timeout = 1\nbody_timeout = 2\nbody_rate = '1K'\nidle_timeout = 3\n\
             write_timeout = 4\nwrite_rate = 9\nmax_connections_per_ip = 7\nmax_requests_per_connection = 0\nqueue_timeout = 5.5\nstream_wait = 6\nlinger = 0\n",
        );
        let config = load(&file.0, None).expect("a configuration");
        let base = file.0.parent().expect("a directory");
        let listen: Vec<String> = config.listen.iter().map(ToString::to_string).collect();
        assert_eq!(listen, ["127.0.0.1:0".to_owned(), "unix:/run/a".to_owned(), format!("unix:{}/b", base.display())]);
        assert_eq!((config.root, config.log_file), (Some(base.join("r")), Some(base.join("l"))));
        assert_eq!((config.workers, config.worker_stack, config.status_routes), (8, 1 << 20, false));
        assert_eq!((config.pid_file, config.reload), (Some("/p".into()), ReloadMode::Overlap));
        let limits = config.limits;
        assert_eq!((limits.connections, limits.body_size, limits.head_size), (2000, 10 << 20, 8192));
        assert_eq!((limits.target_size, limits.header_count, limits.buffered_body), (1000, 50, 0));
        assert_eq!((limits.body_rate, limits.write_rate), (1024, 9));
        assert_eq!((limits.connections_per_ip.map(NonZeroU32::get), limits.requests), (Some(7), None));
        let durations = [
            (config.stop_deadline, 2.5),
            (config.lame_duck, 1.0),
            (config.reload_probation, 0.25),
            (config.reload_deadline, 9.0),
            (config.exec_stall, 0.5),
            (limits.head_timeout, 1.0),
            (limits.body_timeout, 2.0),
            (limits.idle_timeout, 3.0),
            (limits.write_timeout, 4.0),
            (limits.queue_timeout, 5.5),
            (limits.stream_wait, 6.0),
            (limits.linger, 0.0),
        ];
        for (at, (duration, seconds)) in durations.into_iter().enumerate() {
            assert_eq!(duration, Duration::from_secs_f64(seconds), "{at}");
        }
    }

    #[test]
    fn the_example_names_every_key() {
        let example = include_str!("../../examples/handover.toml");
        let named = |key: &str| {
            let sets = |line: &str| line.trim_start_matches('#').split(" =").next() == Some(key);
            example.lines().any(sets)
        };
        for setting in SETTINGS {
            assert!(setting.key().is_none_or(|key| named(&key)), "{}", setting.name);
        }
        // What a host has besides its names stands at the top as well.
        let of_hosts = HOST_KEYS.into_iter().filter(|key| !SITE_KEYS.contains(key));
        for key in ROUTE_KEYS.into_iter().chain(CACHE_KEYS).chain(of_hosts).chain(PUSH_KEYS) {
            assert!(named(key), "{key}");
        }
    }

    #[test]
    fn an_application_decides_itself_what_it_serves() {
        let file = TempFile::new("application", "workers = 3\nroot = '/'");
        let error = load(&file.0, Some("lab")).expect_err("no root for an application");
        assert!(
            error.to_string().ends_with(":2:1: root is not for lab, which decides itself what it serves"),
            "{error}"
        );
        let file = TempFile::new("hint", "headers_ = 3");
        let error = load(&file.0, Some("lab")).expect_err("an unknown key");
        assert!(!error.to_string().contains("error_pages"), "{error}");
        let file = TempFile::new("settings", "workers = 3");
        assert_eq!(load(&file.0, Some("lab")).expect("a configuration").workers, 3);
    }

    #[test]
    fn a_smaller_head_takes_the_target_along() {
        let file = TempFile::new("head", "max_head = '4K'");
        assert_eq!(load(&file.0, None).expect("a configuration").limits.target_size, 4096);
    }

    #[test]
    fn a_socket_path_that_gets_too_long_is_refused() {
        let file = TempFile::new("socket", &format!("listen = ['unix:{}']", "x".repeat(106)));
        let error = load(&file.0, None).expect_err("too long");
        assert!(error.to_string().contains("at most 107 bytes"), "{error}");
    }
}
