//! What a table of a configuration file says of a site: the top of the file, or a `[[host]]`.

use super::cache_control::is_cache_control;
use super::document::{KeyValue, Value};
use super::file_text::FileText;
use crate::Error;
use crate::config::site::{
    Auth, CacheRule, DirectoryOptions, Pattern, Prefix, RedirectTarget, RouteAction, RouteConfig, SiteConfig, host_key,
};
use http1::accept::Coding;
use http1::number::decimal;
use http1::{is_same_name, is_token_byte};
use std::path::PathBuf;
use tiny_http::Header;
use toml::de::DeValue;

pub const ROUTE_KEYS: [&str; 11] = [
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
pub(super) const AUTH_KEYS: [&str; 2] = ["realm", "file"];
pub const CACHE_KEYS: [&str; 2] = ["match", "control"];
const REDIRECT_STATUSES: [u16; 5] = [301, 302, 303, 307, 308];
/// 302 rather than 301, which a browser remembers for good: one that was a mistake can be taken back.
const REDIRECT_STATUS: u16 = 302;
const FIXED_TYPE: &str = "text/plain; charset=utf-8";

/// The errors that the site answers with by itself; a fixed answer may add others.
const SITE_ERRORS: [u16; 8] = [400, 403, 404, 405, 412, 416, 500, 503];
/// And these where somebody has to show who they are.
pub const AUTH_ERRORS: [u16; 2] = [401, 429];

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

/// What was read of a site so far: of the one at the top of the file, or of the `[[host]]` of that number.
#[derive(Debug, Default)]
pub struct SiteTable {
    host: Option<usize>,
    pub root: Option<PathBuf>,
    pub site: SiteConfig,
}

impl SiteTable {
    pub fn of_host(number: usize) -> SiteTable {
        SiteTable { host: Some(number), ..SiteTable::default() }
    }

    /// Reads an entry, if it says something of a site. Which errors there are pages for is not known before all of the
    /// others were read: [`error_pages`](SiteTable::error_pages).
    pub fn entry(&mut self, source: &mut FileText<'_>, entry: &KeyValue) -> Result<bool, Error> {
        match entry.key {
            "root" => self.root = Some(source.path("root", entry.value)?),
            "route" | "cache" => {
                for table in source.array_of_tables(entry, self.above())? {
                    match entry.key {
                        "route" => self.route(source, table)?,
                        _ => self.cache_rule(source, table)?,
                    }
                }
            }
            key if DirectoryOptions::KEYS.contains(&key) => directory_option(source, &mut self.site.root, entry)?,
            "headers" => self.site.headers = headers(source, "headers", entry.value)?,
            "mime" => self.mime(source, entry.value)?,
            _ => return Ok(false),
        }
        source.note(&self.key(entry.key), entry.value);
        Ok(true)
    }

    /// The tables that its tables stand in.
    fn above(&self) -> &'static str {
        self.host.map_or("", |_| "host.")
    }

    /// What remembers the place of one of its keys.
    fn key(&self, key: &str) -> String {
        host_key(self.host, key)
    }

    /// The errors that its routes make it answer with.
    pub fn errors(&self) -> Vec<u16> {
        let asks = self.site.routes.iter().any(|route| matches!(route.auth, Some(Auth::Users { .. })));
        let fixed = self.site.routes.iter().filter_map(|route| match route.action {
            RouteAction::Fixed { status: status @ 400.., body: None } => Some(status),
            _ => None,
        });
        AUTH_ERRORS.into_iter().filter(|_| asks).chain(fixed).collect()
    }

    /// Reads the pages, for what every site answers with and for these errors.
    pub fn error_pages(&mut self, source: &mut FileText<'_>, value: &Value, errors: &[u16]) -> Result<(), Error> {
        let allowed: Vec<u16> = SITE_ERRORS.iter().chain(errors).copied().collect();
        for entry in &source.table("error_pages", value)? {
            let status = decimal(entry.key).filter(|status| allowed.contains(status));
            let Some(status) = status else {
                let list: Vec<String> = allowed.iter().map(u16::to_string).collect();
                let allowed = format!("is no error that this site answers with: allowed are {}", list.join(", "));
                return Err(source.wrong_key(entry, &allowed));
            };
            let path = source.path(entry.key, entry.value)?;
            self.site.error_pages.push((status, path));
            source.note(&self.key(&format!("error_pages.{status}")), entry.value);
        }
        Ok(())
    }

    fn route(&mut self, source: &mut FileText<'_>, value: &Value) -> Result<(), Error> {
        let number = self.site.routes.len();
        let table = source.table("route", value)?;
        for entry in &table {
            if !ROUTE_KEYS.contains(&entry.key) {
                return Err(source.unknown(entry, &ROUTE_KEYS));
            }
            source.note(&self.key(&format!("route[{number}].{}", entry.key)), entry.value);
        }
        let find = |key: &str| table.iter().find(|entry| entry.key == key);
        let Some(prefix_entry) = find("prefix") else {
            return Err(source.error(value.span().start, "a route needs a prefix: prefix = \"/path\""));
        };
        let prefix = source.text("prefix", prefix_entry.value)?;
        let prefix = Prefix::parse(prefix).map_err(|what| source.refuse("prefix", prefix_entry.value, what))?;
        if let Some(first) = self.site.routes.iter().position(|route| route.prefix == prefix) {
            let line = source.line(&self.key(&format!("route[{first}].prefix")));
            return Err(source.refuse("prefix", prefix_entry.value, &format!("which line {line} has already")));
        }
        let action = action(source, value, &table)?;
        let headers = match find("headers") {
            Some(entry) => headers(source, "headers", entry.value)?,
            None => Vec::new(),
        };
        let auth = find("auth").map(|entry| auth(source, entry.value)).transpose()?;
        self.site.routes.push(RouteConfig { prefix, action, headers, auth });
        Ok(())
    }

    fn mime(&mut self, source: &FileText<'_>, value: &Value) -> Result<(), Error> {
        for entry in &source.table("mime", value)? {
            if entry.key.is_empty() || entry.key.contains(['.', '/']) {
                return Err(source.wrong_key(entry, "is no extension: allowed is what follows the last dot of a name"));
            }
            let media_type = source.media_type(entry.key, entry.value)?;
            let mime = &mut self.site.mime;
            if mime.iter().any(|(extension, _)| is_same_name(extension.as_bytes(), entry.key.as_bytes())) {
                return Err(source.wrong_key(entry, "stands twice: extensions ignore case"));
            }
            mime.push((entry.key.to_ascii_lowercase(), media_type));
        }
        Ok(())
    }

    fn cache_rule(&mut self, source: &FileText<'_>, value: &Value) -> Result<(), Error> {
        let [Some(names), Some(control)] = source.values("cache", value, &CACHE_KEYS)? else {
            let help = "a cache rule needs match and control: match = \"*.js\", control = \"max-age=3600\"";
            return Err(source.error(value.span().start, help));
        };
        let names = match names.get_ref() {
            DeValue::Array(names) if !names.is_empty() => &names[..],
            _ => std::slice::from_ref(names),
        };
        let mut rule = CacheRule { patterns: Vec::new(), control: String::new() };
        for name in names {
            let pattern =
                Pattern::parse(source.text("match", name)?).map_err(|what| source.refuse("match", name, what))?;
            let earlier = self.site.cache.iter().flat_map(|rule| &rule.patterns);
            if earlier.chain(&rule.patterns).any(|other| *other == pattern) {
                return Err(source.refuse("match", name, "which stands twice: the first one counts"));
            }
            rule.patterns.push(pattern);
        }
        let text = source.text("control", control)?;
        if !is_cache_control(text) {
            let allowed = "allowed are directives of Cache-Control: \"public, max-age=31536000, immutable\"";
            return Err(source.refuse("control", control, allowed));
        }
        rule.control = text.trim().to_owned();
        self.site.cache.push(rule);
        Ok(())
    }
}

