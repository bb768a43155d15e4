//! Pressure stall information: how long tasks waited for a resource.

/// One line of a `*.pressure` file.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Stall {
    /// Microseconds in all.
    pub total: u64,
    /// Percent of the last 10, 60 and 300 seconds.
    pub averages: [f64; 3],
}

/// All lines of it.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Pressure {
    /// At least one task waited.
    pub some: Option<Stall>,
    /// All tasks waited.
    pub full: Option<Stall>,
}

impl From<&str> for Pressure {
    /// Lines like `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`; a kernel without the figures has none.
    fn from(text: &str) -> Self {
        let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).and_then(stall);
        Self { some: line("some "), full: line("full ") }
    }
}

fn stall(line: &str) -> Option<Stall> {
    let value = |key: &str| line.split_ascii_whitespace().find_map(|pair| pair.strip_prefix(key));
    let average = |key: &str| value(key).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    let averages = [average("avg10="), average("avg60="), average("avg300=")];
    Some(Stall { total: value("total=")?.parse().ok()?, averages })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lines_are_read_and_either_may_be_missing() {
        let text = "some avg10=1.50 avg60=0.30 avg300=0.00 total=12345\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        let pressure = Pressure::from(text);
        assert_eq!(pressure.some, Some(Stall { total: 12345, averages: [1.5, 0.3, 0.0] }));
        assert_eq!(pressure.full.map(|full| full.total), Some(7));
        assert_eq!(Pressure::from("some avg10=0.00 avg60=0.00 avg300=0.00 total=1\n").full, None);
        assert_eq!(Pressure::from(""), Pressure::default());
    }
}
