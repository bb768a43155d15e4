//! Sets of processors or memory nodes as the kernel writes them: `0-3,8`.

use std::{collections::BTreeSet, fmt, str::FromStr};

/// More than any kernel is built for (`CONFIG_NR_CPUS`): a range that is longer is no list of processors.
const MOST_IDS: u32 = 8192;

/// A text that is no such list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no list of ids as in 0-3,8")]
pub struct InvalidIdSet(String);

/// A set of ids: of processors (`cpuset.cpus`) or memory nodes (`cpuset.mems`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdSet(BTreeSet<u32>);

impl IdSet {
    /// Whether it has no id.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ids that the other set lacks.
    pub fn without(&self, other: &Self) -> Self {
        Self(&self.0 - &other.0)
    }

    /// Adds the other set's ids.
    pub fn extend(&mut self, other: &Self) {
        self.0.extend(&other.0);
    }
}

impl FromStr for IdSet {
    type Err = InvalidIdSet;

    fn from_str(text: &str) -> Result<Self, InvalidIdSet> {
        let invalid = || InvalidIdSet(text.chars().take(128).collect());
        let id = |digits: &str| -> Option<u32> {
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse().ok().filter(|id| plain && *id < MOST_IDS)
        };
        let mut ids = BTreeSet::new();
        for part in text.trim().split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = id(first).zip(id(last)).ok_or_else(invalid)?;
            if first > last {
                return Err(invalid());
            }
            ids.extend(first..=last);
        }
        Ok(Self(ids))
    }
}

impl fmt::Display for IdSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ids = self.0.iter().copied().peekable();
        let mut separator = "";
        while let Some(first) = ids.next() {
            let mut last = first;
            while let Some(next) = ids.next_if_eq(&(last + 1)) {
                last = next;
            }
            write!(f, "{separator}{first}")?;
            if last > first {
                write!(f, "-{last}")?;
            }
            separator = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> IdSet {
        text.parse().unwrap()
    }

    #[test]
    fn lists_are_read_and_written_as_the_kernel_does() {
        for (given, written) in [("0", "0"), ("3,0-1,2", "0-3"), ("8,0-1\n", "0-1,8"), ("", ""), ("1,1", "1")]
        {
            assert_eq!(set(given).to_string(), written, "{given:?}");
        }
        for bad in ["a", "1-", "-1", "3-1", "1--2", "0-4294967295", "9000", "+1", "0 1", "1;2"] {
            assert!(bad.parse::<IdSet>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn sets_are_compared_and_joined() {
        let mut all = set("0-1");
        assert_eq!(set("1-3").without(&all), set("2-3"));
        all.extend(&set("5"));
        assert_eq!(all.to_string(), "0-1,5");
        assert!(set("0").without(&all).is_empty());
    }
}
