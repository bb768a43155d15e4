//! `WWW-Authenticate`: what a registry wants to see (RFC 9110, 11.6.1).

use std::collections::HashMap;

/// One challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User name and password.
    Basic,
    /// A token from a token server.
    Bearer {
        /// The token server's URL.
        realm: String,
        /// The registry's name there.
        service: Option<String>,
        /// What is asked for.
        scope: Option<String>,
    },
}

/// The best challenge that we can answer: a token before a password.
pub(super) fn best<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let challenges: Vec<Challenge> = headers.flat_map(parse).collect();
    let bearer = challenges.iter().find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
    bearer.or(challenges.first()).cloned()
}

fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<(String, HashMap<String, String>)> = Vec::new();
    let mut rest = header.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        let (word, after) = token(rest);
        if word.is_empty() {
            // Nothing that the grammar knows: what follows can't be trusted to mean anything.
            break;
        }
        rest = after.trim_start();
        if let Some(value) = rest.strip_prefix('=') {
            let Some((value, after)) = parameter(value.trim_start()) else { break };
            if let Some((_, parameters)) = challenges.last_mut() {
                parameters.insert(word.to_ascii_lowercase(), value);
            }
            rest = after;
        } else {
            challenges.push((word.to_ascii_lowercase(), HashMap::new()));
        }
        rest = rest.trim_start_matches([' ', '\t', ',']);
    }
    challenges.into_iter().filter_map(|(scheme, parameters)| known(&scheme, parameters)).collect()
}

fn known(scheme: &str, mut parameters: HashMap<String, String>) -> Option<Challenge> {
    match scheme {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer {
            realm: parameters.remove("realm")?,
            service: parameters.remove("service"),
            scope: parameters.remove("scope"),
        }),
        _ => None,
    }
}

fn token(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)));
    text.split_at(end.unwrap_or(text.len()))
}

/// A token or a quoted string.
fn parameter(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let (mut value, mut escaped) = (String::new(), false);
    for (index, c) in quoted.char_indices() {
        match c {
            _ if escaped => {
                value.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return Some((value, &quoted[index + 1..])),
            _ => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer {
            realm: realm.into(),
            service: service.map(Into::into),
            scope: scope.map(Into::into),
        })
    }

    #[test]
    fn known_challenges_are_read() {
        let docker = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        let expected = bearer(
            "https://auth.docker.io/token",
            Some("registry.docker.io"),
            Some("repository:a/b:pull,push"),
        );
        assert_eq!(best([docker].into_iter()), expected);
        assert_eq!(best(["basic realm=x"].into_iter()), Some(Challenge::Basic));
        assert_eq!(best([r#"BEARER Realm = "a\"b""#].into_iter()), bearer("a\"b", None, None));
    }

    #[test]
    fn a_token_is_preferred_among_several() {
        let both = r#"Basic realm="r", Bearer realm="t""#;
        assert_eq!(best([both].into_iter()), bearer("t", None, None));
        assert_eq!(best(["Negotiate", "Basic realm=r"].into_iter()), Some(Challenge::Basic));
    }

    #[test]
    fn nonsense_is_no_challenge() {
        for header in
            ["", ",,,", "Bearer", "Bearer realm", r#"Bearer realm="open"#, "\u{1}", "Digest a=b", "=", "é"]
        {
            assert_eq!(best([header].into_iter()), None, "{header:?}");
        }
    }
}
