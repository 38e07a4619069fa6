//! The configuration file: TOML in, [`Config`] out, and every mistake with its place.

use super::cache_control::is_cache_control;
use super::document::{self, KeyValue, Value, entries, tables, unsigned};
use super::settings::{SETTINGS, SITE_KEYS, Setting, meant};
use super::value::{self, Given, ValueError};
use crate::Error;
use crate::config::push::{NamespaceConfig, Publish, Subscribe};
use crate::config::site::{
    Auth, CacheRule, DirectoryOptions, Pattern, Prefix, RedirectTarget, RouteAction, RouteConfig,
};
use crate::config::{Config, ConfigFile, MAX_CONFIGURATION, on_one_line};
use crate::lifecycle::{configuration, way_back};
use crate::sys::{regular_file, working_directory};
use http1::accept::Coding;
use http1::number::decimal;
use http1::{is_same_name, is_token_byte};
use std::ops::Range;
use std::path::{Path, PathBuf};
use tiny_http::Header;
use toml::de::DeValue;

const ROUTE_KEYS: [&str; 11] = [
    "prefix",
    "directory",
    "precompressed",
    "listing",
    "fallback",
    "redirect",
    "status",
    "body",
    "content_type",
    "headers",
    "auth",
];
const PUSH_KEYS: [&str; 10] = [
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
const AUTH_KEYS: [&str; 2] = ["realm", "file"];
const CACHE_KEYS: [&str; 2] = ["match", "control"];
const REDIRECT_STATUSES: [u16; 5] = [301, 302, 303, 307, 308];
/// 302 rather than 301, which a browser remembers for good: one that was a mistake can be taken back.
const REDIRECT_STATUS: u16 = 302;
const FIXED_TYPE: &str = "text/plain; charset=utf-8";

/// The errors that the site answers with by itself; a fixed answer may add others.
const SITE_ERRORS: [u16; 8] = [400, 403, 404, 405, 412, 416, 500, 503];
/// And these where somebody has to show who they are.
const AUTH_ERRORS: [u16; 2] = [401, 429];

/// Fields that say what the server alone knows, or that another key sets.
const OWN_FIELDS: [&str; 16] = [
    "accept-ranges",
    "allow",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "date",
    "etag",
    "keep-alive",
    "last-modified",
    "location",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
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
    let base = path.parent().unwrap_or(Path::new("/")).to_owned();
    let file = ConfigFile::new(path, text.as_bytes());
    Reader { text, base, application, config: Config { file: Some(file), ..Config::default() } }.read()
}

struct Reader<'t> {
    text: &'t str,
    /// Where relative paths start.
    base: PathBuf,
    application: Option<&'t str>,
    config: Config,
}

