//! Whom routes let in: `auth` of a configuration, for the routes that say it and for those below them.

use crate::access::{BasicAuth, Refusal, Users, UsersFile, Verifier};
use crate::api::{Response, known_header};
use crate::config::site::{Auth, ConfiguredSite};
use crate::{Config, Error};
use std::path::PathBuf;
use std::sync::Arc;

/// Who stands at which path. What a route does not say it has from the next route above it, so that one that is added
/// below another opens nothing.
pub(super) struct Guards(Vec<(String, Option<Arc<BasicAuth>>)>);

/// The files of users of a configuration, each read once, and what verifies passwords: one for all sites, since who guesses
/// keeps workers busy whatever name they guess under.
pub(super) struct Passwords<'c> {
    config: &'c Config,
    files: Vec<Arc<UsersFile>>,
    verifier: Option<Arc<Verifier>>,
}

impl<'c> Passwords<'c> {
    pub fn new(config: &'c Config) -> Passwords<'c> {
        Passwords { config, files: Vec::new(), verifier: None }
    }

    /// Who is let in by what that key says.
    fn guard(&mut self, key: &str, realm: &str, file: &PathBuf) -> Result<Arc<BasicAuth>, Error> {
        let wrong = |what: String| self.config.error(key, format_args!("file of users {file:?}: {what}"));
        let known = match self.files.iter().find(|known| known.path == *file) {
            Some(known) => known.clone(),
            None => {
                let users = Users::read(file).map_err(wrong)?;
                let known = Arc::new(UsersFile { path: file.clone(), users, number: self.files.len() });
                self.files.push(known.clone());
                known
            }
        };
        let verifier = match &self.verifier {
            Some(verifier) => verifier,
            None => {
                let new = Verifier::new(self.config.workers).map_err(|error| wrong(error.to_string()))?;
                self.verifier.insert(Arc::new(new))
            }
        };
        Ok(Arc::new(BasicAuth::new(realm, &known, verifier)))
    }
}

impl Guards {
    /// Those of a site; `[[push]]` is of the one at the top.
    pub fn open(passwords: &mut Passwords<'_>, site: ConfiguredSite<'_>) -> Result<Guards, Error> {
        let routes =
            site.site.routes.iter().zip(0..).map(|(route, number)| {
                (route.prefix.to_string(), &route.auth, site.key(&format!("route[{number}].auth")))
            });
        let push = passwords.config.push.namespaces.iter().filter(|_| site.host.is_none());
        let push = push
            .zip(0..)
            .map(|(namespace, number)| (namespace.prefix.clone(), &namespace.auth, format!("push[{number}].auth")));
        let mut guards = Vec::new();
        for (path, auth, key) in routes.chain(push) {
            match auth {
                None => {}
                Some(Auth::Anyone) => guards.push((path, None)),
                Some(Auth::Users { realm, file }) => guards.push((path, Some(passwords.guard(&key, realm, file)?))),
            }
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