/// `auth` of a route or of push.
pub fn auth(source: &FileText<'_>, value: &Value) -> Result<Auth, Error> {
    let allowed = "allowed is { realm = \"…\", file = \"…\" }, or false";
    match value.get_ref() {
        DeValue::Boolean(false) => return Ok(Auth::Anyone),
        DeValue::Table(_) => {}
        _ => return Err(source.refuse("auth", value, allowed)),
    }
    let [Some(realm), Some(file)] = source.values("auth", value, &AUTH_KEYS)? else {
        let help = "auth needs realm and file: auth = { realm = \"the house\", file = \"users\" }";
        return Err(source.error(value.span().start, help));
    };
    let text = source.text("realm", realm)?;
    // It stands in quotes in a field.
    let plain = |byte: u8| (b' '..0x7f).contains(&byte) && !b"\"\\".contains(&byte);
    if text.is_empty() || !text.bytes().all(plain) {
        return Err(source.refuse("realm", realm, "allowed is printable ASCII without quotes and backslashes"));
    }
    Ok(Auth::Users { realm: text.to_owned(), file: source.path("file", file)? })
}

fn action(source: &FileText<'_>, route: &Value, table: &[KeyValue]) -> Result<RouteAction, Error> {
    let find = |key: &str| table.iter().find(|entry| entry.key == key);
    let (directory, redirect) = (find("directory"), find("redirect"));
    let (status, body, content_type) = (find("status"), find("body"), find("content_type"));
    let is_option = |entry: &&KeyValue| DirectoryOptions::KEYS.contains(&entry.key);
    let mut options_said = table.iter().filter(is_option);
    // Each of these would be without effect, and so was meant in another way.
    let beside = |with: &str, others: &[Option<&KeyValue>]| match others.iter().flatten().next() {
        Some(entry) => Err(source.wrong_key(entry, &format!("does not go with {with}"))),
        None => Ok(()),
    };
    if let Some(directory) = directory {
        beside("directory", &[redirect, status, body, content_type])?;
        let mut options = DirectoryOptions::default();
        for entry in options_said {
            directory_option(source, &mut options, entry)?;
        }
        return Ok(RouteAction::Directory { path: source.path("directory", directory.value)?, options });
    }
    if let Some(entry) = options_said.next() {
        return Err(source.wrong_key(entry, "goes with a directory only"));
    }
    if let Some(redirect) = redirect {
        beside("redirect", &[body, content_type])?;
        let target = source.text("redirect", redirect.value)?;
        let target = RedirectTarget::parse(target).map_err(|what| source.refuse("redirect", redirect.value, what))?;
        let status = match status {
            None => REDIRECT_STATUS,
            Some(entry) => source
                .status(entry.value)
                .filter(|status| REDIRECT_STATUSES.contains(status))
                .ok_or_else(|| source.refuse("status", entry.value, "allowed is 301, 302, 303, 307 or 308"))?,
        };
        return Ok(RouteAction::Redirect { status, target });
    }
    if status.is_none() && body.is_none() {
        return Err(source.error(route.span().start, "a route needs one of directory, redirect, status and body"));
    }
    let code = match status {
        None => 200,
        // 206 and 304 answer what only a request with such fields may get.
        Some(entry) => {
            source.status(entry.value).filter(|status| matches!(status, 200..=205 | 400..=599)).ok_or_else(|| {
                let allowed = "allowed is 200 to 205 or 400 to 599; 3xx goes with redirect";
                source.refuse("status", entry.value, allowed)
            })?
        }
    };
    if let (204 | 205, Some(entry)) = (code, body) {
        return Err(source.wrong_key(entry, &format!("does not go with status {code}, which has none")));
    }
    if let (None, Some(entry)) = (body, content_type) {
        return Err(source.wrong_key(entry, "goes with a body only"));
    }
    let body = match body {
        None => None,
        Some(entry) => {
            let content_type = match content_type {
                None => FIXED_TYPE.to_owned(),
                Some(entry) => source.media_type("content_type", entry.value)?,
            };
            Some((content_type, source.text("body", entry.value)?.to_owned()))
        }
    };
    Ok(RouteAction::Fixed { status: code, body })
}