impl Reader<'_> {
    fn read(mut self) -> Result<Config, Error> {
        let table = document::parse(self.text).map_err(|fault| self.error(fault.at, &fault.what))?;
        let entries = entries(&table);
        // Error pages are looked at last: the routes say which statuses there are.
        for are_pages in [false, true] {
            for entry in entries.iter().filter(|entry| (entry.key == "error_pages") == are_pages) {
                self.entry(entry)?;
            }
        }
        if self.config.line("max_target").is_none() {
            let limits = &mut self.config.limits;
            limits.target_size = limits.target_size.min(limits.head_size);
        }
        self.routes_that_push_hides()?;
        self.config.validate()?;
        Ok(self.config)
    }

    fn entry(&mut self, entry: &KeyValue) -> Result<(), Error> {
        let key = entry.key;
        if let (true, Some(application)) = (SITE_KEYS.contains(&key), self.application) {
            return Err(
                self.wrong_key(entry, &format!("is not for {application}, which decides itself what it serves"))
            );
        }
        let setting = SETTINGS.iter().find(|setting| setting.key().is_some_and(|other| other == key));
        match (key, setting) {
            (_, Some(setting)) if setting.is_array() => self.array(setting, key, entry.value)?,
            (_, Some(setting)) => self.apply(setting, key, entry.value)?,
            ("root", _) => self.config.root = Some(self.path("root", entry.value)?),
            ("route" | "cache" | "push", _) => {
                let Some(tables) = tables(self.text, entry.value) else {
                    return Err(self.refuse(key, entry.value, &format!("allowed is [[{key}]], once or more")));
                };
                for table in tables {
                    match key {
                        "route" => self.route(table)?,
                        "push" => self.push(table)?,
                        _ => self.cache_rule(table)?,
                    }
                }
            }
            (key, _) if DirectoryOptions::KEYS.contains(&key) => {
                let mut options = std::mem::take(&mut self.config.site.root);
                self.directory_option(&mut options, entry)?;
                self.config.site.root = options;
            }
            ("headers", _) => self.config.site.headers = self.headers("headers", entry.value)?,
            ("mime", _) => self.mime(entry.value)?,
            ("error_pages", _) => self.error_pages(entry.value)?,
            _ => {
                let settings = SETTINGS.iter().filter(|setting| !setting.is_of_site()).filter_map(Setting::key);
                let settings: Vec<String> = settings.collect();
                let mut known: Vec<&str> = settings.iter().map(String::as_str).collect();
                if self.application.is_none() {
                    known.extend(SITE_KEYS);
                }
                return Err(self.unknown(entry, &known));
            }
        }
        self.note(key, entry.value);
        Ok(())
    }

    fn array(&mut self, setting: &Setting, key: &str, value: &Value) -> Result<(), Error> {
        let allowed = "allowed is an array of addresses: [\"127.0.0.1:8888\", \"unix:/run/handover.sock\"]";
        let DeValue::Array(values) = value.get_ref() else {
            return Err(self.refuse(key, value, allowed));
        };
        if values.is_empty() {
            return Err(self.refuse(key, value, allowed));
        }
        for value in values.iter() {
            self.apply(setting, key, value)?;
            if let Some((last, others)) = self.config.listen.split_last()
                && others.contains(last)
            {
                return Err(self.refuse(key, value, "which stands twice"));
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
        let given = value::Value { given, base: Some(&self.base) };
        setting.apply(&mut self.config, &given).map_err(|wrong| match wrong {
            ValueError::Value(what) => self.refuse(key, value, &what),
            ValueError::Whole(what) => self.error(value.span().start, &format!("{key}: {what}")),
        })
    }

    fn route(&mut self, value: &Value) -> Result<(), Error> {
        let number = self.config.site.routes.len();
        let table = self.table("route", value)?;
        for entry in &table {
            if !ROUTE_KEYS.contains(&entry.key) {
                return Err(self.unknown(entry, &ROUTE_KEYS));
            }
            self.note(&format!("route[{number}].{}", entry.key), entry.value);
        }
        let find = |key: &str| table.iter().find(|entry| entry.key == key);
        let Some(prefix_entry) = find("prefix") else {
            return Err(self.error(value.span().start, "a route needs a prefix: prefix = \"/path\""));
        };
        let prefix = self.text("prefix", prefix_entry.value)?;
        let prefix = Prefix::parse(prefix).map_err(|what| self.refuse("prefix", prefix_entry.value, what))?;
        if let Some(first) = self.config.site.routes.iter().position(|route| route.prefix == prefix) {
            let line = self.config.line(&format!("route[{first}].prefix")).unwrap_or_default();
            return Err(self.refuse("prefix", prefix_entry.value, &format!("which line {line} has already")));
        }
        let action = self.action(value, &table)?;
        let headers = match find("headers") {
            Some(entry) => self.headers("headers", entry.value)?,
            None => Vec::new(),
        };
        let auth = find("auth").map(|entry| self.auth(entry.value)).transpose()?;
        self.config.site.routes.push(RouteConfig { prefix, action, headers, auth });
        Ok(())
    }

    fn auth(&self, value: &Value) -> Result<Auth, Error> {
        let allowed = "allowed is { realm = \"…\", file = \"…\" }, or false";
        match value.get_ref() {
            DeValue::Boolean(false) => return Ok(Auth::Anyone),
            DeValue::Table(_) => {}
            _ => return Err(self.refuse("auth", value, allowed)),
        }
        let table = self.table("auth", value)?;
        if let Some(entry) = table.iter().find(|entry| !AUTH_KEYS.contains(&entry.key)) {
            return Err(self.unknown(entry, &AUTH_KEYS));
        }
        let find = |key: &str| table.iter().find(|entry| entry.key == key).map(|entry| entry.value);
        let (Some(realm), Some(file)) = (find("realm"), find("file")) else {
            let help = "auth needs realm and file: auth = { realm = \"the house\", file = \"users\" }";
            return Err(self.error(value.span().start, help));
        };
        let text = self.text("realm", realm)?;
        // It stands in quotes in a field.
        let plain = |byte: u8| (b' '..0x7f).contains(&byte) && !b"\"\\".contains(&byte);
        if text.is_empty() || !text.bytes().all(plain) {
            return Err(self.refuse("realm", realm, "allowed is printable ASCII without quotes and backslashes"));
        }
        Ok(Auth::Users { realm: text.to_owned(), file: self.path("file", file)? })
    }

    fn action(&self, route: &Value, table: &[KeyValue]) -> Result<RouteAction, Error> {
        let find = |key: &str| table.iter().find(|entry| entry.key == key);
        let (directory, redirect) = (find("directory"), find("redirect"));
        let (status, body, content_type) = (find("status"), find("body"), find("content_type"));
        let is_option = |entry: &&KeyValue| DirectoryOptions::KEYS.contains(&entry.key);
        let mut options_said = table.iter().filter(is_option);
        // Each of these would be without effect, and so was meant in another way.
        let beside = |with: &str, others: &[Option<&KeyValue>]| match others.iter().flatten().next() {
            Some(entry) => Err(self.wrong_key(entry, &format!("does not go with {with}"))),
            None => Ok(()),
        };
        if let Some(directory) = directory {
            beside("directory", &[redirect, status, body, content_type])?;
            let mut options = DirectoryOptions::default();
            for entry in options_said {
                self.directory_option(&mut options, entry)?;
            }
            return Ok(RouteAction::Directory { path: self.path("directory", directory.value)?, options });
        }
        if let Some(entry) = options_said.next() {
            return Err(self.wrong_key(entry, "goes with a directory only"));
        }
        if let Some(redirect) = redirect {
            beside("redirect", &[body, content_type])?;
            let target = self.text("redirect", redirect.value)?;
            let target = RedirectTarget::parse(target).map_err(|what| self.refuse("redirect", redirect.value, what))?;
            let status = match status {
                None => REDIRECT_STATUS,
                Some(entry) => self
                    .status(entry.value)
                    .filter(|status| REDIRECT_STATUSES.contains(status))
                    .ok_or_else(|| self.refuse("status", entry.value, "allowed is 301, 302, 303, 307 or 308"))?,
            };
            return Ok(RouteAction::Redirect { status, target });
        }
        if status.is_none() && body.is_none() {
            return Err(self.error(route.span().start, "a route needs one of directory, redirect, status and body"));
        }
        let code = match status {
            None => 200,
            // 206 and 304 answer what only a request with such fields may get.
            Some(entry) => {
                self.status(entry.value).filter(|status| matches!(status, 200..=205 | 400..=599)).ok_or_else(|| {
                    let allowed = "allowed is 200 to 205 or 400 to 599; 3xx goes with redirect";
                    self.refuse("status", entry.value, allowed)
                })?
            }
        };
        if let (204 | 205, Some(entry)) = (code, body) {
            return Err(self.wrong_key(entry, &format!("does not go with status {code}, which has none")));
        }
        if let (None, Some(entry)) = (body, content_type) {
            return Err(self.wrong_key(entry, "goes with a body only"));
        }
        let body = match body {
            None => None,
            Some(entry) => {
                let content_type = match content_type {
                    None => FIXED_TYPE.to_owned(),
                    Some(entry) => self.media_type("content_type", entry.value)?,
                };
                Some((content_type, self.text("body", entry.value)?.to_owned()))
            }
        };
        Ok(RouteAction::Fixed { status: code, body })
    }

    fn directory_option(&self, options: &mut DirectoryOptions, entry: &KeyValue) -> Result<(), Error> {
        match entry.key {
            "listing" => {
                let DeValue::Boolean(listing) = *entry.value.get_ref() else {
                    return Err(self.refuse("listing", entry.value, "allowed is true or false"));
                };
                options.listing = listing;
            }
            "fallback" => options.fallback = Some(self.text("fallback", entry.value)?.to_owned()),
            _ => options.precompressed = self.codings(entry.value)?,
        }
        Ok(())
    }

    /// `true` for all, in their order, or an array of names in an order of its own.
    fn codings(&self, value: &Value) -> Result<Vec<Coding>, Error> {
        let allowed = "allowed is true, false or an array of \"br\", \"zstd\" and \"gzip\"";
        let values = match value.get_ref() {
            DeValue::Boolean(true) => return Ok(Coding::ALL.to_vec()),
            DeValue::Boolean(false) => return Ok(Vec::new()),
            DeValue::Array(values) => values,
            _ => return Err(self.refuse("precompressed", value, allowed)),
        };
        let mut codings = Vec::new();
        for value in values {
            let known = |coding: &Coding| matches!(value.get_ref(), DeValue::String(name) if name == coding.name());
            let coding = Coding::ALL.into_iter().find(known);
            match coding {
                Some(coding) if codings.contains(&coding) => {
                    return Err(self.refuse("precompressed", value, "which stands twice"));
                }
                Some(coding) => codings.push(coding),
                None => return Err(self.refuse("precompressed", value, allowed)),
            }
        }
        Ok(codings)
    }

    fn headers(&self, key: &str, value: &Value) -> Result<Vec<Header>, Error> {
        let mut headers: Vec<Header> = Vec::new();
        for entry in &self.table(key, value)? {
            let name = entry.key;
            if name.is_empty() || !name.bytes().all(is_token_byte) {
                return Err(self.wrong_key(entry, "is no name of a header field"));
            }
            if OWN_FIELDS.iter().any(|own| is_same_name(own.as_bytes(), name.as_bytes())) {
                let help = match is_same_name(name.as_bytes(), b"content-type") {
                    true => "is for [mime], or content_type of a route, to say",
                    false => "is for the server to say",
                };
                return Err(self.wrong_key(entry, help));
            }
            if headers.iter().any(|header| is_same_name(header.field.as_str().as_bytes(), name.as_bytes())) {
                return Err(self.wrong_key(entry, "stands twice: names of fields ignore case"));
            }
            let text = self.text(name, entry.value)?;
            let printable = text.bytes().all(|byte| byte == b'\t' || (b' '..0x7f).contains(&byte));
            // `from_bytes` refuses what is not ASCII, and nothing of that is left.
            let header = printable.then(|| Header::from_bytes(name, text.trim()).ok()).flatten();
            headers.push(header.ok_or_else(|| self.refuse(name, entry.value, "allowed is printable ASCII"))?);
        }
        Ok(headers)
    }

    fn mime(&mut self, value: &Value) -> Result<(), Error> {
        for entry in &self.table("mime", value)? {
            if entry.key.is_empty() || entry.key.contains(['.', '/']) {
                return Err(self.wrong_key(entry, "is no extension: allowed is what follows the last dot of a name"));
            }
            let media_type = self.media_type(entry.key, entry.value)?;
            let mime = &mut self.config.site.mime;
            if mime.iter().any(|(extension, _)| is_same_name(extension.as_bytes(), entry.key.as_bytes())) {
                return Err(self.wrong_key(entry, "stands twice: extensions ignore case"));
            }
            mime.push((entry.key.to_ascii_lowercase(), media_type));
        }
        Ok(())
    }

    fn cache_rule(&mut self, value: &Value) -> Result<(), Error> {
        let table = self.table("cache", value)?;
        if let Some(entry) = table.iter().find(|entry| !CACHE_KEYS.contains(&entry.key)) {
            return Err(self.unknown(entry, &CACHE_KEYS));
        }
        let find = |key: &str| table.iter().find(|entry| entry.key == key).map(|entry| entry.value);
        let (Some(names), Some(control)) = (find("match"), find("control")) else {
            let help = "a cache rule needs match and control: match = \"*.js\", control = \"max-age=3600\"";
            return Err(self.error(value.span().start, help));
        };
        let names = match names.get_ref() {
            DeValue::Array(names) if !names.is_empty() => &names[..],
            _ => std::slice::from_ref(names),
        };
        let mut rule = CacheRule { patterns: Vec::new(), control: String::new() };
        for name in names {
            let pattern = Pattern::parse(self.text("match", name)?).map_err(|what| self.refuse("match", name, what))?;
            let earlier = self.config.site.cache.iter().flat_map(|rule| &rule.patterns);
            if earlier.chain(&rule.patterns).any(|other| *other == pattern) {
                return Err(self.refuse("match", name, "which stands twice: the first one counts"));
            }
            rule.patterns.push(pattern);
        }
        let text = self.text("control", control)?;
        if !is_cache_control(text) {
            let allowed = "allowed are directives of Cache-Control: \"public, max-age=31536000, immutable\"";
            return Err(self.refuse("control", control, allowed));
        }
        rule.control = text.trim().to_owned();
        self.config.site.cache.push(rule);
        Ok(())
    }

    fn push(&mut self, value: &Value) -> Result<(), Error> {
        let number = self.config.push.namespaces.len();
        let table = self.table("push", value)?;
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
                    let text = self.text("publish", value)?;
                    let known = Publish::ALL.iter().find(|(name, _)| *name == text);
                    let allowed = "allowed is \"nobody\", \"local\", \"token\" or \"anyone\"";
                    namespace.publish = known.ok_or_else(|| self.refuse("publish", value, allowed))?.1;
                }
                "subscribe" => {
                    namespace.subscribe = match self.text("subscribe", value)? {
                        "anyone" => Subscribe::Anyone,
                        "token" => Subscribe::Token,
                        _ => return Err(self.refuse("subscribe", value, "allowed is \"anyone\" or \"token\"")),
                    }
                }
                "token_key_file" => namespace.token_key_file = Some(self.path("token_key_file", value)?),
                "origins" => namespace.origins = self.origins(value)?,
                "history" => namespace.history = self.whole("history", value, 0, 1_000_000)? as usize,
                "history_age" => namespace.history_age = self.whole("history_age", value, 0, 31_536_000)?,
                "heartbeat" => namespace.heartbeat = self.whole("heartbeat", value, 0, 3600)? as u16,
                "auth" => namespace.auth = Some(self.auth(value)?),
                "retain" => match *value.get_ref() {
                    DeValue::Boolean(retain) => namespace.retain = retain,
                    _ => return Err(self.refuse("retain", value, "allowed is true or false")),
                },
                _ => {
                    let entry = table.iter().find(|entry| entry.key == *key).expect("it is one of them");
                    return Err(self.unknown(entry, &PUSH_KEYS));
                }
            }
            self.note(&format!("push[{number}].{key}"), value);
        }
        if namespace.prefix.is_empty() {
            return Err(self.error(value.span().start, "push needs a prefix: prefix = \"/events\""));
        }
        let asks = |key: &&KeyValue| matches!(key.key, "publish" | "subscribe") && is_token(key.value);
        let keys = table.iter().find(|entry| entry.key == "token_key_file");
        match (table.iter().find(asks), keys) {
            (Some(entry), None) => {
                let what = "is \"token\", which needs keys: token_key_file = \"push.key\"";
                return Err(self.wrong_key(entry, what));
            }
            (None, Some(entry)) => {
                return Err(self.wrong_key(entry, "goes with publish = \"token\" or subscribe = \"token\""));
            }
            _ => {}
        }
        self.config.push.namespaces.push(namespace);
        Ok(())
    }

    /// A path that needs no escapes, so that it is written in one way, and names no other's topics.
    fn push_prefix(&self, value: &Value) -> Result<String, Error> {
        let text = self.text("prefix", value)?;
        let segment = |segment: &str| {
            let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            !segment.is_empty() && !matches!(segment, "." | "..") && segment.bytes().all(unreserved)
        };
        let path = text.strip_suffix('/').unwrap_or(text);
        if !path.strip_prefix('/').is_some_and(|path| path.split('/').all(segment)) {
            let allowed = "allowed is a path of letters, digits and -._~, as /events";
            return Err(self.refuse("prefix", value, allowed));
        }
        let others = self.config.push.namespaces.iter();
        if let Some(first) = others.map(|other| &other.prefix).position(|other| other == path) {
            let line = self.config.line(&format!("push[{first}].prefix")).unwrap_or_default();
            return Err(self.refuse("prefix", value, &format!("which line {line} has already")));
        }
        Ok(path.to_owned())
    }

    /// Push goes before all routes: what lies below one of its prefixes is a topic.
    fn routes_that_push_hides(&self) -> Result<(), Error> {
        for (number, route) in self.config.site.routes.iter().enumerate() {
            let path = route.prefix.to_string();
            let below = |prefix: &str| {
                path.strip_prefix(prefix).is_some_and(|rest| matches!(rest.bytes().next(), None | Some(b'/')))
            };
            if let Some(push) = self.config.push.namespaces.iter().find(|push| below(&push.prefix)) {
                return Err(self.config.error(
                    &format!("route[{number}].prefix"),
                    format_args!("route {path} never answers: push has {} and what lies below it", push.prefix),
                ));
            }
        }
        Ok(())
    }

    fn origins(&self, value: &Value) -> Result<Vec<String>, Error> {
        let allowed = "allowed is an array of origins as browsers send them: [\"https://example.org\"], or [\"*\"]";
        let DeValue::Array(values) = value.get_ref() else { return Err(self.refuse("origins", value, allowed)) };
        let is_origin = |text: &str| {
            let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
            let plain = |byte: u8| byte.is_ascii_graphic() && !byte.is_ascii_uppercase() && !b"/?#@,".contains(&byte);
            matches!(text, "*" | "null") || host.is_some_and(|host| !host.is_empty() && host.bytes().all(plain))
        };
        values
            .iter()
            .map(|value| match value.get_ref() {
                DeValue::String(text) if is_origin(text) => Ok(text.clone().into_owned()),
                _ => Err(self.refuse("origins", value, allowed)),
            })
            .collect()
    }

    fn whole(&self, key: &str, value: &Value, low: u64, high: u64) -> Result<u64, Error> {
        let number = match value.get_ref() {
            DeValue::Integer(number) => unsigned(number),
            _ => None,
        };
        let number = number.filter(|number| (low..=high).contains(number));
        number.ok_or_else(|| self.refuse(key, value, &format!("allowed is a whole number, {low} to {high}")))
    }

    fn error_pages(&mut self, value: &Value) -> Result<(), Error> {
        let mut statuses = SITE_ERRORS.to_vec();
        if !self.config.password_files().is_empty() {
            statuses.extend(AUTH_ERRORS);
        }
        statuses.extend(self.config.site.routes.iter().filter_map(|route| match route.action {
            RouteAction::Fixed { status: status @ 400.., body: None } => Some(status),
            _ => None,
        }));
        for entry in &self.table("error_pages", value)? {
            let status = decimal(entry.key).filter(|status| statuses.contains(status));
            let Some(status) = status else {
                let list: Vec<String> = statuses.iter().map(u16::to_string).collect();
                let allowed = format!("is no error that this site answers with: allowed are {}", list.join(", "));
                return Err(self.wrong_key(entry, &allowed));
            };
            let path = self.path(entry.key, entry.value)?;
            self.config.site.error_pages.push((status, path));
            self.note(&format!("error_pages.{status}"), entry.value);
        }
        Ok(())
    }

    fn status(&self, value: &Value) -> Option<u16> {
        match value.get_ref() {
            DeValue::Integer(number) => u16::try_from(unsigned(number)?).ok(),
            _ => None,
        }
    }

    fn media_type(&self, key: &str, value: &Value) -> Result<String, Error> {
        let text = self.text(key, value)?;
        let (essence, parameters) = text.split_once(';').unwrap_or((text, ""));
        let token = |part: &str| !part.is_empty() && part.bytes().all(is_token_byte);
        let valid = essence.trim_end().split_once('/').is_some_and(|(kind, sub)| token(kind) && token(sub));
        match valid && parameters.bytes().all(|byte| (b' '..0x7f).contains(&byte)) {
            true => Ok(text.to_owned()),
            false => Err(self.refuse(key, value, "allowed is a media type: \"text/plain; charset=utf-8\"")),
        }
    }

    fn path(&self, key: &str, value: &Value) -> Result<PathBuf, Error> {
        let text = self.text(key, value)?;
        let given = value::Value { given: Given::String(text), base: Some(&self.base) };
        given.path().map_err(|_| self.refuse(key, value, "allowed is a path in quotes"))
    }

    fn text<'v>(&self, key: &str, value: &'v Value<'v>) -> Result<&'v str, Error> {
        match value.get_ref() {
            DeValue::String(text) => Ok(text),
            _ => Err(self.refuse(key, value, "allowed is text in quotes")),
        }
    }

    /// The entries of a table.
    fn table<'v>(&self, key: &str, value: &'v Value<'v>) -> Result<Vec<KeyValue<'v>>, Error> {
        match value.get_ref() {
            DeValue::Table(table) => Ok(entries(table)),
            _ => Err(self.refuse(key, value, "allowed is a table")),
        }
    }

    /// Remembers where a setting stands, for what can only be seen later.
    fn note(&mut self, key: &str, value: &Value) {
        let place = self.position(value.span().start);
        if let Some(file) = &mut self.config.file {
            file.note(key, place);
        }
    }

    fn unknown(&self, entry: &KeyValue, known: &[&str]) -> Error {
        let is_flag = SETTINGS.iter().any(|setting| setting.only().is_some() && setting.name == entry.key);
        let help = match meant(entry.key, known) {
            Some(meant) => format!(", did you mean {meant}?"),
            None if is_flag => ", this is for the command line only".to_owned(),
            None => format!(", allowed are {}", known.join(", ")),
        };
        self.error(entry.at, &format!("unknown key {}{help}", on_one_line(entry.key)))
    }

    fn wrong_key(&self, entry: &KeyValue, what: &str) -> Error {
        self.error(entry.at, &format!("{} {what}", on_one_line(entry.key)))
    }

    fn refuse(&self, key: &str, value: &Value, what: &str) -> Error {
        self.error(value.span().start, &format!("{key} is {}, {what}", self.written(value)))
    }

    fn error(&self, at: usize, what: &str) -> Error {
        let (line, column) = self.position(at);
        match &self.config.file {
            Some(file) => Error::config(format_args!("{}:{line}:{column}: {what}", file.shown())),
            None => Error::config(format_args!("{what}")),
        }
    }

    /// Line and column, both from 1, the column in characters as editors count.
    fn position(&self, at: usize) -> (usize, usize) {
        // A byte order mark is no character of the first line.
        let text = self.text.strip_prefix('\u{feff}').unwrap_or(self.text);
        let at = at.saturating_sub(self.text.len() - text.len());
        let before = text.get(..at).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    /// The value as it stands in the file, cut to what a message can bear.
    fn written(&self, value: &Value) -> String {
        const LONGEST: usize = 60;
        let raw = match value.get_ref() {
            DeValue::Table(_) => return "a table".to_owned(),
            DeValue::Array(_) if tables(self.text, value).is_some() => return "a table".to_owned(),
            _ => self.slice(&value.span()),
        };
        match raw.char_indices().nth(LONGEST) {
            Some((end, _)) => on_one_line(&raw[..end]) + "…",
            None => on_one_line(raw),
        }
    }

    fn slice(&self, span: &Range<usize>) -> &str {
        self.text.get(span.clone()).unwrap_or_default()
    }
}

fn is_token(value: &Value) -> bool {
    matches!(value.get_ref(), DeValue::String(text) if text == "token")
}

#[cfg(test)]
mod tests {
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
        for key in ROUTE_KEYS.into_iter().chain(CACHE_KEYS).chain(PUSH_KEYS) {
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
