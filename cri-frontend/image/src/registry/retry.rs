//! How long to wait before asking again.

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};

/// So often a request is made in all.
pub(super) const MAX_ATTEMPTS: u32 = 4;
/// A registry that wants us to wait longer is not waited for.
const MAX_WAIT: Duration = Duration::from_secs(30);
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// Rounds over all hosts of a registry.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    fruitless: u32,
}

impl Rounds {
    /// Waits before another round. False if there were enough that brought nothing.
    pub(super) async fn another(&mut self, progressed: bool) -> bool {
        if progressed {
            self.fruitless = 0;
        }
        let Some(wait) = wait_after(self.fruitless, None, SystemTime::now()) else { return false };
        self.fruitless += 1;
        tokio::time::sleep(wait).await;
        true
    }
}

/// The wait after the given attempt, counted from 0; nothing if it is better to give up.
pub(super) fn wait_after(attempt: u32, headers: Option<&HeaderMap>, now: SystemTime) -> Option<Duration> {
    if attempt + 1 >= MAX_ATTEMPTS {
        return None;
    }
    match headers.and_then(|headers| retry_after(headers, now)) {
        Some(wanted) if wanted > MAX_WAIT => None,
        Some(wanted) => Some(wanted),
        None => Some(FIRST_WAIT * 3_u32.pow(attempt)),
    }
}

/// Seconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?;
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(attempt: u32, header: Option<&str>) -> Option<Duration> {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let mut headers = HeaderMap::new();
        if let Some(header) = header {
            headers.insert(RETRY_AFTER, header.parse().unwrap());
        }
        wait_after(attempt, Some(&headers), now)
    }

    #[test]
    fn waits_grow_and_end() {
        let waits: Vec<_> = (0..4).map(|attempt| wait(attempt, None).map(|wait| wait.as_millis())).collect();
        assert_eq!(waits, [Some(250), Some(750), Some(2250), None]);
    }

    #[test]
    fn the_registry_may_say_how_long() {
        assert_eq!(wait(0, Some("7")), Some(Duration::from_secs(7)));
        assert_eq!(wait(0, Some("Sun, 06 Nov 1994 08:49:47 GMT")), Some(Duration::from_secs(10)));
        assert_eq!(wait(0, Some("Sun, 06 Nov 1994 08:00:00 GMT")), Some(Duration::ZERO));
        assert_eq!(wait(0, Some("86400")), None);
        assert_eq!(wait(0, Some("soon")), Some(Duration::from_millis(250)));
    }
}