fn directory_option(source: &FileText<'_>, options: &mut DirectoryOptions, entry: &KeyValue) -> Result<(), Error> {
    match entry.key {
        "listing" => {
            let DeValue::Boolean(listing) = *entry.value.get_ref() else {
                return Err(source.refuse("listing", entry.value, "allowed is true or false"));
            };
            options.listing = listing;
        }
        "fallback" => options.fallback = Some(source.text("fallback", entry.value)?.to_owned()),
        _ => options.precompressed = codings(source, entry.value)?,
    }
    Ok(())
}

/// `true` for all, in their order, or an array of names in an order of its own.
fn codings(source: &FileText<'_>, value: &Value) -> Result<Vec<Coding>, Error> {
    let allowed = "allowed is true, false or an array of \"br\", \"zstd\" and \"gzip\"";
    let values = match value.get_ref() {
        DeValue::Boolean(true) => return Ok(Coding::ALL.to_vec()),
        DeValue::Boolean(false) => return Ok(Vec::new()),
        DeValue::Array(values) => values,
        _ => return Err(source.refuse("precompressed", value, allowed)),
    };
    let mut codings = Vec::new();
    for value in values {
        let known = |coding: &Coding| matches!(value.get_ref(), DeValue::String(name) if name == coding.name());
        let coding = Coding::ALL.into_iter().find(known);
        match coding {
            Some(coding) if codings.contains(&coding) => {
                return Err(source.refuse("precompressed", value, "which stands twice"));
            }
            Some(coding) => codings.push(coding),
            None => return Err(source.refuse("precompressed", value, allowed)),
        }
    }
    Ok(codings)
}

fn headers(source: &FileText<'_>, key: &str, value: &Value) -> Result<Vec<Header>, Error> {
    let mut headers: Vec<Header> = Vec::new();
    for entry in &source.table(key, value)? {
        let name = entry.key;
        if name.is_empty() || !name.bytes().all(is_token_byte) {
            return Err(source.wrong_key(entry, "is no name of a header field"));
        }
        if OWN_FIELDS.iter().any(|own| is_same_name(own.as_bytes(), name.as_bytes())) {
            let help = match is_same_name(name.as_bytes(), b"content-type") {
                true => "is for [mime], or content_type of a route, to say",
                false => "is for the server to say",
            };
            return Err(source.wrong_key(entry, help));
        }
        if headers.iter().any(|header| is_same_name(header.field.as_str().as_bytes(), name.as_bytes())) {
            return Err(source.wrong_key(entry, "stands twice: names of fields ignore case"));
        }
        let text = source.text(name, entry.value)?;
        let printable = text.bytes().all(|byte| byte == b'\t' || (b' '..0x7f).contains(&byte));
        // `from_bytes` refuses what is not ASCII, and nothing of that is left.
        let header = printable.then(|| Header::from_bytes(name, text.trim()).ok()).flatten();
        headers.push(header.ok_or_else(|| source.refuse(name, entry.value, "allowed is printable ASCII"))?);
    }
    Ok(headers)
}
