//! Whom routes let in: `auth` of a configuration, for the routes that say it and for those below them.

use crate::access::{BasicAuth, Refusal, Users, UsersFile, Verifier};
use crate::api::{Response, known_header};
use crate::config::site::Auth;
use crate::{Config, Error};
use std::sync::Arc;

/// Who stands at which path. What a route does not say it has from the next route above it, so that one that is added
/// below another opens nothing.
pub(super) struct Guards(Vec<(String, Option<Arc<BasicAuth>>)>);

impl Guards {
    /// Reads the files of users, each once.
    pub fn open(config: &Config) -> Result<Guards, Error> {
        let routes = config
            .site
            .routes
            .iter()
            .zip(0..)
            .map(|(route, number)| (route.prefix.to_string(), &route.auth, format!("route[{number}].auth")));
        let push = config
            .push
            .namespaces
            .iter()
            .zip(0..)
            .map(|(namespace, number)| (namespace.prefix.clone(), &namespace.auth, format!("push[{number}].auth")));
        let mut files: Vec<Arc<UsersFile>> = Vec::new();
        let mut verifier = None;
        let mut guards = Vec::new();
        for (path, auth, key) in routes.chain(push) {
            let (realm, file) = match auth {
                None => continue,
                Some(Auth::Anyone) => {
                    guards.push((path, None));
                    continue;
                }
                Some(Auth::Users { realm, file }) => (realm, file),
            };
            let wrong = |what: String| config.error(&key, format_args!("file of users {file:?}: {what}"));
            let known = match files.iter().find(|known| known.path == *file) {
                Some(known) => known.clone(),
                None => {
                    let users = Users::read(file).map_err(wrong)?;
                    let known = Arc::new(UsersFile { path: file.clone(), users, number: files.len() });
                    files.push(known.clone());
                    known
                }
            };
            let verifier = match &verifier {
                Some(verifier) => verifier,
                None => {
                    let new = Verifier::new(config.workers).map_err(|error| wrong(error.to_string()))?;
                    verifier.insert(Arc::new(new))
                }
            };
            guards.push((path, Some(Arc::new(BasicAuth::new(realm, &known, verifier)))));
        }
        guards.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
        Ok(Guards(guards))
    }

    /// Who stands at that path, which begins with a slash and has none at its end, or above it.
    pub fn of(&self, path: &str) -> Option<Arc<BasicAuth>> {
        let covers = |above: &str| match path.strip_prefix(above.trim_end_matches('/')) {
            Some(rest) => rest.is_empty() || rest.starts_with('/'),
            None => false,
        };
        self.0.iter().find(|(above, _)| covers(above))?.1.clone()
    }
}

/// What `--check` says of it.
pub(super) fn shown(guard: Option<&BasicAuth>) -> String {
    guard.map_or(String::new(), |guard| format!(", {}", guard.describe()))
}

/// What is said to who does not come in, beside the fields of the route. Nobody keeps it: it is wrong as soon as the client
/// knows better.
pub(super) fn refused(response: Response, refusal: Refusal, guard: &BasicAuth) -> Response {
    let mut headers = response.headers().to_vec();
    headers.retain(|header| !["Cache-Control", "WWW-Authenticate"].iter().any(|own| header.field.equiv(own)));
    headers.push(known_header("Cache-Control", "no-store"));
    match refusal {
        Refusal::Unknown => headers.push(known_header("WWW-Authenticate", guard.challenge())),
        Refusal::Busy => headers.push(known_header("Retry-After", "1")),
        Refusal::Ambiguous => {}
    }
    response.into_reader().into_response_with(refusal.status(), headers)
}
