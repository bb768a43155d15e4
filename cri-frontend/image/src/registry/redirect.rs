//! Where a redirect may lead, and what may go along.

use reqwest::{
    StatusCode, Url,
    header::{HeaderMap, LOCATION},
};

/// As many as Go's client follows.
pub(super) const MAX_REDIRECTS: usize = 10;

/// Whether an answer sends us elsewhere.
pub(super) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// The address a redirect leads to.
///
/// # Errors
/// No address, another scheme than HTTP, or from HTTPS to plain HTTP.
pub(super) fn target(from: &Url, headers: &HeaderMap) -> Result<Url, &'static str> {
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
    let location = location.ok_or("redirects without saying where to")?;
    let url = from.join(location).map_err(|_| "redirects to something that is no URL")?;
    match (from.scheme(), url.scheme()) {
        (_, "https") | ("http", "http") => Ok(url),
        ("https", "http") => Err("redirects from https to http"),
        _ => Err("redirects to another scheme than http"),
    }
}

/// Whether secrets for one address may go to the other: same scheme, host and port.
pub(super) fn same_origin(one: &Url, other: &Url) -> bool {
    one.origin() == other.origin()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follow(from: &str, location: Option<&str>) -> Result<String, &'static str> {
        let mut headers = HeaderMap::new();
        if let Some(location) = location {
            headers.insert(LOCATION, location.parse().unwrap());
        }
        target(&from.parse().unwrap(), &headers).map(Into::into)
    }

    #[test]
    fn redirects_stay_on_http_and_keep_its_security() {
        assert_eq!(follow("https://a/v2/x", Some("/y?z=1")).unwrap(), "https://a/y?z=1");
        assert_eq!(follow("https://a/v2/x", Some("https://b/")).unwrap(), "https://b/");
        assert_eq!(follow("http://a/v2/x", Some("//b/c")).unwrap(), "http://b/c");
        for (from, to) in [
            ("https://a/", Some("http://a/")),
            ("http://a/", Some("file:///etc/passwd")),
            ("http://a/", None),
        ] {
            assert!(follow(from, to).is_err(), "{to:?}");
        }
    }

    #[test]
    fn another_port_is_another_origin() {
        let same = |a: &str, b: &str| same_origin(&a.parse().unwrap(), &b.parse().unwrap());
        assert!(same("https://a/x", "https://a:443/y"));
        assert!(!same("https://a/", "https://a:444/"));
        assert!(!same("https://a/", "https://b.a/"));
        assert!(!same("http://a/", "https://a/"));
    }
}
