//! What the directories and answers of a site have in common.

use super::cache::Cache;
use super::content_type::MediaTypes;
use crate::api::{Response, known_header};
use crate::config::site::CacheRule;
use http1::is_same_name;
use std::sync::Arc;
use tiny_http::Header;

/// What all directories of a site have in common.
pub(super) struct SiteShared {
    pub kept: Arc<Cache>,
    pub types: Arc<MediaTypes>,
    pub rules: Arc<[CacheRule]>,
}

/// What the configuration adds to the answers of a route.
pub(super) struct Fields {
    all: Vec<Header>,
    /// Cache-Control of `[headers]`: for what no rule has said it of.
    cache_control: Option<Header>,
    /// Whether caches that are shared must not keep the answers, whatever else is said of caches.
    private: bool,
}

impl Fields {
    /// The fields of `[headers]`, and a route's own in their place.
    pub fn new(site: &[Header], own: &[Header]) -> Fields {
        let mut fields = Fields { all: Vec::new(), cache_control: None, private: false };
        for header in site.iter().filter(|header| !has(own, header)) {
            match header.field.equiv("Cache-Control") {
                true => _ = fields.cache_control.get_or_insert_with(|| header.clone()),
                false => fields.all.push(header.clone()),
            }
        }
        fields.all.extend_from_slice(own);
        fields
    }

    /// The same for answers that are not for everybody. What the route itself says of caches stays: it knows for whom it is.
    pub fn guarded(self) -> Fields {
        let said = self.all.iter().any(|header| header.field.equiv("Cache-Control"));
        Fields { private: !said, ..self }
    }

    pub(super) fn onto(&self, mut response: Response) -> Response {
        // What a file says in Vary stays true whatever else is said there; several such fields are one list.
        let replaced = |header: &Header| has(&self.all, header) && !header.field.equiv("Vary");
        if response.headers().iter().any(replaced) {
            let mut kept = response.headers().to_vec();
            kept.retain(|header| !replaced(header));
            let status = response.status_code().0;
            response = response.into_reader().into_response_with(status, kept);
        }
        let ruled = response.headers().iter().any(|header| header.field.equiv("Cache-Control"));
        let inherited = self.cache_control.iter().filter(|_| !ruled);
        for field in self.all.iter().chain(inherited) {
            response.add_header(field.clone());
        }
        if self.private { kept_by_its_user_alone(response) } else { response }
    }
}

/// A cache that is shared keeps what was asked for with a password only where `public`, `s-maxage` or `must-revalidate`
/// say so (RFC 9111 §3.5), which a rule may that is for the whole site.
fn kept_by_its_user_alone(response: Response) -> Response {
    let is_of_caches = |header: &Header| header.field.equiv("Cache-Control");
    let mut headers = response.headers().to_vec();
    let said: Vec<&str> =
        headers.iter().filter(|header| is_of_caches(header)).map(|header| header.value.as_str()).collect();
    let said = said.join(",");
    // A comma in quotes is none between directives; hardly anybody has one.
    let directives = said.split(',').map(str::trim).filter(|directive| !said.contains('"') && !directive.is_empty());
    let is = |directive: &str, name: &str| {
        is_same_name(directive.split('=').next().unwrap_or_default().trim_end().as_bytes(), name.as_bytes())
    };
    let mut kept: Vec<&str> = directives.filter(|it| !is(it, "public") && !is(it, "s-maxage")).collect();
    if !kept.iter().any(|it| is(it, "private") || is(it, "no-store")) {
        kept.push("private");
    }
    let control = known_header("Cache-Control", &kept.join(", "));
    headers.retain(|header| !is_of_caches(header));
    headers.push(control);
    let status = response.status_code().0;
    response.into_reader().into_response_with(status, headers)
}

/// Whether there is one of that name.
pub(super) fn has(fields: &[Header], header: &Header) -> bool {
    let name = header.field.as_str().as_str();
    fields.iter().any(|field| is_same_name(field.field.as_str().as_bytes(), name.as_bytes()))
}
