//! What a caller knows about itself to a registry.

use std::fmt;

/// The fields of CRI's `AuthConfig`; an empty string means "not given". Never printed.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// User name for Basic authentication and token servers.
    pub username: String,
    /// The password.
    pub password: String,
    /// `base64(username:password)`, instead of the two above.
    pub auth: String,
    /// The registry these are meant for, as a URL or `host[:port]`; empty means any.
    pub server_address: String,
    /// A refresh token, exchanged for a registry token at the token server.
    pub identity_token: String,
    /// A Bearer token that the registry itself takes.
    pub registry_token: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not even which fields are set: a log must not tell one login from another.
        formatter.write_str("Credentials(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        let secret =
            Credentials { username: "alice".into(), password: "wonder".into(), ..Default::default() };
        let shown = format!("{secret:?}");
        assert!(!shown.contains("alice") && !shown.contains("wonder"), "{shown}");
    }
}
