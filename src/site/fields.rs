//! What the directories and answers of a site have in common.

use super::cache::Cache;
use super::content_type::MediaTypes;
use crate::api::Response;
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
}

impl Fields {
    /// The fields of `[headers]`, and a route's own in their place.
    pub fn new(site: &[Header], own: &[Header]) -> Fields {
        let mut fields = Fields { all: Vec::new(), cache_control: None };
        for header in site.iter().filter(|header| !has(own, header)) {
            match header.field.equiv("Cache-Control") {
                true => _ = fields.cache_control.get_or_insert_with(|| header.clone()),
                false => fields.all.push(header.clone()),
            }
        }
        fields.all.extend_from_slice(own);
        fields
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
        response
    }
}

fn has(fields: &[Header], header: &Header) -> bool {
    let name = header.field.as_str().as_str();
    fields.iter().any(|field| is_same_name(field.field.as_str().as_bytes(), name.as_bytes()))
}
