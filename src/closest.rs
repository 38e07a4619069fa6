//! What somebody meant who typed something else.

/// The one of `known` that was meant: the beginning of one only, or a few letters off. `-` and `_` are the same.
pub fn closest<'k>(typed: &str, known: &[&'k str]) -> Option<&'k str> {
    let dashed = |name: &str| name.replace('_', "-");
    let typed = dashed(typed);
    let (mut beginnings, mut beginning) = (0, "");
    let (mut least, mut best) = (usize::MAX, "");
    for &name in known {
        let dashed = dashed(name);
        if !typed.is_empty() && dashed.starts_with(&typed) {
            (beginnings, beginning) = (beginnings + 1, name);
        }
        let far = strsim::levenshtein(&typed, &dashed);
        if far < least {
            (least, best) = (far, name);
        }
    }
    if beginnings == 1 {
        return Some(beginning);
    }
    (least <= best.len().div_ceil(3)).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_was_meant() {
        let known = ["listen", "workers", "max_connections", "log-file", "status_routes"];
        for (typed, meant) in [
            ("lisen", Some("listen")),
            ("wor", Some("workers")),
            ("max-conections", Some("max_connections")),
            ("logfile", Some("log-file")),
            ("keep_alive", None),
            ("frobnicate", None),
            ("", None),
        ] {
            assert_eq!(closest(typed, &known), meant, "{typed}");
        }
    }
}
